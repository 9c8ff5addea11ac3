"""Finding items by what people write."""

import numpy as np
import pytest

from recalign.data.catalogue import Catalogue
from recalign.data.item_names import ItemNames
from recalign.errors import UserError

TITLES = ["Alien (1979)", "Aliens (1986)", "ALIENS (1986)", "300", "The  Godfather", "Amélie", "Alien 3 (1992)", "x"]
IDS = ["10", "11", "12", "13", "300", "15", "16", "id:10"]


@pytest.fixture
def names():
    popularity = np.array([5, 9, 1, 4, 2, 3, 7, 1])
    return ItemNames(Catalogue(IDS, TITLES, [()] * len(TITLES), [""] * len(TITLES), popularity))


@pytest.mark.parametrize(
    ("name", "item"),
    [
        ("Alien (1979)", 0),
        ("10", 0),
        ("alien (1979)", 0),
        (" ALIEN   (1979) ", 0),
        ("Aliens (1986)", 1),
        ("ALIENS (1986)", 2),
        ("the godfather", 4),
        ("Ame\u0301lie", 5),
        ("id:300", 4),
        ("title:300", 3),
        ("title:the godfather", 4),
        ("id:11", 1),
        ("id:10", 7),  # an id that looks like that
    ],
)
def test_titles_and_ids_are_found(names, name, item):
    assert names.find(name) == item


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("300", "is the id of 'The  Godfather' and the title of another item, '13'.\nWrite 'id:300' or 'title:300'."),
        ("aliens (1986)", "may mean 2 items.\nWrite 'Aliens (1986)' or 'ALIENS (1986)'"),
        ("alien", "Did you mean 'Aliens (1986)' or 'Alien 3 (1992)' or 'Alien (1979)'?"),
        ("Godfahter", "Did you mean 'The  Godfather'?"),
        ("Godfahter, The (1972)", "Did you mean 'The  Godfather'?"),
        ("zzzzzzzz", "Titles read like 'Aliens (1986)'."),
        ("", "No item of the catalogue has the title or id ''."),
        ("y" * 100_000, "characters more"),
    ],
)
def test_what_is_no_item_or_several_is_told_with_what_was_meant(names, name, told):
    with pytest.raises(UserError) as stop:
        names.find(name)
    assert told in str(stop.value)


def test_an_item_that_comes_twice_is_refused_unless_it_may():
    names = ItemNames(Catalogue(IDS, TITLES, [()] * 8, [""] * 8, np.ones(8)))
    assert names.find_all(["10", "Amélie"], "It").tolist() == [0, 5]
    assert names.find_all([], "It").tolist() == []
    with pytest.raises(UserError, match=r"It names 'Alien \(1979\)' twice, at places 1 and 3"):
        names.find_all(["10", "11", "Alien (1979)"], "It")
    assert names.find_all(["10", "11", "10"], "It", repeats=True).tolist() == [0, 1, 0]
