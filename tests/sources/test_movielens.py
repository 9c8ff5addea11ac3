import pytest

from recalign.errors import UserError
from recalign.preparation.guessing import guess

from . import formats
from .reads import read_dump

GENERATIONS = {
    formats.movielens_100k: ("Film\u00e9 1 (1995)", ["Action", "Adventure"], 1.0),
    formats.movielens_1m: ('"Film\u00e9: 1", The (1995)', ["Action", "Comedy"], 1.0),
    formats.movielens_32m: ('Film "1", The (1995)', [], 1.5),
}


@pytest.mark.parametrize("write", GENERATIONS, ids=lambda write: write.__name__)
def test_every_generation_is_recognised_and_read(tmp_path, write):
    title, genres, rating = GENERATIONS[write]
    folder = write(tmp_path)
    assert guess(folder)[0] == "movielens"
    items, first, raw = read_dump("movielens", folder)
    assert first == ("0", "0", 1_300_000_000.0, rating)
    assert (items["1"]["title"], items["1"]["genres"], len(items)) == (title, genres, 9)
    assert [(each.read, each.records) for each in raw.accounts] == [(72, 72), (9, 9)]


def test_unknown_is_no_genre(tmp_path):
    items, _, _ = read_dump("movielens", formats.movielens_100k(tmp_path))
    assert items["0"]["genres"] == []


def test_a_folder_without_its_files_is_told_what_it_needs(tmp_path):
    (tmp_path / "ratings.csv").write_text("x")
    with pytest.raises(UserError, match="u.data and u.item, or ratings.dat and movies.dat.*holds ratings.csv"):
        read_dump("movielens", tmp_path)
