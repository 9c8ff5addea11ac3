import numpy as np
import polars as pl
import pytest

from recalign.errors import UserError
from recalign.preparation.items import clean_items
from recalign.preparation.provided_windows import once, read_windows


def items():
    ids = list("abcd")
    return clean_items(
        pl.LazyFrame({"item_id": ids, "title": ids, "genres": [[]] * 4, "text": [""] * 4}), "refuse", False
    )


def windows(*rows):
    schema = {"user_id": pl.String, "item_ids": pl.List(pl.String), "timestamp": pl.Float64}
    return pl.LazyFrame(rows, schema=schema, orient="row")


def test_each_window_is_a_sequence_of_its_user():
    train = windows(("u2", ["a", "b"], 5.0), ("u1", ["c"], 6.0), ("u2", ["a", "b", "d"], 7.0))
    log, split_of, facts = read_windows({"train": train, "test": windows(("u9", ["d", "a"], 8.0))}, items(), False)
    assert log.users == ["u1", "u2", "u9"]
    assert log.owner.tolist() == [1, 0, 1, 2]
    assert log.item.tolist() == [0, 1, 2, 0, 1, 3, 3, 0]
    assert log.time.tolist() == [5, 5, 6, 7, 7, 7, 8, 8]
    assert split_of.tolist() == [0, 0, 0, 2]
    assert (facts["windows_read"], facts["duplicate_windows"], facts["dropped_events"]) == (4, 0, 0)
    assert facts["times"] == {"dates": False, "earliest": 5.0, "latest": 8.0}


def test_an_interaction_that_several_windows_tell_of_counts_once_with_the_earliest_time():
    train = windows(("u1", ["a", "b", "c"], 7.0), ("u1", ["a", "b"], 5.0), ("u2", ["a"], 1.0))
    log, _, _ = read_windows({"train": train}, items(), False)
    positions = once(log, np.ones(len(log), dtype=bool))
    told = [(log.users[log.user[p]], "abcd"[log.item[p]], log.time[p]) for p in positions]
    assert told == [("u1", "a", 5.0), ("u1", "b", 5.0), ("u1", "c", 7.0), ("u2", "a", 1.0)]


def test_unknown_items_are_named_with_split_and_row_or_their_windows_left_out():
    parts = {"train": windows(("u", ["a", "b"], 1.0)), "test": windows(("u", ["a", "b"], 2.0), ("u", ["a", "zz"], 3.0))}
    with pytest.raises(UserError) as error:
        read_windows(parts, items(), False)
    assert "row 2 of test" in error.value.what and "'zz'" in error.value.what
    log, split_of, facts = read_windows(parts, items(), True)
    assert (len(log.owner), split_of.tolist(), facts["dropped_events"]) == (2, [0, 2], 1)


def test_no_windows_are_refused():
    with pytest.raises(UserError, match="no windows"):
        read_windows({"train": windows(), "test": windows()}, items(), False)


def test_a_window_that_repeats_another_of_its_split_is_counted():
    train = windows(("u", ["a", "b"], 1.0), ("u", ["a", "b"], 1.0), ("u", ["b", "a"], 1.0), ("v", ["a", "b"], 1.0))
    parts = {"train": train, "test": windows(("u", ["a", "b"], 1.0))}
    assert read_windows(parts, items(), False)[2]["duplicate_windows"] == 1


def test_ids_of_windows_that_look_alike_are_one_where_asked():
    parts = {"train": windows(("U1", ["A", "b "], 5.0), ("u1", ["c"], 6.0))}
    catalogue = clean_items(
        pl.LazyFrame({"item_id": list("abc"), "title": list("abc")}), "refuse", False, same_ids="case"
    )
    log, _, facts = read_windows(parts, catalogue, False)
    assert (log.users, log.item.tolist(), facts["user_ids_joined"]) == (["U1"], [0, 1, 2], 1)
    with pytest.raises(UserError, match="'A'"):
        read_windows(parts, items(), False)
