"""Logs that would mislead: `prepare` tells what is the matter with each, and the option that it names mends it."""

import re
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from recalign import cli
from recalign.data.dataset import SPLITS, PreparedDataset
from recalign.errors import UserError
from recalign.preparation.interactions import ORDERS
from recalign.preparation.pipeline import prepare_dataset
from tests.sources import formats
from tests.sources.test_recbole import at_random

START = 1_400_000_000
CLEAN = [(f"u{n // 5}", f"i{n * 7 % 11}", START + n) for n in range(100)]  # 20 users of 5 interactions
COLUMNS = ["user_id", "item_id", "timestamp"]


@pytest.fixture
def prepare(tmp_path):
    """`prepare(rows, **options)`: what the warnings say that a clean log does not give, and what the report counts."""

    def run(rows, params=None, **options):
        file = tmp_path / "log.csv"
        frame = rows if isinstance(rows, pl.DataFrame) else pl.DataFrame(rows, schema=COLUMNS, orient="row")
        frame.write_csv(file)
        options = {"split": "leave-one-out", **options}
        told = prepare_dataset("table", file, tmp_path / "out", params=params, options=options, overwrite=True)
        usual = "intervals will be wide"
        return [line for line in told["warnings"] if usual not in line], told["counts"]

    return run


def targets(folder):
    dataset = PreparedDataset(folder / "out")
    ids = dataset.catalogue.item_ids
    return {row.user_id: [ids[item] for item in row.targets] for row in dataset.rows("test")}


def test_a_clean_log_warns_of_nothing(prepare):
    warned, counts = prepare(CLEAN)
    assert warned == []
    assert counts["times"] == {
        "dates": True,
        "earliest": "2014-05-13",
        "latest": "2014-05-13",
        "units": {"seconds": 100},
        "before_1990": 0,
        "in_future": 0,
    }
    assert counts["row_order"] == {"order": "oldest first", "earlier_next": 0.0}
    assert counts["rules"] == [{"rule": "read", "left_out": 0, "interactions": 100, "users": 20, "items": 11}]
    assert (counts["exact_duplicates"], counts["repeated_items"], counts["tied_interactions"]) == (0, 0, 0)
    assert (counts["items_differing"], counts["items_completed"]) == ({}, {})


def test_every_row_twice(prepare, tmp_path):
    warned, counts = prepare(CLEAN * 2)
    assert (counts["exact_duplicates"], counts["rows"]["test"]["rows_with_target_in_history"]) == (100, 20)
    assert any(
        "100 interactions (50.0%) are exact duplicates" in line and "--duplicates drop" in line for line in warned
    )
    found = targets(tmp_path)
    warned, counts = prepare(CLEAN * 2, duplicates="drop")
    assert warned == ["100 repeated interactions were left out (--duplicates drop)."]
    assert counts["rules"][1]["left_out"] == 100 and counts["interactions"] == 100
    assert targets(tmp_path) == found


def test_times_of_two_units(prepare, tmp_path):
    """The last two of each user's interactions were logged in seconds, those before in milliseconds."""
    mixed = [(user, item, time * (1000 if n % 5 < 3 else 1)) for n, (user, item, time) in enumerate(CLEAN)]
    warned, counts = prepare(mixed)
    assert counts["times"]["units"] == {"seconds": 40, "milliseconds": 60}
    assert "different units (40 in seconds, 60 in milliseconds" in warned[0] and "--mend-times" in warned[0]
    wrong = targets(tmp_path)
    warned, counts = prepare(mixed, mend_times=True)
    assert (warned, counts["times_mended"], counts["times"]["units"]) == ([], 60, {"seconds": 100})
    mended = targets(tmp_path)
    prepare(CLEAN)
    assert mended == targets(tmp_path) != wrong


