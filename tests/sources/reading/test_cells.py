"""Ids, numbers and times of cells; what has no such meaning is refused and counted."""

from datetime import datetime

import polars as pl
import pytest

from recalign.errors import UserError
from recalign.sources.reading import Column, files, open_table, typed

from .tables import first_refusal, read, write


def columns():
    return {"user_id": Column("user", "id"), "timestamp": Column("time", "time"), "rating": Column("stars", "number")}


def test_ids_stay_strings_and_numbers_may_be_missing(tmp_path):
    frame, account = read(write(tmp_path, "user,time,stars\n007,10,4.5\nb,11.5,\n"), columns())
    assert frame.rows() == [("007", 10.0, 4.5), ("b", 11.5, None)]
    assert (account.read, account.records, account.refused) == (2, 2, {})


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("c,soon,3", "row 3: time = 'soon' is not a time"),
        ("c,inf,3", "row 3: time = 'inf' is not a time"),
        ("c,,3", "row 3: time = None is not a time"),
        ("c,5,good", "row 3: stars = 'good' is not a number"),
        ("c,5,-inf", "row 3: stars = '-inf' is not a number"),
        (",5,3", "row 3: user = None is not an id"),
        ('"  ",5,3', "row 3: user = '  ' is not an id"),
        ("c,5,3,surplus", "row 3: 4 fields, but the header has 3"),
        ("c,5", "row 3: 2 fields, but the header has 3"),
        ("c", "row 3: 1 field, but the header has 3"),
    ],
)
def test_unparseable_rows_are_named_and_counted(tmp_path, row, said):
    file = write(tmp_path, f"user,time,stars\na,1,1\nb,2,2\n{row}\nd,oops,\n")
    frame, account = read(file, columns())
    assert first_refusal(account).startswith(said)
    assert (account.read, account.records, frame["user_id"].to_list()) == (2, 4, ["a", "b"])
    assert sum(refused.count for refused in account.refused.values()) == 2


def test_a_row_with_two_bad_cells_is_refused_once(tmp_path):
    _, account = read(write(tmp_path, "user,time,stars\na,1,1\nb,x,y\nc,z,1\n"), columns())
    assert {reason: refused.count for reason, refused in account.refused.items()} == {"time is not a time": 2}


def test_the_first_three_of_a_reason_are_named_whatever_batch_they_are_in(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "BLOCK", 16)
    _, account = read(write(tmp_path, "user,time,stars\n" + "".join(f"u{n},x{n},1\n" for n in range(9))), columns())
    (refused,) = account.refused.values()
    assert (refused.count, [each.split(" = ")[1][:4] for each in refused.first]) == (9, ["'x0'", "'x1'", "'x2'"])
    assert [each.split(":")[0] for each in refused.first] == ["row 1", "row 2", "row 3"]


@pytest.mark.parametrize("spelling", ["", "NaN", "nan", "NA", "N/A", "null", "NULL", "None", " nan ", "<NA>"])
def test_spellings_of_missing_numbers(tmp_path, spelling):
    frame, account = read(write(tmp_path, f"user,time,stars\na,1,{spelling}\nb,2, 3 \n"), columns())
    assert frame["rating"].to_list() == [None, 3.0]
    assert account.refused == {}


def test_nan_of_typed_files_is_missing_too(tmp_path):
    pl.DataFrame({"user": ["a"], "time": [1], "stars": [float("nan")]}).write_parquet(tmp_path / "x.parquet")
    assert read(tmp_path / "x.parquet", columns())[0]["rating"].to_list() == [None]


def test_dates_and_date_times_become_seconds(tmp_path):
    frame, _ = read(write(tmp_path, "user,time,stars\na,1970-01-02,\nb,1970-01-01,\n"), columns())
    assert frame["timestamp"].to_list() == [86_400.0, 0.0]
    times = ["1970-01-01T00:01:00", "1970-01-01 00:01:00.5", "1970-01-01T00:02Z", "1970-01-02 00:00:01+00:00"]
    frame, _ = read(write(tmp_path, "user,time,stars\n" + "".join(f"a,{time},\n" for time in times)), columns())
    assert frame["timestamp"].to_list() == [60.0, 60.5, 120.0, 86_401.0]
    _, account = read(write(tmp_path, "user,time,stars\na,1970-01-02,\nb,later,\n"), columns())
    assert first_refusal(account).startswith("row 2: time = 'later' is not a time")


