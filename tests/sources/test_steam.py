from recalign.data.dataset import PreparedDataset
from recalign.preparation.guessing import guess
from recalign.preparation.pipeline import prepare_dataset

from . import formats
from .reads import read_dump

DAY_OF_START = 1_299_974_400.0  # 2011-03-13, in which the first review was written


def test_literals_join_reviews_to_games_by_product(tmp_path):
    items, first, raw = read_dump("steam", formats.steam(tmp_path))
    assert first == (formats.user(0), "100", DAY_OF_START, 1.5)
    assert items["100"] == {
        "item_id": "100",
        "title": "Game 0",
        "genres": ["Action", "Indie & more"],
        "text": "",
        "suffix": "2018",
    }
    assert items["101"]["genres"] == ["Fun"]  # tags, where a game has no genres
    assert (items["102"]["title"], items["103"]["title"]) == ("Game 2", "")
    (refused,) = raw.accounts[1].refused.values()
    assert (len(items), refused.count, refused.harmless) == (9, 1, True)


def test_a_game_without_an_id_stops_nothing_and_hours_are_gains(tmp_path):
    path = formats.steam(tmp_path / "raw")
    counts = prepare_dataset("steam", path, tmp_path / "out", options={"split": "user", "relevance": "rating"})[
        "counts"
    ]
    assert (counts["items"], counts["dropped_items"], counts["files"][1]["read"]) == (8, 1, 11)
    titles = PreparedDataset(tmp_path / "out").catalogue.titles
    assert {"Twins (2018)", "Twins (2019)"} <= set(titles)
    row = PreparedDataset(tmp_path / "out").rows("test")[0]
    assert row.gains[0] in {1.5, 2.5, 3.5, 4.5, 5.5}


def test_it_is_recognised(tmp_path):
    formats.steam(tmp_path)
    assert guess(tmp_path)[0] == "steam"
