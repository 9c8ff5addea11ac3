from recalign.data.dataset import PreparedDataset
from recalign.preparation.guessing import guess
from recalign.preparation.pipeline import prepare_dataset

from . import formats
from .reads import read_dump


def test_reviews_and_businesses(tmp_path):
    items, first, _ = read_dump("yelp", formats.yelp(tmp_path))
    assert first == (formats.user(0), "b0", 1_300_000_000.0, 1.0)
    assert items["b0"] == {
        "item_id": "b0",
        "title": "Caf\u00e9",
        "genres": ["Coffee & Tea", "Food"],
        "text": "City 0, CA",
        "suffix": "City 0",
    }
    assert (items["b3"]["genres"], len(items)) == ([], 9)


def test_the_city_tells_apart_businesses_of_one_name(tmp_path):
    formats.yelp(tmp_path / "raw")
    assert guess(tmp_path / "raw")[0] == "yelp"
    prepare_dataset("yelp", tmp_path / "raw", tmp_path / "out", options={"split": "user"})
    titles = PreparedDataset(tmp_path / "out").catalogue.titles
    assert {"Caf\u00e9 (City 0)", "Caf\u00e9 (City 1)", "Place 2"} <= set(titles)
