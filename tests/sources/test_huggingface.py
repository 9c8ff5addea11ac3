import datasets
import polars as pl
import pytest

from recalign.data.dataset import PreparedDataset
from recalign.errors import UserError
from recalign.preparation.guessing import guess
from recalign.preparation.pipeline import prepare_dataset

from . import formats
from .reads import read_dump

DEEP = "[" * 10_000 + "]" * 10_000
FIRST = (formats.user(0), formats.asin(0), 1_300_000_000.0, 1.0)


@pytest.fixture
def saved(tmp_path):
    rows = formats.hub_rows()
    dataset = datasets.DatasetDict(
        {"train": datasets.Dataset.from_list(rows[:50]), "test": datasets.Dataset.from_list(rows[50:])}
    )
    dataset.save_to_disk(str(tmp_path / "saved"))
    return tmp_path / "saved"


def test_a_saved_dataset_is_one_log_of_its_splits(saved):
    assert guess(saved)[0] == "huggingface"
    items, first, raw = read_dump("huggingface", saved)
    assert (first, items[formats.asin(1)]["title"], len(items)) == (FIRST, "Gadget 1", 9)
    assert raw.events.collect().height == 72
    assert read_dump("huggingface", saved, split="train")[2].events.collect().height == 50
    with pytest.raises(UserError, match="no split 'valid': it has train, test"):
        read_dump("huggingface", saved, split="valid")


def test_parquet_with_a_row_a_user_and_lists(tmp_path):
    pl.DataFrame(formats.per_user()).write_parquet(tmp_path / "raw.parquet")
    _, first, raw = read_dump("huggingface", tmp_path / "raw.parquet")
    assert first == ("0", "0", 1_300_000_000.0, 1.0)  # of nanoseconds
    times = raw.events.collect().cast({"user_id": str, "item_id": str})
    assert [tuple(map(int, row)) for row in times.select("user_id", "item_id", "rating", "timestamp").rows()] == [
        *formats.log()
    ]


def test_a_table_of_items_beside_it_and_columns_by_name(tmp_path):
    pl.DataFrame(formats.hub_rows()).rename({"user_id": "who"}).drop("title").write_parquet(tmp_path / "log.parquet")
    kinds = ["Toys", "Red"]
    items = [{"parent_asin": formats.asin(i), "title": formats.title(i), "categories": kinds} for i in range(20)]
    pl.DataFrame(items).write_parquet(tmp_path / "items.parquet")
    with pytest.raises(UserError, match="no column that is named as users usually are; it has who, parent_asin"):
        read_dump("huggingface", tmp_path / "log.parquet")
    params = {"user": "who", "meta": str(tmp_path / "items.parquet")}
    told, first, _ = read_dump("huggingface", tmp_path / "log.parquet", **params)
    assert (first, len(told), told[formats.asin(2)]["genres"]) == (FIRST, 9, ["Toys", "Red"])


def test_without_times_files_follow_each_other(tmp_path):
    frame = pl.DataFrame(formats.hub_rows()).drop("timestamp")
    frame.head(40).write_parquet(tmp_path / "0.parquet")
    frame.tail(32).write_parquet(tmp_path / "1.parquet")
    events = read_dump("huggingface", tmp_path)[2].events.collect()
    assert events["timestamp"].to_list() == list(range(72))


def test_a_name_that_is_no_dataset(monkeypatch, tmp_path):
    def refuse(name, config):
        raise datasets.exceptions.DatasetNotFoundError(f"Dataset '{name}' doesn't exist on the Hub")

    monkeypatch.setattr(datasets, "load_dataset", refuse)
    with pytest.raises(UserError, match="'org/nothing' cannot be loaded: Dataset 'org/nothing' doesn't exist"):
        prepare_dataset("huggingface", tmp_path.__class__("org/nothing"), tmp_path / "out")


def test_a_name_of_the_hub_is_loaded_by_it(monkeypatch, tmp_path, saved):
    asked = []

    def load(name, config):
        asked.append((name, config))
        return datasets.load_from_disk(str(saved))

    monkeypatch.setattr(datasets, "load_dataset", load)
    name = tmp_path.__class__("org/dataset")
    prepare_dataset("huggingface", name, tmp_path / "out", params={"config": "small"}, options={"split": "user"})
    assert set(asked) == {("org/dataset", "small")}
    assert PreparedDataset(tmp_path / "out").info["options"]["path"] == "org/dataset"


def test_a_row_a_user_with_a_list_of_objects(tmp_path):
    file = tmp_path / "users.parquet"
    pl.DataFrame([*formats.nested_rows(), {"user_id": 99, "country": "NZ", "history": []}]).write_parquet(file)
    items, first, raw = read_dump("huggingface", file)
    assert (first, items["1"]["title"]) == (("0", "0", 1_300_000_000.0, 1.0), "Gadget 1")
    events = raw.events.collect().cast({"user_id": str, "item_id": str})
    numbers = [tuple(map(int, row)) for row in events.select("user_id", "item_id", "rating", "timestamp").rows()]
    assert numbers == [*formats.log()]


