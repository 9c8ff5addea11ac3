import polars as pl
import pytest

from recalign.errors import UserError
from recalign.plugins import registry

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
    assert [item["title"] for item in items] == ["3", "7"]
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


# ------------------------------------------------------------ files that lost rows or could not be read

HEAD = "user_id,item_id,timestamp"
BASE = [(f"u{n // 5}", f"i{n * 7 % 11}", n) for n in range(100)]


def table(folder, header, extra, name="x.csv"):
    (folder / name).write_text("\n".join([header, *(f"{u},{i},{t},{extra(t)}" for u, i, t in BASE)]) + "\n")
    return folder / name


def counts(file, **params):
    raw = registry.create("source", "table", params).read(file, 0)
    events = raw.events.collect()
    (account,) = raw.accounts
    return events.height, events["user_id"].n_unique(), account.records


@pytest.mark.parametrize(
    "note",
    [
        lambda n: 'fits my 7" tablet' if n in (20, 80) else "ok",
        lambda n: 'fits my 7" tablet' if n == 20 else "ok",
        lambda n: '"a \\" b"' if n % 9 == 0 else "ok",
        lambda n: '"said ""hi"", twice"' if n % 2 else "it's 3' 5\"",
    ],
)
def test_quotes_in_a_column_that_is_not_asked_for_hide_no_row(tmp_path, note):
    assert counts(table(tmp_path, HEAD + ",note", note)) == (100, 20, 100)


def test_a_lone_quote_hides_no_item(tmp_path):
    (tmp_path / "i.csv").write_text("item_id,title,size\n" + "".join(f'{n},T{n},{n % 2 and 7}"\n' for n in range(9)))
    (tmp_path / "e.csv").write_text("user_id,item_id,timestamp\na,1,1\n")
    assert len(read(tmp_path / "e.csv", items=str(tmp_path / "i.csv"))[0]) == 9


def test_a_column_named_rating_can_be_ignored(tmp_path):
    file = table(tmp_path, HEAD + ",rating", lambda n: "good" if n % 2 else "bad")
    raw = registry.create("source", "table").read(file, 0)
    refused = raw.accounts[0].refused["rating is not a number"]
    assert (refused.count, "-p rating=none" in refused.hint) == (100, True)
    assert counts(file, rating="none") == (100, 20, 100)
    assert "rating" not in registry.create("source", "table", {"rating": "none"}).read(file, 0).events.collect_schema()


def test_missing_ratings_have_many_spellings(tmp_path):
    file = table(tmp_path, HEAD + ",rating", lambda n: "NaN" if n % 7 == 0 else 4)
    events = registry.create("source", "table").read(file, 0).events.collect()
    assert (events.height, events["rating"].null_count()) == (100, 15)


def test_a_file_without_a_header_can_be_given_column_names(tmp_path):
    (tmp_path / "x.dat").write_text("".join(f"{n // 5}\t{n * 7 % 11}\t{1 + n % 5}\t{n}\n" for n in range(100)))
    (tmp_path / "i.dat").write_text("".join(f"{n}\tFilm {n}\n" for n in range(11)))
    params = {"separator": "\t", "columns": "user_id,item_id,rating,timestamp"}
    assert counts(tmp_path / "x.dat", **params) == (100, 20, 100)
    both = {**params, "items": str(tmp_path / "i.dat"), "item_columns": "item_id,title"}
    assert read(tmp_path / "x.dat", **both)[0][10]["title"] == "Film 10"


def test_keys_and_types_of_json_lines_are_those_of_the_whole_file(tmp_path):
    import json

    def lines(extra):
        rows = [{"user_id": f"u{n // 12}", "item_id": f"i{n % 11}", "timestamp": n, **extra(n)} for n in range(1200)]
        return "".join(json.dumps(row) + "\n" for row in rows)

    (tmp_path / "x.jsonl").write_text(lines(lambda n: {"rating": 5} if n >= 1000 else {}))
    assert registry.create("source", "table").read(tmp_path / "x.jsonl", 0).events.collect()["rating"].sum() == 1000
    late = lines(lambda n: {"rating": 4 if n < 1000 else 4.5})
    for text in (late.encode(), b"\xef\xbb\xbf" + late.encode(), late.encode("utf-16")):
        (tmp_path / "x.jsonl").write_bytes(text)
        ratings = registry.create("source", "table").read(tmp_path / "x.jsonl", 0).events.collect()["rating"]
        assert (ratings.sum(), ratings.null_count()) == (4000 + 900, 0)


def test_refused_rows_are_neither_events_nor_items(tmp_path):
    (tmp_path / "x.csv").write_text("user_id,item_id,timestamp,title\na,1,1,A\na,2,soon,B\na,3,3\na,4,4,D\n")
    items, events = read(tmp_path / "x.csv")
    assert [item["title"] for item in items] == ["A", "D"]
    assert [event["item_id"] for event in events] == ["1", "4"]
