import functools

import pytest

from recalign.data.dataset import PreparedDataset
from recalign.errors import UserError
from recalign.plugins import registry
from recalign.preparation.guessing import guess
from recalign.preparation.pipeline import prepare_dataset

from . import formats
from .reads import items_of


def read(path, **params):
    raw = registry.create("source", "amazon", params).read(path, 0)
    return {item["item_id"]: item for item in items_of(raw)}, raw


def first_events(raw):
    events = raw.events.head(2).collect()
    return [tuple(map(str, row)) for row in events.select("user_id", "item_id", "timestamp", "rating").rows()]


FIRST = [
    (formats.user(0), formats.asin(0), "1300000000.0", "1.0"),
    (formats.user(0), formats.asin(2), "1301036800.0", "1.0"),
]


def test_reviews_of_2014_with_metadata_of_python_literals(tmp_path):
    items, raw = read(formats.amazon_2014(tmp_path))
    assert first_events(raw) == FIRST
    assert len(items) == 9  # of 14 that the metadata hold, those that are reviewed
    assert items[formats.asin(1)] == {
        "item_id": formats.asin(1),
        "title": "Gadget 1",
        "genres": ["Electronics", "Audio & Video", "Kind 1"],
        "text": "It's good.",
        "suffix": None,
    }
    assert [(account.read, account.records) for account in raw.accounts] == [(72, 72), (14, 14)]


def test_web_pages_in_the_metadata_of_2018_are_cleaned_or_counted(tmp_path):
    path = formats.amazon_2018(tmp_path)
    items, raw = read(path)
    assert first_events(raw) == FIRST
    assert (items[formats.asin(1)]["title"], items[formats.asin(2)]["title"]) == ("Gadget 1", "")
    assert items[formats.asin(0)]["genres"] == ["Books", "Art & Design"]
    assert items[formats.asin(0)]["text"] == "One. Two."
    counts = prepare_dataset("amazon", path, tmp_path / "out", options={"split": "user"})["counts"]
    lost = sum(i == 2 for _, i, _, _ in formats.log())
    assert (counts["items"], counts["dropped_items"], counts["dropped_events"]) == (8, 1, lost)
    assert counts["item_rows_repeated"] == 1


@pytest.mark.parametrize("write", [formats.amazon_2023, formats.amazon_2023_parquet])
def test_reviews_of_2023_are_by_parent_and_in_milliseconds(tmp_path, write):
    items, raw = read(write(tmp_path))
    user, item, time, rating = FIRST[0]
    assert first_events(raw)[0] == (user, item, "1300000000.007", rating)
    assert items[formats.asin(1)]["genres"] == ["Beauty", "Hair"]
    assert items[formats.asin(0)]["genres"] == ["All Beauty"]  # without categories the main one counts
    assert items[formats.asin(0)]["text"] == "It's soft"


def test_the_benchmark_with_histories_is_windows_as_they_are(tmp_path):
    path = formats.last_out(tmp_path / "raw", history=True)
    prepare_dataset("amazon", path, tmp_path / "out")
    dataset = PreparedDataset(tmp_path / "out")
    row = dataset.rows("test")[0]
    ids = dataset.catalogue.item_ids
    assert row.user_id == formats.user(0)
    assert [ids[i] for i in row.history] == [formats.asin(i) for i in (0, 2, 4, 6, 8)]
    assert [ids[i] for i in row.targets] == [formats.asin(1)]
    assert [len(dataset.rows(split)) for split in ("train", "valid", "test")] == [36, 12, 12]
    assert row.timestamp == 1300000000 + 86400 * 60


def test_the_benchmark_without_histories_is_one_log_split_alike(tmp_path):
    path = formats.last_out(tmp_path / "raw", history=False)
    prepare_dataset("amazon", path / "All_Beauty.valid.csv.gz", tmp_path / "out")
    dataset = PreparedDataset(tmp_path / "out")
    assert dataset.info["options"]["split"] == "provided"
    row = dataset.rows("test")[0]
    assert [dataset.catalogue.item_ids[i] for i in row.targets] == [formats.asin(1)]
    assert [len(dataset.rows(split)) for split in ("train", "valid", "test")] == [36, 12, 12]


@pytest.mark.parametrize("item_first", [True, False])
def test_ratings_without_a_header_tell_users_from_items(tmp_path, item_first):
    _, raw = read(formats.ratings_only(tmp_path, item_first=item_first))
    assert first_events(raw) == FIRST


@pytest.mark.parametrize(
    "write",
    [
        formats.amazon_2014,
        formats.amazon_2018,
        formats.amazon_2023,
        formats.amazon_2023_parquet,
        functools.partial(formats.last_out, history=True),
    ],
)
def test_its_folders_are_recognised(tmp_path, write):
    write(tmp_path)
    assert guess(tmp_path)[0] == "amazon"


def test_a_folder_of_several_categories_is_refused(tmp_path):
    formats.amazon_2023(tmp_path)
    formats.amazon_2018(tmp_path)
    with pytest.raises(UserError, match="one category, but holds") as error:
        read(tmp_path)
    assert "--meta" in error.value.hint


def test_metadata_that_are_no_metadata(tmp_path):
    path = formats.amazon_2023(tmp_path)
    with pytest.raises(UserError, match="no column 'title'|has none of the keys"):
        read(path, meta=str(formats.pack(tmp_path / "other.jsonl", '{"a": 1}\n')))


def test_the_metadata_may_be_named_and_stand_elsewhere(call, tmp_path):
    path = formats.amazon_2023(tmp_path / "reviews")
    meta = (tmp_path / "reviews" / "meta_All_Beauty.jsonl.gz").rename(tmp_path / "items.jsonl.gz")
    options = ["--split", "user", "--out", tmp_path / "out"]
    assert call("prepare", "amazon", path, "--meta", meta, *options)[0] == 0
    assert PreparedDataset(tmp_path / "out").catalogue.titles[0] == "Gadget 0"
    code, told = call("prepare", "synthetic", "--meta", meta)
    assert (code, "source 'synthetic' has no parameter 'meta'" in told) == (2, True)


def test_without_metadata_ids_are_titles(tmp_path):
    path = formats.amazon_2023(tmp_path)
    (tmp_path / "meta_All_Beauty.jsonl.gz").unlink()
    assert read(path)[0][formats.asin(3)]["title"] == formats.asin(3)
