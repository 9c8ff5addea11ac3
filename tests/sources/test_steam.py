import gzip

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


def test_reviews_of_a_line_a_user_have_the_days_of_their_reviews(tmp_path):
    path = formats.australian(tmp_path, "reviews")
    assert guess(tmp_path) == ("steam", "australian_user_reviews.json.gz has the reviews of users")
    items, first, raw = read_dump("steam", path)
    assert (first, len(items)) == (("76560", "100", DAY_OF_START + 260 * formats.DAY), 9)  # 2011-11-28
    events = raw.events.collect().cast({"user_id": str, "item_id": str})
    asked = [(f"7656{u}", str(100 + i), t + 260 * formats.DAY) for u, i, _, t in formats.log()]
    hours = formats.START - DAY_OF_START
    times = events["timestamp"]
    assert events.rows() == [(user, item, time - hours) for user, item, time in asked]
    later = read_dump("steam", path, year=2016)[2].events.collect()["timestamp"]
    assert (times[-1], later[-1]) == (1_328_572_800, 1_454_803_200)  # 2012-02-07 and 2016-02-07, of "February 7."
    assert (later[0], later.n_unique()) == (times[0], 72)


def test_games_beside_them_have_titles_and_a_place_is_named_by_line_and_review(call, tmp_path):
    formats.steam(tmp_path)
    (tmp_path / "steam_reviews.json.gz").unlink()
    path = formats.australian(tmp_path, "reviews")
    assert read_dump("steam", path)[0]["100"]["title"] == "Game 0"
    text = gzip.decompress(path.read_bytes()).decode()
    day = formats.posted(formats.START + (12 + 1 + 260) * formats.DAY)
    formats.pack(path, text.replace(f"'posted': '{day}'", "'posted': 'lately'", 1))
    code, told = call("prepare", "steam", path)
    assert (code, "line 2, element 2 of reviews: posted = 'lately' is not a time" in told) == (2, True), told


def test_games_that_users_own_have_hours_and_no_times(call, tmp_path):
    path = formats.australian(tmp_path, "items")
    assert guess(path)[0] == "steam"
    items, first, raw = read_dump("steam", path)
    assert first == ("76560", "100", 0.5, 0.0)  # 30 minutes
    assert (items["101"]["title"], raw.events.collect().height) == ("Game 1", 72)
    code, told = call("prepare", "steam", path, "--split", "user", "--relevance", "rating", "--out", tmp_path / "out")
    assert code == 0, told
    assert PreparedDataset(tmp_path / "out").rows("test")[0].gains[0] in {0.5, 1.0, 1.5, 2.0, 2.5}
