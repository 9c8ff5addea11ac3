import numpy as np
import polars as pl
import pytest

from recalign.errors import UserError
from recalign.preparation.events import EventLog, read_events
from recalign.preparation.items import clean_items
from recalign.preparation.prepare_options import resolve

SCHEMA = {"user_id": pl.String, "item_id": pl.String, "timestamp": pl.Float64}


def items(count):
    ids = [f"i{n}" for n in range(count)]
    return clean_items(
        pl.LazyFrame({"item_id": ids, "title": ids, "genres": [[]] * count, "text": [""] * count}), "refuse", False
    )


def read(rows, count=4, **options):
    events = pl.LazyFrame(rows, schema=SCHEMA, orient="row")
    return read_events(events, items(count), resolve(options, {}))


def test_events_are_sorted_by_user_and_time_and_ties_keep_the_files_order():
    kept = read([("b", "i1", 5.0), ("a", "i3", 2.0), ("a", "i0", 2.0), ("a", "i2", 1.0)])
    assert kept.users == ["a", "b"]
    assert kept.rows.user.tolist() == [0, 0, 0, 1]
    assert kept.rows.item.tolist() == [2, 3, 0, 1]
    assert kept.items.tolist() == [0, 1, 2, 3]


def test_filters_shrink_users_and_items():
    rows = [("a", "i1", 1.0), ("a", "i3", 2.0), ("b", "i1", 1.0), ("b", "i3", 2.0), ("c", "i0", 1.0)]
    kept = read(rows, k_core=2)
    assert kept.users == ["a", "b"]
    assert kept.items.tolist() == [1, 3]
    assert kept.rows.item.tolist() == [0, 1, 0, 1]
    with pytest.raises(UserError, match="--k-core 3"):
        read(rows, k_core=3)


def test_unknown_items_are_named_with_their_row_or_left_out():
    rows = [("a", "i1", 1.0), ("a", "ghost", 2.0)]
    with pytest.raises(UserError) as error:
        read(rows)
    assert "1 of 2" in error.value.what and "row 2" in error.value.what and "'ghost'" in error.value.what
    assert read(rows, drop_invalid=True).unknown == 1
    with pytest.raises(UserError, match="None of the 1"):
        read(rows[1:], drop_invalid=True)


def test_no_events_are_refused():
    with pytest.raises(UserError, match="no interactions"):
        read([])


def test_previous_names_the_last_time_of_the_same_item_in_the_same_sequence():
    start = np.array([0, 4, 6])
    log = EventLog(
        ["a", "b"], np.arange(2), start, np.array([7, 3, 7, 7, 3, 7], np.int32), np.zeros(6), None, np.ones(6)
    )
    assert log.previous.tolist() == [-1, -1, 0, 2, -1, -1]


def test_repeats_go_before_the_filters_and_are_counted_before_them():
    rows = [("a", "i1", 1.0), ("a", "i1", 1.0), ("a", "i2", 2.0), ("b", "i2", 1.0), ("b", "i3", 2.0), ("b", "i3", 3.0)]
    assert read(rows, k_core=2).rows.item.tolist() == [0, 0, 1, 1, 2, 2]
    assert read(rows).facts["exact_duplicates"] == 1
    assert read(rows).facts["repeated_items"] == 1
    with pytest.raises(UserError, match="--k-core 2"):
        read(rows, k_core=2, duplicates="first")
    kept = read(rows, duplicates="last")
    assert list(zip(kept.rows.user.tolist(), kept.rows.item.tolist(), kept.rows.time.tolist(), strict=True)) == [
        (0, 1, 1.0),
        (0, 2, 2.0),
        (1, 2, 1.0),
        (1, 3, 3.0),
    ]


def test_user_ids_that_look_alike_are_told():
    rows = [("u1", "i1", 1.0), ("U1", "i2", 1.0), ("u2", "i2", 1.0)]
    assert read(rows).facts["lookalike_user_ids"] == {"count": 2, "example": ["U1", "u1"], "by_case": 2}


def test_ids_may_be_categories():
    rows = [("b", "i2", 1.0), ("a", "gone", 2.0), ("a", "i0", 1.0), ("c", "i3", 1.0), ("b", "i2", 0.0)]
    events = pl.LazyFrame(rows, schema=SCHEMA, orient="row")
    options = resolve({"drop_invalid": True}, {})
    text = read_events(events, items(4), options)
    coded = read_events(events.cast({"user_id": pl.Categorical, "item_id": pl.Categorical}), items(4), options)
    assert (coded.users, coded.rows.user.tolist(), coded.rows.item.tolist()) == (
        ["a", "b", "c"],
        [0, 1, 1, 2],
        [0, 2, 2, 3],
    )
    assert (text.users, text.rows.user.tolist(), text.rows.item.tolist()) == (coded.users, [0, 1, 1, 2], [0, 2, 2, 3])
    assert coded.unknown == text.unknown == 1
