"""Catalogues and logs at the edge, at the command line: what is taken, what is told, what is refused."""

import json

import polars as pl
import pytest

from recalign import cli
from recalign.data.dataset import PreparedDataset

LOG = [(f"u{n // 5}", f"i{n * 7 % 11}", n) for n in range(100)]
IDS = list(dict.fromkeys(item for _, item, _ in LOG))


@pytest.fixture
def prepare(capsys, monkeypatch, tmp_path):
    """`prepare(events, items=None, *arguments)`: exit code, all that was told, and the dataset where there is one."""
    monkeypatch.setenv("COLUMNS", "200")

    def run(events, items=None, *arguments):
        write(tmp_path / "log", events)
        if items is not None:
            write(tmp_path / "items", items)
            arguments = ("-p", f"items={tmp_path / 'items'}.csv", *arguments)
        suffix = "csv" if isinstance(events, pl.DataFrame) else "jsonl"
        out = tmp_path / "out"
        command = ["prepare", "table", f"{tmp_path / 'log'}.{suffix}", "--split", "leave-one-out", "--out", str(out)]
        with pytest.raises(SystemExit) as stop:
            cli.main([*command, "--overwrite", *arguments])
        told = " ".join(" ".join(capsys.readouterr()).split())
        assert "Traceback" not in told
        code = stop.value.code or 0
        return code, told, PreparedDataset(out) if code == 0 else None

    return run


def write(stem, table):
    """A frame as csv; a list of objects as JSON lines."""
    if isinstance(table, pl.DataFrame):
        table.write_csv(f"{stem}.csv")
    else:
        stem.with_suffix(".jsonl").write_text("".join(json.dumps(line) + "\n" for line in table))


def log(rows=tuple(LOG), **columns):
    frame = pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row")
    return frame.with_columns(**{name: pl.col("item_id").replace_strict(of) for name, of in columns.items()})


def items(**columns):
    return pl.DataFrame({"item_id": IDS, "title": [f"T {item}" for item in IDS], **columns})


# ------------------------------------------------------------ genres


@pytest.mark.parametrize("cell", ["['Action', 'RPG']", '["Action", "RPG"]', "Action, RPG", "Action|RPG", "RPG; Action"])
def test_genres_in_text(prepare, cell):
    code, told, dataset = prepare(log(), items(genres=[cell] * 11))
    assert code == 0, told
    assert dataset.catalogue.genre_names == ["Action", "RPG"]
    assert dataset.info["counts"]["genres"] == {"names": 2, "mean": 2.0, "max": 2, "items_without": 0}
    assert "genres an item, mean / max │ 2.0 / 2" in told


def test_the_separator_that_was_found_is_in_the_report(prepare):
    _, told, dataset = prepare(log(), items(genres=["Action, RPG"] * 11))
    assert "genre separator │ ',' (found in the column)" in told
    assert (dataset.info["counts"]["genre_separator"], dataset.info["counts"]["genre_separator_found"]) == (",", True)
    _, told, dataset = prepare(log(), items(genres=["Action, RPG"] * 11), "-p", "genre_separator=;")
    assert "genre separator │ ';' (given)" in told
    assert "1 of 1 genres may hold a separator, such as 'Action, RPG'" in told


def test_a_placeholder_is_no_genre(prepare):
    cells = ["(no genres listed)" if n % 3 == 0 else "Drama" for n in range(11)]
    code, told, dataset = prepare(log(), items(genres=cells))
    assert code == 0, told
    assert dataset.catalogue.genre_names == ["Drama"]
    assert dataset.catalogue.genre_matrix[:, 0].tolist() == [float(n % 3 != 0) for n in range(11)]
    assert "placeholders of genres │ 4" in told and "items without genres │ 4 (36.4%)" in told


def test_genres_that_hardly_any_item_has_are_warned_of(prepare):
    _, told, _ = prepare(log(), items(genres=["unknown"] * 6 + ["Drama"] * 4 + ["drama "]))
    assert "6 of 11 items have no genre" in told
    assert "1 genres differ from another one only by case, blanks or Unicode form" in told
    assert "'drama' for 'Drama'" in told


def test_a_column_of_free_text_is_no_column_of_genres(prepare):
    many = pl.DataFrame(
        {
            "item_id": [f"i{n}" for n in range(60)],
            "title": [f"T{n}" for n in range(60)],
            "genres": [f"g{n}" for n in range(60)],
        }
    )
    _, told, _ = prepare(log(), many)
    assert "60 items have 60 different genres" in told


# ------------------------------------------------------------ items given more than once


def test_equal_rows_of_items_pass_and_are_counted(prepare):
    code, told, dataset = prepare(log(), pl.concat([items(), items()]))
    assert code == 0, told
    assert dataset.info["counts"]["item_rows_repeated"] == 11
    assert "rows that repeat an item │ 11" in told
    assert len(dataset.catalogue) == 11


def test_contradicting_rows_of_items_are_named_or_the_first_one_counts(prepare):
    other = items().with_columns(title=pl.lit("X"))[3:5]
    code, told, _ = prepare(log(), pl.concat([items(), other]))
    assert code == 2
    assert (
        f"The item {IDS[3]!r} is given twice, and its title differs: 'T {IDS[3]}' in item row 4, 'X' in row 12" in told
    )
    assert "2 items are like that" in told and "--drop-invalid" in told
    code, told, dataset = prepare(log(), pl.concat([items(), other]), "--drop-invalid")
    assert (code, dataset.catalogue.titles) == (0, items()["title"].to_list())
    assert "The title differs among the rows of 2 items" in told


def lines(count, extra):
    return [{"user_id": f"u{n // 12}", "item_id": f"i{n * 7 % 11}", "timestamp": n, **extra(n)} for n in range(count)]


