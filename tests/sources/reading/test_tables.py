"""Opening tables by their suffix, and columns that must exist."""

import polars as pl
import pytest

from recalign.errors import UserError
from recalign.sources.reading import existing, open_table, require, tables

from .tables import records, write


@pytest.mark.parametrize(
    ("text", "name", "said"),
    [
        ("PAR0", "x.parquet", "cannot be read"),
        ("a,b", "x.xlsx", "unknown suffix '.xlsx'"),
        ("", "x.csv", "x.csv is empty"),
    ],
)
def test_unreadable_files_say_where(tmp_path, text, name, said):
    with pytest.raises(UserError) as error:
        open_table(write(tmp_path, text, name))
    assert said in error.value.what


def test_missing_columns_come_with_a_suggestion(tmp_path):
    table = open_table(write(tmp_path, "user_id,item,ts\na,b,1\n"))
    with pytest.raises(UserError) as error:
        require(table, {"timestamp": "tsp"})
    assert "no column 'tsp'" in error.value.what
    assert "'ts'" in error.value.hint and "-p timestamp=COLUMN" in error.value.hint


def test_a_missing_file_and_a_folder_are_named(tmp_path):
    write(tmp_path, "x", "events.csv")
    with pytest.raises(UserError) as error:
        open_table(tmp_path / "event.csv")
    assert "event.csv does not exist" in error.value.what and "events.csv" in error.value.hint
    with pytest.raises(UserError, match="is a folder"):
        open_table(tmp_path)


def test_a_missing_path_suggests_names_beside_it_and_no_others(tmp_path):
    (tmp_path / "runs").mkdir()
    with pytest.raises(UserError) as error:
        existing(tmp_path / "ml-100k")
    assert error.value.hint == "Check the path."
    (tmp_path / "ml-1m").mkdir()
    with pytest.raises(UserError) as error:
        existing(tmp_path / "ml-100k")
    assert error.value.hint == "Did you mean 'ml-1m'?"


def test_parquet_comes_in_batches(tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "ROWS", 2)
    pl.DataFrame({"a": range(5)}).write_parquet(tmp_path / "x.parquet")
    assert records(open_table(tmp_path / "x.parquet")) == ([(n,) for n in range(5)], [1, 2, 3, 4, 5], {})


@pytest.mark.parametrize("engine", ["in-memory", "streaming"])
def test_a_lazy_frame_streams_without_the_records_that_were_refused(tmp_path, engine):
    import numpy as np

    table = open_table(write(tmp_path, "a,b\n1,x\n2,y\n3\n4,z\n"))
    frame = table.lazy(np.array([2]))
    assert frame.collect(engine=engine).rows() == [("1", "x"), ("4", "z")]
    assert frame.filter(pl.col("b") == "z").select("a").collect(engine=engine).rows() == [("4",)]
    assert frame.head(1).collect(engine=engine).rows() == [("1", "x")]
    assert frame.select(pl.len()).collect(engine=engine).item() == 2