def test_times_that_are_hardly_right(prepare):
    """Each user has an interaction of time zero, and one of the far future."""
    odd = [*CLEAN, *((f"u{n}", "i1", 0) for n in range(20)), *((f"u{n}", "i2", 2**33) for n in range(20))]
    warned, counts = prepare(odd, duplicates="keep")
    assert (counts["times"]["before_1990"], counts["times"]["in_future"]) == (20, 20)
    assert any("20 times (14.3%) are before 1990, the earliest 1970-01-01" in line for line in warned)
    assert any("20 times (14.3%) are in the future, the latest 2242-03-16" in line for line in warned)
    warned, counts = prepare(odd, since="1990-01-01", until="2200-01-01")
    assert warned == []
    assert [(step["rule"], step["left_out"]) for step in counts["rules"]] == [
        ("read", 0),
        ("--since 1990-01-01", 20),
        ("--until 2200-01-01", 20),
    ]


def test_a_file_that_is_newest_first_turns_ties_round(prepare, tmp_path):
    tied = [(f"u{n // 12}", f"i{n * 7 % 50}", START + n // 4) for n in range(288)]
    prepare(tied)
    right = targets(tmp_path)
    warned, counts = prepare(tied[::-1])
    assert counts["row_order"] == {"order": "newest first", "earlier_next": 1.0}
    assert counts["tied_interactions"] == 288
    assert any("newest first (100% of the rows" in line and "--ties reversed" in line for line in warned)
    assert targets(tmp_path) != right
    warned, _ = prepare(tied[::-1], ties="reversed")
    assert targets(tmp_path) == right
    assert not any("newest first" in line for line in warned)


@pytest.mark.parametrize(("same_ids", "users", "items"), [("exact", 25, 12), ("blanks", 25, 11), ("case", 20, 11)])
def test_ids_in_two_forms(prepare, same_ids, users, items):
    """Five users are in capitals for their last three interactions, and an item has a blank behind it at times."""
    rows = [
        (user.upper() if n < 25 and n % 5 > 1 else user, item + (" " if item == "i3" and n > 50 else ""), time)
        for n, (user, item, time) in enumerate(CLEAN)
    ]
    warned, counts = prepare(rows, same_ids=same_ids, min_history=1)
    assert (counts["rules"][0]["users"], counts["rules"][0]["items"]) == (users, items)
    assert (counts["user_ids_joined"], counts["item_ids_joined"]) == (25 - users, 12 - items)
    told = " ".join(warned)
    assert ("10 user ids differ" in told and "--same-ids case joins all" in told) == (users == 25)
    assert ("2 item ids differ" in told and "--same-ids blanks joins 2 of them." in told) == (items == 12)


def test_an_unknown_item_that_looks_like_one_is_told(prepare, tmp_path):
    table = tmp_path / "items.csv"
    pl.DataFrame({"item_id": [f"I{n}" for n in range(11)], "title": [f"T{n}" for n in range(11)]}).write_csv(table)
    with pytest.raises(UserError, match="100 of 100 interactions name items that the catalogue lacks") as error:
        prepare(CLEAN, {"items": table})
    assert "looks like the item 'I0'" in error.value.hint and "--same-ids" in error.value.hint
    warned, counts = prepare(CLEAN, {"items": table}, same_ids="case")
    assert (warned, counts["items"], counts["interactions"]) == ([], 11, 100)


def test_headlines_among_titles_and_titles_that_come_late(prepare, tmp_path):
    """No item has a title in its first row; rows 23, 46, 69 and 92, of four items, have a headline in its place."""
    frame = pl.DataFrame(CLEAN, schema=COLUMNS, orient="row").with_row_index("n")
    titled = pl.when(pl.col("n") % 23 == 0).then(pl.lit("Great!")).otherwise(pl.format("Title of {}", "item_id"))
    late = pl.when(pl.col("n") < 11).then(pl.lit("")).otherwise(titled)
    warned, counts = prepare(frame.with_columns(title=late).drop("n"))
    assert counts["items_completed"] == {"title": 11}
    assert counts["items_differing"]["title"]["items"] == 4
    assert len(warned) == 1 and "The title differs among the rows of 4 items (36.4% of all)" in warned[0]
    assert "'Great!' in row 24" in warned[0] and "the most frequent counts" in warned[0]
    assert "-p title=COLUMN" in warned[0] and "-p items=FILE" in warned[0]
    catalogue = PreparedDataset(tmp_path / "out").catalogue
    assert catalogue.titles == [f"Title of {item}" for item in catalogue.item_ids]


def shuffled(rows, seed):
    return [rows[place] for place in np.random.default_rng(seed).permutation(len(rows))]


def tied_log(seed):
    """A log with ties, repeats, missing titles and several forms of titles."""
    random = np.random.default_rng(seed)
    return [
        (
            f"u{random.integers(30)}",
            f"i{item}",
            START + int(random.integers(60)),
            int(random.integers(1, 6)),
            random.choice(["", f"T{item}", f"T{item}", f"t{item} ", "Great!"]),
            random.choice(["", "A|B", "B", "N/A"]),
        )
        for item in random.integers(0, 40, 900)
    ]


def content(folder, rows, **options):
    names = [*COLUMNS, "rating", "title", "genres"]
    pl.DataFrame(rows, schema=names, orient="row").write_csv(folder / "log.csv")
    options = {"candidates": 5, "popularity_cut": 80.0, "relevance": "rating", **options}
    told = prepare_dataset("table", folder / "log.csv", folder / "out", options=options, overwrite=True)
    files = ["items.parquet", "interactions.parquet", *(f"{split}/data.arrow" for split in SPLITS)]
    return told["hash"], [(folder / "out" / name).read_bytes() for name in files]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("ties", [name for name, order in ORDERS.items() if not order.of_rows])
def test_the_order_of_the_rows_changes_nothing(tmp_path, ties, seed):
    rows, options = tied_log(seed), {"ties": ties, "duplicates": ("keep", "drop", "first", "last")[seed]}
    assert content(tmp_path, rows, **options) == content(tmp_path, shuffled(rows, seed), **options)


@pytest.mark.parametrize("seed", range(3))
def test_the_order_of_the_rows_changes_nothing_by_default_but_ties(tmp_path, seed):
    rows = [(user, item, START + n, *rest) for n, (user, item, _, *rest) in enumerate(tied_log(seed))]
    assert content(tmp_path, rows) == content(tmp_path, shuffled(rows, seed))


def test_the_page_of_the_report_names_keys_that_there_are(prepare, tmp_path):
    page = (Path(__file__).parents[2] / "docs" / "data.md").read_text("utf-8")
    tables = [table.split("\n\n")[0] for table in page.split("| what | key of `counts` |")[1:]]
    keys, besides = (
        re.findall(r"`([\w.]+)`", " ".join(line.split("|")[2] for line in table.splitlines()[2:])) for table in tables
    )
    _, counts = prepare(CLEAN)
    assert len(keys) > 25
    for key in keys:
        place = counts
        for name in key.replace("SPLIT", "test").split("."):
            place = place[name]
    split = prepare_dataset("recbole", at_random(tmp_path / "split"), tmp_path / "a")["counts"]
    ranked = prepare_dataset(
        "instructions", formats.s_dpo(tmp_path / "s"), tmp_path / "b", options={"task": "rank", "candidates": 4}
    )
    assert set(besides) <= {*split, *ranked["counts"]} - counts.keys()


def test_windows_of_odd_times_are_told_without_an_option_that_they_refuse(tmp_path):
    rows = [f'u{n},"[1, 2, {n % 3 + 3}]",{n + 10**9}' for n in range(1, 4)]
    for name in ("train", "test"):
        (tmp_path / f"{name}.csv").write_text("\n".join(["user_id,item_ids,timestamp", *rows, f'v,"[1, 2]",{2**33}']))
    (tmp_path / "titles.json").write_text('{"1": "A", "2": "B", "3": "C", "4": "D", "5": "E"}')
    told = prepare_dataset("windows", tmp_path, tmp_path / "out")["warnings"]
    assert [line for line in told if "future" in line] == ["2 times (25.0%) are in the future, the latest 2242-03-16."]
    with pytest.raises(UserError) as error:
        prepare_dataset(
            "windows", tmp_path, tmp_path / "out", options={"since": "1990-01-01", "ties": "item"}, overwrite=True
        )
    assert error.value.hint == "Leave out --ties, --since."


def test_help_shows_every_option_that_mends(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "160")
    with pytest.raises(SystemExit):
        cli.main(["prepare", "--help"])
    told = capsys.readouterr().out
    for option in ("--duplicates", "--ties", "--same-ids", "--mend-times", "--since", "--until", "--min-rating"):
        assert option in told