def test_headlines_are_no_titles(prepare):
    code, told, dataset = prepare(lines(1200, lambda n: {"title": f"Headline {n}", "text": f"review {n}"}))
    assert code == 0, told
    assert "The title differs among the rows of 11 items (100.0% of all), such as 'i0': 'Headline 0' in row 1" in told
    assert "name the column of the title with -p title=COLUMN" in told
    differing = dataset.info["counts"]["items_differing"]
    assert (differing["title"]["share"], differing["text"]["mentions"]) == (1.0, 1200 - 11)


def test_a_title_that_comes_later_is_the_items(prepare):
    code, told, dataset = prepare(
        lines(300, lambda n: {"title": f"Film {n * 7 % 11}"} if n > 20 else {}), None, "--drop-invalid"
    )
    assert code == 0, told
    assert sorted(dataset.catalogue.titles) == sorted(f"Film {n}" for n in range(11))
    assert dataset.info["counts"]["interactions"] == 300
    assert dataset.info["counts"]["items_differing"] == {}


# ------------------------------------------------------------ titles and ids that look alike


def test_invisible_and_lookalike_titles(prepare):
    titles = {item: item for item in IDS} | {"i3": "\u200b", "i4": "Caf\u00e9", "i5": "Cafe\u0301", "i6": "CAF\u00c9"}
    code, told, _ = prepare(log(title=titles))
    assert code == 2
    assert "(id 'i3'): the title '\\u200b' has no visible character" in told
    code, told, dataset = prepare(log(title=titles), None, "--drop-invalid")
    assert code == 0, told
    catalogue = dataset.catalogue
    assert [catalogue.titles[catalogue.index_of_id[item]] for item in ("i4", "i5", "i6")] == [
        "Caf\u00e9 [i4]",
        "Caf\u00e9 [i5]",
        "CAF\u00c9 [i6]",
    ]
    assert dataset.info["counts"]["collisions"] == 2
    assert "1 titles differ from another one only by case, blanks or Unicode form" in told


def test_ids_that_look_alike(prepare):
    rows = [(user, "I3" if n == 1 and item == "i3" else item, n) for n, (user, item, _) in enumerate(LOG)]
    rows[-1] = ("u19", "I3", 99)
    rows += [("U1", f"i{n}", 100 + n) for n in range(5)]
    _, told, _ = prepare(log(rows))
    assert "2 item ids differ from another one only by case, blanks or Unicode form, such as 'I3' and 'i3'" in told
    assert "2 user ids differ from another one" in told


# ------------------------------------------------------------ repeats and ties


def targets(dataset):
    """The ids of the test targets."""
    return [dataset.catalogue.item_ids[row.targets[0]] for row in dataset.rows("test")]


def test_exact_duplicates_are_told_and_removable(prepare):
    _, _, once = prepare(log())
    expected = targets(once)
    code, told, dataset = prepare(log([row for row in LOG for _ in range(2)]))
    assert code == 0, told
    assert "100 interactions (50.0%) are exact duplicates" in told and "--duplicates drop" in told
    assert "20 test rows (100.0%) have a target that their user had before" in told
    _, told, dataset = prepare(log([row for row in LOG for _ in range(2)]), None, "--duplicates", "drop")
    assert "100 repeated interactions were left out (--duplicates drop)" in told
    assert "had before" not in told
    assert (targets(dataset), dataset.info["counts"]["interactions"]) == (expected, 100)


def test_a_last_item_that_is_repeated_is_told_and_removable(prepare):
    last = [(user, item, time + 1) for user, item, time in LOG if time % 5 == 4]
    _, told, _ = prepare(log([*LOG, *last]))
    assert "20 test rows (100.0%) have a target that their user had before" in told
    assert "other repeats of an item, of those read │ 20 (16.7%)" in told
    _, told, _ = prepare(log([*LOG, *last]), None, "--duplicates", "drop")
    assert "20 test rows (100.0%) have a target that their user had before" in told  # at another time: no duplicate
    for which in ("first", "last"):
        code, told, dataset = prepare(log([*LOG, *last]), None, "--duplicates", which)
        assert (code, "had before" in told, dataset.info["counts"]["interactions"]) == (0, False, 100)


def test_ties_in_time_are_told_with_their_share_and_the_rule(prepare):
    ties = [(f"u{n // 12}", f"i{n * 7 % 50}", n // 4) for n in range(288)]
    found = []
    for rows in (ties, ties[::-1]):
        code, told, dataset = prepare(log(rows))
        assert code == 0, told
        assert "The targets of 24 test rows (100.0%) depend on the order of the rows in the file" in told
        assert "288 (100.0%) have the time of another one of their user" in told
        found.append(targets(dataset))
    assert found[0] != found[1]  # the order of the file is the rule: this is what the warning is for


def test_rows_in_another_order_give_the_same_targets_where_no_times_are_tied(prepare):
    found = [targets(prepare(log(rows))[2]) for rows in (LOG, LOG[::-1])]
    assert found[0] == found[1]
    assert "tie" not in " ".join(prepare(log())[2].info["warnings"])


def test_unknown_ways_with_duplicates_and_ready_windows(prepare, call, tmp_path):
    code, told, _ = prepare(log(), None, "--duplicates", "once")
    assert code == 2 and "duplicates" in told and "'drop'" in told
    folder = tmp_path / "windows"
    folder.mkdir()
    for name in ("train", "test"):
        (folder / f"{name}.csv").write_text('user_id,item_ids,timestamp\nu,"[1, 2]",1\nu,"[1, 2]",2\n')
    (folder / "titles.json").write_text('{"1": "A", "2": "B"}')
    code, told = call("prepare", "windows", folder, "--duplicates", "drop", "--out", tmp_path / "w")
    assert code == 2 and "--duplicates" in told
