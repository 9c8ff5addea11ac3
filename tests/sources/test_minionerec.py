import json

import pytest

from recalign.data.dataset import PreparedDataset
from recalign.errors import UserError
from recalign.preparation.guessing import guess
from recalign.preparation.pipeline import prepare_dataset

from . import formats


def test_histories_targets_titles_and_descriptions(tmp_path):
    path = formats.minionerec(tmp_path / "raw")
    assert guess(path)[0] == "minionerec"
    prepare_dataset("minionerec", path, tmp_path / "out")
    dataset = PreparedDataset(tmp_path / "out")
    for split in ("train", "valid", "test"):
        told = [
            ([dataset.catalogue.titles[i] for i in row.history], dataset.catalogue.titles[row.targets[0]])
            for row in dataset.rows(split)
        ]
        assert told == formats.rows_of_titles(split)
    assert dataset.catalogue.texts[3] == "About 3."


def test_its_identifiers_are_brought_along_if_asked(tmp_path):
    path = formats.minionerec(tmp_path / "raw")
    prepare_dataset("minionerec", path, tmp_path / "out", params={"identifiers": "true"})
    dataset = PreparedDataset(tmp_path / "out")
    codes = [code.tolist() for code in dataset.catalogue.codes]
    assert codes[2:4] == [[2, 1, 7], [3, 1, 7]]
    assert sorted(code[:3] for code in codes[:2]) == [[1, 0, 7], [1, 0, 7]]
    assert {code[3] for code in codes[:2]} == {0, 1}  # what the two share, one more token tells apart


def test_an_item_without_an_identifier(tmp_path):
    path = formats.minionerec(tmp_path / "raw")
    (index,) = (path / "index").glob("*.index.json")
    index.write_text(json.dumps({"0": ["<a_1>", "<b_0>"]}))
    with pytest.raises(UserError, match="no identifier of 9 items, such as '1'"):
        prepare_dataset("minionerec", path, tmp_path / "out", params={"identifiers": "true"})
    assert not (tmp_path / "out").exists()


def test_several_categories_have_to_be_told_apart(tmp_path):
    path = formats.minionerec(tmp_path)
    (path / "train" / "Office_Products_5.csv").write_text("x\n")
    with pytest.raises(UserError, match="must hold one train/.*Office_Products_5.csv") as error:
        prepare_dataset("minionerec", path, tmp_path / "out")
    assert "-p category=NAME" in error.value.hint
