import json
from collections import Counter

import pytest

from recalign.data.dataset import PreparedDataset
from recalign.errors import UserError
from recalign.plugins import registry
from recalign.preparation.guessing import guess
from recalign.preparation.pipeline import prepare_dataset

from . import formats
from .reads import items_of


def windows_of(path, **params):
    """Titles of each window by split, and what the source read."""
    raw = registry.create("source", "instructions", params).read(path, 0)
    titles = {item["item_id"]: item["title"] for item in items_of(raw)}
    told = {
        split: [[titles[i] for i in row["item_ids"]] for row in frame.collect().to_dicts()]
        for split, frame in raw.windows.items()
    }
    return told, raw


WANTED = {
    split: [[*history, target] for history, target in formats.rows_of_titles(split)]
    for split in ("train", "valid", "test")
}


@pytest.mark.parametrize("quoted", [True, False])
def test_quoted_titles_of_prose_are_found_whole(tmp_path, quoted):
    told, raw = windows_of(formats.instructions(tmp_path, quoted=quoted))
    assert told == WANTED
    assert raw.items.collect()["genres"].to_list() == [["pop"]] * 10


def test_lists_of_titles_with_colons_between(tmp_path):
    told, _ = windows_of(formats.s_dpo(tmp_path))
    assert told == WANTED


def test_lists_of_candidates_are_what_rows_rank_and_those_that_do_not_fit_are_counted(call, tmp_path):
    path = formats.s_dpo(tmp_path / "raw")
    rows = json.loads((path / "lastfm-train.json").read_text())
    rows[0]["itemList"] = "::".join(rows[0]["itemList"])  # text as the history is
    rows[1]["itemList"][0] = "a title that nobody knows"
    rows[2]["itemList"].remove(rows[2]["trueSelection"])
    rows[3]["itemList"][1] = rows[3]["itemList"][0]
    rows[4]["itemList"] = rows[4]["itemList"][1:]
    rows[5]["itemList"] = None
    (path / "lastfm-train.json").write_text(json.dumps(rows))
    code, told = call("prepare", "instructions", path, "--task", "rank", "--candidates", 4, "--out", tmp_path / "out")
    assert (code, "5 windows were left out, whose candidate set" in " ".join(told.split())) == (0, True), told
    dataset = PreparedDataset(tmp_path / "out")
    assert [len(dataset.rows(split)) for split in ("train", "valid", "test")] == [5, 10, 10]
    for split in ("train", "valid", "test"):
        for row in dataset.rows(split):
            titles = {dataset.catalogue.titles[item] for item in row.candidates}
            assert titles == {*formats.candidates_of(dataset.catalogue.titles[row.targets[0]])}
    code, told = call("prepare", "instructions", path, "--out", tmp_path / "next")
    assert (code, len(PreparedDataset(tmp_path / "next").rows("train"))) == (0, 10), told
    assert "candidate sets for 25 windows" in " ".join(told.split())


def test_lists_of_candidates_that_fit_nowhere_can_be_left_out(call, tmp_path):
    path = formats.s_dpo(tmp_path / "raw")
    for file in path.glob("*.json"):
        rows = [{**row, "itemList": ["?", row["trueSelection"]]} for row in json.loads(file.read_text())]
        file.write_text(json.dumps(rows))
    options = ("--task", "rank", "--candidates", 5, "--out", tmp_path / "out")
    code, told = call("prepare", "instructions", path, *options)
    assert (code, "None of the 30 windows" in told, "candidates=false" in told) == (2, True, True), told
    code, told = call("prepare", "instructions", path, *options, "-p", "candidates=false")
    assert (code, len(PreparedDataset(tmp_path / "out").rows("test")[0].candidates)) == (0, 5), told


def test_without_a_catalogue_the_titles_that_occur_are_it(tmp_path):
    path = formats.instructions(tmp_path)
    (tmp_path / "id2name.json").unlink()
    for split in ("train", "valid", "test"):
        plain = (path / f"{split}.json").read_text().replace('The \\"Best\\", of', "The Best of")
        (path / f"{split}.json").write_text(plain)
    told, _ = windows_of(path)
    assert told == json.loads(json.dumps(WANTED).replace('The \\"Best\\", of', "The Best of"))


def test_one_file_tests_and_validates_with_its_last_rows(tmp_path):
    formats.instructions(tmp_path / "raw")
    prepare_dataset("instructions", tmp_path / "raw" / "train.json", tmp_path / "out")
    dataset = PreparedDataset(tmp_path / "out")
    told = [
        [dataset.catalogue.titles[i] for i in [*row.history, *row.targets]]
        for split in ("train", "valid", "test")
        for row in dataset.rows(split)
    ]
    assert told == WANTED["train"]
    assert [len(dataset.rows(split)) for split in ("train", "valid", "test")] == [8, 1, 1]


def test_titles_that_the_catalogue_lacks_are_counted_and_shown(tmp_path, capsys):
    path = formats.instructions(tmp_path / "raw")
    catalogue = json.loads((path / "id2name.json").read_text())
    number = next(key for key, title in catalogue.items() if title == "Song 6")
    del catalogue[number]
    (path / "id2name.json").write_text(json.dumps(catalogue))
    counts = prepare_dataset("instructions", path, tmp_path / "out")["counts"]
    lost = sum("Song 6" in window for window in WANTED["train"])
    refused = counts["files"][0]["refused"]["a title that the catalogue lacks"]
    assert (refused["count"], refused["first"][0]) == (lost, "record 7: 'Song 6'")
    assert f"{lost} of 10 records of train.json were left out" in " ".join(capsys.readouterr().err.split())


def test_what_is_no_instruction_data(tmp_path):
    file = formats.pack(tmp_path / "train.json", '[{"prompt": "x"}]')
    with pytest.raises(UserError, match="none of the keys input, output"):
        windows_of(file)
    with pytest.raises(UserError, match="must hold a train.*input and output, or historyList and trueSelection"):
        windows_of(tmp_path)


@pytest.mark.parametrize("write", [formats.instructions, formats.s_dpo])
def test_it_is_recognised(tmp_path, write):
    assert guess(write(tmp_path))[0] == "instructions"


def test_goodreads_of_sprec_matches_all_titles_but_one(shared_data):
    told, raw = windows_of(shared_data("goodreads"))
    (account,) = raw.accounts
    assert (account.records, account.read) == (5000, 4990)
    assert {said.partition(": ")[2] for said in account.refused["a title that the catalogue lacks"].first} == {"'It'"}
    assert Counter(len(window) for part in told.values() for window in part) == {11: 4989, 6: 1}  # one row has five
