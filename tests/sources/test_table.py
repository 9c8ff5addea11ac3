import polars as pl
import pytest

from recalign import registry
from recalign.errors import UserError

from .reads import items_of

EVENTS = pl.DataFrame(
    {"user_id": ["a", "b"], "item_id": ["1", "2"], "timestamp": [5, 6], "title": ["X", "Y"], "genres": ["g| h", ""]}
)


def read(path, **params):
    raw = registry.create("source", "table", params).read(path, 0)
    return items_of(raw), raw.events.collect().to_dicts()


@pytest.mark.parametrize("suffix", ["csv", "tsv", "parquet", "jsonl"])
def test_every_format_reads_alike(tmp_path, suffix):
    file = tmp_path / f"x.{suffix}"
    writers = {
        "csv": lambda: EVENTS.write_csv(file),
        "tsv": lambda: EVENTS.write_csv(file, separator="\t"),
        "parquet": lambda: EVENTS.write_parquet(file),
        "jsonl": lambda: EVENTS.write_ndjson(file),
    }
    writers[suffix]()
    items, events = read(file)
    assert items[0] == {"item_id": "1", "title": "X", "genres": ["g", "h"], "text": "", "suffix": None}
    assert items[1]["genres"] == []
    assert events == [
        {"user_id": "a", "item_id": "1", "timestamp": 5.0},
        {"user_id": "b", "item_id": "2", "timestamp": 6.0},
    ]


def test_columns_are_named_by_parameters_and_items_may_have_their_own_table(tmp_path):
    (tmp_path / "e.csv").write_text("who;what;when;stars\na;1;5;4\n")
    (tmp_path / "i.csv").write_text("what;name;kind;about;born\n1;X;g,h;words;1999\n2;Z;;;\n")
    items, events = read(
        tmp_path / "e.csv",
        user="who",
        item="what",
        timestamp="when",
        rating="stars",
        separator=";",
        items=str(tmp_path / "i.csv"),
        title="name",
        genres="kind",
        genre_separator=",",
        text="about",
        suffix="born",
    )
    assert events == [{"user_id": "a", "item_id": "1", "timestamp": 5.0, "rating": 4.0}]
    assert items[0] == {"item_id": "1", "title": "X", "genres": ["g", "h"], "text": "words", "suffix": "1999"}
    assert items[1]["title"] == "Z"


def test_list_genres_of_parquet_are_taken_as_they_are(tmp_path):
    EVENTS.with_columns(genres=pl.Series([["g", "h"], None])).write_parquet(tmp_path / "x.parquet")
    assert [item["genres"] for item in read(tmp_path / "x.parquet")[0]] == [["g", "h"], []]


def test_without_titles_ids_are_titles_and_without_times_the_order_of_rows_is(tmp_path):
    (tmp_path / "x.csv").write_text("user_id,item_id\na,7\na,3\na,7\n")
    items, events = read(tmp_path / "x.csv", timestamp="row")
    assert [item["title"] for item in items] == ["7", "3"]
    assert [event["timestamp"] for event in events] == [0.0, 1.0, 2.0]


def test_missing_columns_and_unknown_parameters_come_with_a_suggestion(tmp_path):
    (tmp_path / "x.csv").write_text("userid,item_id,timestamp\na,7,1\n")
    with pytest.raises(UserError) as error:
        read(tmp_path / "x.csv")
    assert "no column 'user_id'" in error.value.what and "'userid'" in error.value.hint
    with pytest.raises(UserError, match="no parameter 'usr'"):
        read(tmp_path / "x.csv", usr="userid")
    with pytest.raises(UserError, match="no column 'stars'"):
        read(tmp_path / "x.csv", user="userid", rating="stars")
