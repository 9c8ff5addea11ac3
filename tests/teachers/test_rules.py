"""The teacher `rules` on a few interactions: its evidence by hand, and the user's own interactions left out."""

import numpy as np
import pytest

from recalign.api import PARTS, RATIONALE, Case, TeacherContext, TrainingData
from recalign.plugins.registry import create
from tests.rationales.doubles import CATALOGUE, make_row

OTHERS = {"a": [0, 2], "b": [0, 2], "c": [0, 4], "d": [5]}


def begun(own=(0, 2), **params):
    sequences = {**OTHERS, "u0": list(own)}
    users = np.repeat(np.arange(len(sequences)), [len(items) for items in sequences.values()])
    items = np.concatenate([np.array(items, dtype=np.int64) for items in sequences.values()])
    training = TrainingData(CATALOGUE, users, items, np.arange(len(items), dtype=float), user_ids=list(sequences))
    teacher = create("teacher", "rules", params)
    teacher.begin(TeacherContext(CATALOGUE, lambda: training, lambda name: None))
    return teacher


def text_of(teacher, item, history=(0,)):
    return teacher.reply([Case(make_row(0, history), item, "?")])[0].text


def test_the_ranks_of_the_evidence_come_out_as_by_hand():
    """Without u0's own: popularity 0, 2, 0, 1, 1 of items 1 to 5; together with item 0: 2 of item 2, 1 of item 4.

    Ranks (genres, together, popularity): item 2: .7, .9, .9; item 4: .9, .7, .6; item 5: .3, .3, .6; items 1 and 3:
    .3, .3, .2. Weighed by 1, 1 and .5 that is 2.05, 1.9, .9 and .7, of which .9, .7, .5 and .2 are the ranks.
    """
    teacher = begun()
    evidence = teacher._evidence(make_row(0))
    assert evidence.share[1:] == pytest.approx([0.2, 0.9, 0.2, 0.7, 0.5])
    decisions = [RATIONALE.read(text_of(teacher, item)).recommended for item in range(1, 6)]
    assert decisions == [False, True, False, False, False]  # above .7
    assert RATIONALE.read(text_of(begun(threshold=0.6), 4)).recommended


def test_the_text_names_the_evidence_under_the_three_headings():
    assert text_of(begun(), 2) == (
        f"{PARTS[0]}\n"
        "Most recently the user had Title 0. Title 2 is Comedy and Drama; 1 of the 1 items of the history share a "
        "genre with it. Of the 2 other users who had Title 2, 2 had Title 0 too.\n"
        f"{PARTS[1]}\n"
        "It is more popular than 67% of the items, so that popularity alone may explain this. The last item, Title 0, "
        "is Drama as well.\n"
        f"{PARTS[2]}\n"
        "By genres, co-occurrence and popularity together it stands above 90% of the items that are new to the user.\n"
        "<answer>Recommend</answer>"
    )


def test_the_brief_text_has_every_kind_of_evidence_in_tenths():
    """Item 2 stands at .7 by genres, .9 by co-occurrence, .9 by popularity and .9 by all; item 4 at .9, .7, .6, .7."""
    body = f"{PARTS[0]}\nGenres %d, co-occurrence %d.\n{PARTS[1]}\nPopularity %d.\n{PARTS[2]}\nTogether %d.\n"
    body += "<answer>%s</answer>"
    assert text_of(begun(brief=True), 2) == body % (7, 9, 9, 9, "Recommend")
    assert text_of(begun(brief=True), 4) == body % (9, 7, 6, 7, "Not Recommend")


@pytest.mark.parametrize("own", [(0,), (0, 2, 3), (2, 3, 4, 5)])
def test_what_the_user_did_in_training_changes_nothing(own):
    """A training row's target is among its user's interactions: counting them would give the answer away."""
    assert [text_of(begun(own), item) for item in (2, 3, 4)] == [text_of(begun(), item) for item in (2, 3, 4)]


def test_items_without_genres_and_users_without_history_get_a_text_too():
    teacher = begun()
    assert "No genre of Title 3 is known. No other user had Title 3" in text_of(teacher, 3)
    text = text_of(teacher, 2, history=())
    assert "The user has no history." in text
    assert "nothing to compare it with" in text
    RATIONALE.read(text)