def test_an_object_of_lists_as_datasets_keeps_sequences(tmp_path):
    rows = [
        {"user_id": row["user_id"], "events": {"item_id": row["item_ids"], "timestamp": row["timestamps"]}}
        for row in formats.per_user()
    ]
    datasets.Dataset.from_list(rows).save_to_disk(str(tmp_path / "saved"))
    events = read_dump("huggingface", tmp_path / "saved")[2].events.collect().cast({"user_id": str, "item_id": str})
    assert [tuple(map(int, row)) for row in events.select("user_id", "item_id", "timestamp").rows()] == [
        (u, i, t) for u, i, _, t in formats.log()
    ]


def test_without_times_the_order_of_the_list_is_the_time_and_of_several_lists_one_is_named(tmp_path):
    rows = [
        {"user": u, "bought": [{"item_id": "a"}, {"item_id": "b"}], "seen": [{"item_id": "c"}], "tags": [{"name": "x"}]}
        for u in "pq"
    ]
    pl.DataFrame(rows).write_parquet(tmp_path / "x.parquet")
    with pytest.raises(UserError, match="several columns with lists of objects that name items: bought, seen"):
        read_dump("huggingface", tmp_path / "x.parquet")
    with pytest.raises(UserError, match="'user' holds String, not lists of objects"):
        read_dump("huggingface", tmp_path / "x.parquet", interactions="user")
    events = read_dump("huggingface", tmp_path / "x.parquet", interactions="bought")[2].events.collect()
    assert events.cast({"user_id": str, "item_id": str}).rows() == [
        ("p", "a", 0.0), ("p", "b", 1.0), ("q", "a", 0.0), ("q", "b", 1.0)
    ]  # fmt: skip


def test_an_element_without_an_item_is_named_by_its_row_and_place(call, tmp_path):
    rows = formats.nested_rows()
    rows[2]["history"][1]["item_id"] = None
    pl.DataFrame(rows).write_parquet(tmp_path / "x.parquet")
    code, told = call("prepare", "huggingface", tmp_path / "x.parquet")
    assert (code, "row 3, element 2 of history: item_id = None is not an id" in told) == (2, True), told


def test_lists_are_read_like_columns_dates_and_all_and_a_place_in_them_is_named(call, tmp_path):
    file = tmp_path / "x.parquet"

    def told(items, days, stars=(1, 2)):
        pl.DataFrame({"user": ["p", "q"], "item_ids": items, "date": days, "stars": [stars, stars]}).write_parquet(file)
        return call("prepare", "huggingface", file)

    items, days = [["a", "b"], ["b", "a"]], [["2011-03-13", "2011-03-14T00:00:10Z"]] * 2
    told(items, days)
    first, second = read_dump("huggingface", file)[2].events.collect().cast({"user_id": str, "item_id": str}).rows()[:2]
    assert (first, second) == (("p", "a", 1_299_974_400.0, 1.0), ("p", "b", 1_300_060_810.0, 2.0))
    for given, said in [
        ((items, [days[0], ["2011-03-13", "soon"]]), "row 2, element 2 of item_ids: date = 'soon' is not a time"),
        (([items[0], ["b", None]], days), "row 2, element 2 of item_ids: item_ids = None is not an id"),
        ((items, days, ("1", "good")), "row 1, element 2 of item_ids: stars = 'good' is not a number"),
        ((items, [days[0], ["2011-03-13"]]), "row 2: date has 1 values, item_ids has 2. Mend or delete"),
        (([items[0], None], days), "row 2: item_ids = None"),
    ]:
        code, answer = told(*given)
        assert (code, said in answer) == (2, True), answer


def test_a_title_of_the_user_is_none_of_the_items(tmp_path):
    frame = pl.DataFrame(formats.per_user()).with_columns(name=pl.lit("Ann"))
    frame.write_parquet(tmp_path / "x.parquet")
    assert read_dump("huggingface", tmp_path / "x.parquet")[0]["1"]["title"] == "1"


@pytest.mark.parametrize("state", ["{", "[1, 2]", '{"splits": ["train"]}', '{"splits": 3}', DEEP])
def test_a_saved_dataset_that_is_damaged(call, saved, state):
    (saved / "dataset_dict.json").write_text(state)
    if state.startswith('{"splits": ['):
        (saved / "train" / "state.json").unlink()
    code, told = call("prepare", "huggingface", saved)
    assert (code, "cannot be loaded" in told, "Name a folder that is there" in told) == (2, True, True), told


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"timestamp": "soon"}, "row 4: timestamp = 'soon' is not a time"),
        ({"user_id": None}, "row 4: user_id = None is not an id"),
        ({"rating": "good"}, "row 4: rating = 'good' is not a number"),
        ({"timestamp": {"at": 3}}, "'timestamp' holds Struct"),
        ({"user_id": ["p"]}, "'user_id' holds List(String), which is not an id"),
    ],
)
def test_a_broken_row_or_a_column_of_another_type_is_named(call, tmp_path, change, said):
    rows = formats.hub_rows()
    (key, value), *_ = change.items()
    alike = type(value) if isinstance(value, str) else (lambda _: value) if value else (lambda cell: cell)
    rows = [{**row, key: value if n == 3 else alike(row[key])} for n, row in enumerate(rows)]
    pl.DataFrame(rows).write_parquet(tmp_path / "x.arrow")  # of the wrong suffix
    code, told = call("prepare", "huggingface", tmp_path / "x.arrow")
    assert (code, said in told, "x.arrow" in told) == (2, True, True), told