@pytest.mark.parametrize("size", [20, 1 << 20])
def test_the_form_of_times_is_that_of_the_first_one_that_can_be_read(tmp_path, monkeypatch, size):
    """Numbers and dates have no common clock: seconds, milliseconds or a year could be meant."""
    monkeypatch.setattr(files, "BLOCK", size)
    dated, account = read(write(tmp_path, "user,time,stars\na,,\nb,1970-01-02,\nc,2015,\nd,1970-01-01,\n"), columns())
    assert dated.rows() == [("b", 86_400.0, None), ("d", 0.0, None)]
    assert (
        "row 3: time = '2015' is not a time of the kind that the column begins with, a date"
        in (account.refused["time is not a time"].first[1])
    )
    numbers, account = read(write(tmp_path, "user,time,stars\na,7,\nb,1970-01-02,\nc,8,\n"), columns())
    assert (numbers["timestamp"].to_list(), account.records) == ([7.0, 8.0], 3)
    assert "the column begins with, a number" in first_refusal(account)


def test_parquet_and_jsonl_are_read_by_their_types(tmp_path):
    frame = pl.DataFrame({"user": [1, 2], "time": [datetime(1970, 1, 2), datetime(1970, 1, 1)], "stars": [3, None]})
    frame.write_parquet(tmp_path / "x.parquet")
    assert read(tmp_path / "x.parquet", columns())[0].rows() == [("1", 86_400.0, 3.0), ("2", 0.0, None)]
    file = write(tmp_path, '{"user": "a", "time": 5, "stars": 1}\n{"user": "b", "time": 6, "stars": null}\n', "x.jsonl")
    assert read(file, columns())[0].rows() == [("a", 5.0, 1.0), ("b", 6.0, None)]


def test_the_order_of_records_may_be_the_time(tmp_path):
    order = {"user_id": Column("user", "id"), "timestamp": Column("row", "order")}
    frame, _ = read(write(tmp_path, "user\na\nb\n\nc\n"), order)
    assert frame.rows() == [("a", 0.0), ("b", 1.0), ("c", 2.0)]


def test_columns_of_lists_are_no_ids(tmp_path):
    pl.DataFrame({"user": [["a"]], "time": [1], "stars": [1]}).write_parquet(tmp_path / "x.parquet")
    with pytest.raises(UserError, match="the column 'user' holds List"):
        read(tmp_path / "x.parquet", columns())


def test_rows_of_a_table_are_those_that_were_read(tmp_path):
    file = write(tmp_path, "user,time,stars,title\na,1,1,A\nb,x,1,B\nc,1\nd,2,2,D\n")
    assert typed(open_table(file), columns()).rows.select("title").collect()["title"].to_list() == ["A", "D"]


@pytest.mark.parametrize(("unit", "factor"), [("s", 1), ("ms", 10**3), ("us", 10**6), ("ns", 10**9)])
def test_times_are_seconds_whatever_they_are_counted_in(tmp_path, unit, factor):
    file = tmp_path / "x.csv"
    file.write_text("t\n" + "".join(f"{(1_300_000_000 + n) * factor}\n" for n in range(5)) + "0\n")
    read = typed(open_table(file), {"t": Column("t", "time")})
    assert read.frame.collect()["t"].to_list() == [*(1_300_000_000.0 + n for n in range(5)), 0.0]


@pytest.mark.parametrize(
    "text",
    [
        "2011-03-13T07:06:40Z",
        "2011-03-13T08:06:40+01:00",
        "2011-03-13 08:06:40+0100",
        "2011-03-13T07:06:40.000000+00:00",
        "2011-03-13 07:06:40 UTC",
        "Sun Mar 13 00:06:40 -0700 2011",
        "2011/03/13 07:06:40",
    ],
)
def test_date_times_with_offsets(tmp_path, text):
    file = tmp_path / "x.csv"
    file.write_text(f"t\n{text}\n{text}\n")
    assert typed(open_table(file), {"t": Column("t", "time")}).frame.collect()["t"].to_list() == [1_300_000_000.0] * 2


def test_forms_of_dates_may_differ_within_a_column(tmp_path):
    file = tmp_path / "x.tsv"
    file.write_text("t\n2011-03-13\n2011-03-13T00:00:00Z\n03 13, 2011\nMarch 13, 2011\n13-Mar-2011\n")
    read = typed(open_table(file), {"t": Column("t", "time")})
    assert read.frame.collect()["t"].to_list() == [1_299_974_400.0] * 5
