import pytest

from recalign.preparation.guessing import guess

from . import formats
from .reads import read_dump


def test_dates_shelves_and_ratings(tmp_path):
    items, first, raw = read_dump("goodreads", formats.goodreads(tmp_path))
    assert first == (formats.user(0), "0", 1_300_000_000.0, None)  # of eight hours before; a rating of 0 is none
    assert items["3"] == {
        "item_id": "3",
        "title": "Book 3",
        "genres": ["kind-1"],
        "text": "A book.",
        "suffix": "1993",
    }
    assert raw.events.collect()["timestamp"].to_list()[1] == 1_300_000_000 + 12 * 86_400


def test_the_file_of_genres_goes_before_shelves(tmp_path):
    items, _, _ = read_dump("goodreads", formats.goodreads(tmp_path, genres=True))
    assert items["3"]["genres"] == ["history, biography", "romance"]


def test_editions_of_a_work_are_one_item_if_asked(tmp_path):
    path = formats.goodreads(tmp_path)
    assert len(read_dump("goodreads", path)[0]) == 9
    items, first, raw = read_dump("goodreads", path, by="work")
    assert (len(items), items["501"]["title"], first[1]) == (8, "Book 0", "501")
    told = raw.events.collect()["item_id"].cast(str)
    assert (told == "501").sum() == sum(i in (0, 1) for _, i, _, _ in formats.log())


@pytest.mark.parametrize("genres", [True, False])
def test_it_is_recognised(tmp_path, genres):
    formats.goodreads(tmp_path, genres=genres)
    assert guess(tmp_path)[0] == "goodreads"
