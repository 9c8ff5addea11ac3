import pytest

from recalign.preparation import dataset_report as report
from recalign.preparation.pipeline import prepare_dataset
from recalign.preparation.prepare_options import resolve
from tests.preparation.worlds import random_world, write_csv

TABLE = """
user_id,item_id,timestamp,rating,title
a,1,1,5,Sun
a,2,2,5,Moon and Stars
a,3,3,5,Sun
b,2,1,5,
b,1,2,5,
b,9,3,1,New
b,3,4,5,
"""


@pytest.fixture
def counts(tmp_path):
    file = write_csv(tmp_path / "raw.csv", TABLE.replace(",\n", ",x\n"))
    options = {"split": "leave-one-out", "relevance": "rating>=4"}
    return prepare_dataset("table", file, tmp_path / "out", options=options)["counts"]


def test_counts_by_hand(counts):
    told = {name: counts[name] for name in ("users", "items", "interactions", "training_interactions", "collisions")}
    assert told == {"users": 2, "items": 4, "interactions": 7, "training_interactions": 3, "collisions": 1}
    assert counts["density"] == 7 / 8
    assert counts["title_length"] == {"mean": (2 + 3 + 2 + 1) / 4, "max": 3}  # Sun [1], Moon and Stars, Sun [3], New
    assert counts["items_without_training"] == 2


def test_rows_by_hand(counts):
    train, valid, test = (counts["rows"][name] for name in ("train", "valid", "test"))
    assert (train["rows"], valid["rows"], test["rows"]) == (1, 2, 2)
    assert (valid["cold_targets"], test["cold_targets"]) == (1, 2)  # 9 and twice 3
    assert (train["cold_targets"], valid["targets_in_own_training"]) == (0, 0)
    assert (valid["rows_without_relevant_target"], valid["relevant_share"]) == (1, 0.5)
    assert test["history_mean"] == 2.5


def test_suspicious_numbers_are_warned_of(counts):
    counts["rows"]["valid"]["rows_without_relevant_target"] = 2
    found = " ".join(report.warnings(counts, resolve({"relevance": "rating>=4"}, {}), "words"))
    assert "100% of the test targets (2 of 2)" in found
    assert "only 2 rows" in found
    assert "2 of 2 valid rows have no relevant target" in found
    assert "1 items are told apart" in found


def test_an_unsuspicious_dataset_warns_of_nothing(tmp_path):
    file = random_world(tmp_path / "raw", users=150, items=40)
    assert prepare_dataset("table", file, tmp_path / "out", options={"split": "leave-one-out"})["warnings"] == []


def test_a_share_that_whole_folds_miss_is_told(tmp_path):
    file = random_world(tmp_path / "raw", users=150, items=40)
    for share, told in ((0.4, ["--test-share 0.4 is rounded to 2 folds, so that 50.0% of the users test"]), (0.2, [])):
        options = {"split": "user", "test_share": share}
        found = prepare_dataset("table", file, tmp_path / "out", options=options, overwrite=True)["warnings"]
        assert [line.split(";")[0] for line in found if "folds" in line] == told


def test_titles_are_measured_by_a_tokenizer_where_one_is_named(tmp_path):
    from recalign.errors import UserError
    from recalign.models.tokenizers import train_tokenizer

    train_tokenizer(["Sun Moon"], "bpe").save_pretrained(tmp_path / "tokenizer")
    file = random_world(tmp_path / "raw")
    told = prepare_dataset("table", file, tmp_path / "out", tokenizer=str(tmp_path / "tokenizer"))
    assert told["counts"]["title_length"]["max"] >= 2  # an id such as i17 is one word
    with pytest.raises(UserError, match="nowhere"):
        prepare_dataset("table", file, tmp_path / "other", tokenizer=str(tmp_path / "nowhere"))
