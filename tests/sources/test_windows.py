import pytest

from recalign.data.dataset import PreparedDataset
from recalign.errors import UserError
from recalign.plugins import registry
from recalign.preparation.pipeline import prepare_dataset

FILES = {
    "train.csv": 'user_id,item_ids,timestamp\n7,"[1, 2, 3]",10\n8,"[3,2]",20\n9,"[1, 3]",25\n7,"[2, 3, 4]",30\n',
    "test.csv": "user_id,item_ids,timestamp\n7,\"['3', '1']\",40\n",
    "titles.json": '{"1": "A &amp; B", "2": "C", "3": "D", "4": "E"}',
}


def write(tmp_path, **changes):
    for name, text in {**FILES, **{key.replace("_", "."): value for key, value in changes.items()}}.items():
        if text is not None:
            (tmp_path / name).write_text(text)
    return tmp_path


def read(path, **params):
    raw = registry.create("source", "windows", params).read(path, 0)
    return raw.items.collect(), {name: frame.collect().to_dicts() for name, frame in raw.windows.items()}


def test_list_literals_are_split_and_ids_stay_strings(tmp_path):
    items, windows = read(write(tmp_path))
    assert items["title"].to_list() == ["A &amp; B", "C", "D", "E"]
    assert list(windows) == ["train", "test"]
    assert windows["train"][0] == {"user_id": "7", "timestamp": 10.0, "item_ids": ["1", "2", "3"]}
    assert windows["test"][0]["item_ids"] == ["3", "1"]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_byte_order_marks_are_no_part_of_columns_and_titles(tmp_path, encoding):
    for name, text in FILES.items():
        (tmp_path / name).write_text(text, encoding=encoding)
    items, windows = read(tmp_path)
    assert items["title"].to_list()[1] == "C" and len(windows["train"]) == 4


def test_prepared_windows_keep_the_last_item_as_the_target(tmp_path):
    raw = tmp_path / "raw"
    raw.mkdir()
    prepare_dataset("windows", write(raw), tmp_path / "out", options={"valid_share": 0.3})
    dataset = PreparedDataset(tmp_path / "out")
    told = {
        name: [(r.user_id, r.history.tolist(), r.targets.tolist()) for r in dataset.rows(name)]
        for name in ("train", "valid", "test")
    }
    assert told == {
        "train": [("7", [0, 1], [2]), ("8", [2], [1]), ("9", [0], [2])],
        "valid": [("7", [1, 2], [3])],
        "test": [("7", [2], [0])],
    }
    assert dataset.catalogue.titles[0] == "A & B"
    assert dataset.catalogue.popularity.tolist() == [2, 2, 3, 0]


def test_a_valid_file_is_used_where_there_is_one(tmp_path):
    _, windows = read(write(tmp_path, valid_csv=FILES["test.csv"]))
    assert list(windows) == ["train", "valid", "test"]


@pytest.mark.parametrize("text", ["1, 2", "[1, 2", "[1,,2]", "{1, 2}", "[[1], 2]", "__import__('os')"])
def test_a_broken_list_is_named_with_its_row(tmp_path, text):
    path = write(tmp_path, test_csv=f'user_id,item_ids,timestamp\n7,"[1]",3\n7,"{text}",3\n')
    train, test = registry.create("source", "windows").read(path, 0).accounts
    assert (train.read, train.records, test.read, test.records) == (4, 4, 1, 2)
    (refused,) = test.refused.values()
    assert refused.first[0].startswith("row 2: item_ids = ") and "not a list" in refused.first[0]
    with pytest.raises(UserError, match=r"test\.csv, row 2: item_ids"):
        prepare_dataset("windows", path, tmp_path / "out")


def test_a_lone_quote_in_another_column_hides_no_window(tmp_path):
    rows = "".join(f'{n},"[1, 2, 3]",{n},{"7 inch" if n % 3 else chr(34) + "7"}\n' for n in range(9))
    path = write(tmp_path, train_csv="user_id,item_ids,timestamp,note\n" + rows)
    raw = registry.create("source", "windows").read(path, 0)
    account = raw.accounts[0]
    assert (account.read, account.records) == (6, 9)
    assert raw.windows["train"].collect()["user_id"].to_list() == [str(n) for n in range(9) if n % 3]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"titles_json": '{"1": '}, "not readable JSON"),
        ({"titles_json": '["A"]'}, "holds a list"),
        ({"titles_json": '{"1": 5}'}, "title of '1' is 5"),
        ({"titles_json": None}, "holds none"),
        ({"other_json": "{}"}, "other.json, titles.json"),
        ({"test_csv": None}, "test.csv does not exist"),
        ({"test_csv": "user_id,items,timestamp\n"}, "no column 'item_ids'"),
    ],
)
def test_broken_folders_say_what_is_wrong(tmp_path, changes, said):
    with pytest.raises(UserError) as error:
        read(write(tmp_path, **changes))
    assert said in error.value.what


def test_a_file_in_place_of_the_folder_is_named(tmp_path):
    with pytest.raises(UserError, match=r"train\.csv is a file, not a folder"):
        read(write(tmp_path) / "train.csv")


def test_windows_can_be_neither_split_again_nor_filtered(tmp_path):
    for options in ({"split": "time"}, {"k_core": 3}):
        with pytest.raises(UserError, match="ready-made windows"):
            prepare_dataset("windows", write(tmp_path), tmp_path / "out", options=options)


def test_office_has_the_known_sizes_and_warns_of_cold_targets(shared_data, tmp_path, capsys):
    counts = prepare_dataset("windows", shared_data("office"), tmp_path / "out")["counts"]
    rows = counts["rows"]
    assert rows["train"]["rows"] + rows["valid"]["rows"] == 15_400
    assert (counts["items"], rows["test"]["rows"], rows["test"]["cold_targets"]) == (2_414, 1_925, 896)
    assert rows["test"]["targets_in_own_training"] == 0
    assert counts["items_without_training"] == 64  # 63 in no row of train.csv, one more only in what validates
    warned = capsys.readouterr().err
    assert "47% of the test targets (896 of 1925)" in warned
    titles = PreparedDataset(tmp_path / "out").catalogue.titles
    assert not any("&amp;" in title or "&#" in title or "\n" in title for title in titles)
    assert len(set(titles)) == 2_414
