import polars as pl
import pytest

from recalign.errors import UserError
from recalign.sources.reading import existing, require, scan, typed

COLUMNS = {"user_id": ("user", "id"), "timestamp": ("time", "time"), "rating": ("stars", "number")}


def write(tmp_path, text, name="x.csv"):
    file = tmp_path / name
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return file


def read(file, **options):
    return typed(scan(file, **options), file, COLUMNS, **options).collect()


def test_ids_stay_strings_and_numbers_may_be_missing(tmp_path):
    frame = read(write(tmp_path, "user,time,stars\n007,10,4.5\nb,11.5,\n"))
    assert frame.rows() == [("007", 10.0, 4.5), ("b", 11.5, None)]


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("c,soon,3", "row 3: time = 'soon' is not a time"),
        ("c,inf,3", "row 3: time = 'inf' is not a time"),
        ("c,,3", "row 3: time = None is not a time"),
        ("c,5,good", "row 3: stars = 'good' is not a number"),
        ("c,5,nan", "row 3: stars = 'nan' is not a number"),
        (",5,3", "row 3: user = None is not an id"),
        ('"  ",5,3', "row 3: user = '  ' is not an id"),
        ("c,5,3,surplus", "row 3: 4 fields, but the header has 3"),
    ],
)
def test_unparseable_rows_are_named(tmp_path, row, said):
    file = write(tmp_path, f"user,time,stars\na,1,1\nb,2,2\n{row}\nd,oops,\n")
    with pytest.raises(UserError) as error:
        read(file)
    assert said in error.value.what and str(file) in error.value.what


def test_dates_and_date_times_become_seconds(tmp_path):
    frame = read(write(tmp_path, "user,time,stars\na,1970-01-02,\nb,1970-01-01,\n"))
    assert frame["timestamp"].to_list() == [86_400.0, 0.0]
    times = ["1970-01-01T00:01:00", "1970-01-01 00:01:00.5", "1970-01-01T00:02Z", "1970-01-02 00:00:01+00:00"]
    frame = read(write(tmp_path, "user,time,stars\n" + "".join(f"a,{time},\n" for time in times)))
    assert frame["timestamp"].to_list() == [60.0, 60.5, 120.0, 86_401.0]
    with pytest.raises(UserError, match="row 2: time = 'later'"):
        read(write(tmp_path, "user,time,stars\na,1970-01-02,\nb,later,\n"))


def test_parquet_and_jsonl_are_read_by_their_types(tmp_path):
    from datetime import datetime

    frame = pl.DataFrame({"user": [1, 2], "time": [datetime(1970, 1, 2), datetime(1970, 1, 1)], "stars": [3, None]})
    frame.write_parquet(tmp_path / "x.parquet")
    assert read(tmp_path / "x.parquet").rows() == [("1", 86_400.0, 3.0), ("2", 0.0, None)]
    file = write(tmp_path, '{"user": "a", "time": 5, "stars": 1}\n{"user": "b", "time": 6, "stars": null}\n', "x.jsonl")
    assert read(file).rows() == [("a", 5.0, 1.0), ("b", 6.0, None)]


@pytest.mark.parametrize(
    ("text", "name", "said"),
    [
        (b"user,time,stars\na,1,1\n\xff\xfe,2,2\n", "x.csv", "line 3: not UTF-8"),
        ('{"user": "a", "time": 5, "stars": 1}\n{"user": \n', "x.jsonl", "line 2: not JSON"),
        ("", "x.csv", "x.csv is empty"),
        ("PAR0", "x.parquet", "cannot be read"),
        ("a,b", "x.xlsx", "unknown suffix '.xlsx'"),
    ],
)
def test_unreadable_files_say_where(tmp_path, text, name, said):
    with pytest.raises(UserError) as error:
        read(write(tmp_path, text, name))
    assert said in error.value.what


def test_missing_columns_come_with_a_suggestion(tmp_path):
    file = write(tmp_path, "user_id,item,ts\na,b,1\n")
    with pytest.raises(UserError) as error:
        require(scan(file), file, {"timestamp": "tsp"})
    assert "no column 'tsp'" in error.value.what
    assert "'ts'" in error.value.hint and "-p timestamp=COLUMN" in error.value.hint


def test_a_missing_file_and_a_folder_are_named(tmp_path):
    write(tmp_path, "x", "events.csv")
    with pytest.raises(UserError) as error:
        scan(tmp_path / "event.csv")
    assert "event.csv does not exist" in error.value.what and "events.csv" in error.value.hint
    with pytest.raises(UserError, match="is a folder"):
        scan(tmp_path)


def test_a_missing_path_suggests_names_beside_it_and_no_others(tmp_path):
    (tmp_path / "runs").mkdir()
    with pytest.raises(UserError) as error:
        existing(tmp_path / "ml-100k")
    assert error.value.hint == "Check the path."
    (tmp_path / "ml-1m").mkdir()
    with pytest.raises(UserError) as error:
        existing(tmp_path / "ml-100k")
    assert error.value.hint == "Did you mean 'ml-1m'?"


def test_quotes_are_plain_text_without_a_quoting_character(tmp_path):
    file = write(tmp_path, 'user\ttime\tstars\n"a\t1\t2\n', "x.inter")
    assert read(file, separator="\t", quote=None).rows() == [('"a', 1.0, 2.0)]
