"""The rank task: orders of candidates, ties, questions about candidates, the level of chance."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from recalign.api import DECISION, Question, Row
from recalign.errors import UserError
from recalign.evaluation.evaluate import measure_mean
from recalign.evaluation.per_user import parse_metrics
from recalign.tasks import Shape, find_task
from recalign.tasks.rank import candidates_of, ranked

TASK = find_task("rank")


def stored(rows):
    return [each.candidates for each in rows]


def row(index=0, candidates=(4, 7, 1, 9), positive=7, user="u"):
    return Row(index, user, np.array([2, 3]), np.array([positive]), np.array([1.0]), 0.0, np.array(candidates))


def test_a_row_has_one_positive_and_a_list_of_all_candidates():
    assert TASK.shape(None, None, None) == Shape(targets=1, stride=1, list_length=20)
    assert TASK.shape(None, None, None, 5) == Shape(targets=1, stride=1, list_length=5)
    assert (TASK.list_size(20), TASK.default_metric(20, 500), TASK.default_metric(4, 500)) == (20, "ndcg@10", "ndcg@4")


def test_candidates_are_sorted_by_score():
    found = ranked([row()], stored([row()]), np.array([0.1, 0.5, -1.0, 0.4]), seed=0, rationales=list("abcd"))
    assert found.items.tolist() == [[7, 9, 4, 1]] and found.scores.tolist() == [[0.5, 0.4, 0.1, -1.0]]
    assert found.rationales.tolist() == [["b", "d", "a", "c"]] and found.lengths.tolist() == [4]
    assert ranked([row()], stored([row()]), np.arange(4.0), seed=0, size=2).items.tolist() == [[9, 1]]


def test_rows_may_have_candidate_sets_of_several_sizes():
    rows = [row(), row(1, (5, 6), 5)]
    found = ranked(rows, stored(rows), np.array([4.0, 3, 2, 1, 0, 1]), seed=0)
    assert found.items.tolist() == [[4, 7, 1, 9], [6, 5, -1, -1]] and found.lengths.tolist() == [4, 2]


@pytest.mark.parametrize("scores", [dict.fromkeys(range(10), 0.0), {4: 1.0, 7: 1.0, 1: 1.0, 9: 2.0}])
def test_where_candidates_are_stored_changes_no_order(scores):
    """Equal scores are broken by a seeded order of the row: the positive may stand at any place."""
    random = np.random.default_rng(0)
    for index in range(20):
        first = ranked([row(index)], stored([row(index)]), np.array([scores[i] for i in (4, 7, 1, 9)]), seed=3)
        for _ in range(5):
            order = random.permutation([4, 7, 1, 9])
            again = [row(index, order)]
            found = ranked(again, stored(again), np.array([scores[i] for i in order]), seed=3)
            assert found.items.tolist() == first.items.tolist()


def test_equal_scores_put_the_positive_at_every_place_alike():
    """400 rows, 4 places: 100 expected at each, standard deviation 8.7."""
    rows = [row(index) for index in range(400)]
    places = (ranked(rows, stored(rows), np.zeros(1600), seed=0).items == 7).argmax(axis=1)
    assert np.bincount(places, minlength=4).min() > 65
    assert (places != (ranked(rows, stored(rows), np.zeros(1600), seed=1).items == 7).argmax(axis=1)).any()


def test_a_row_asks_about_its_positive_and_some_negatives():
    rows = [row(index) for index in range(30)]
    questions = TASK.questions(rows, DECISION, negatives=2, seed=0)
    assert len(questions) == 90
    asked = [[each.question.item for each in questions[3 * place : 3 * place + 3]] for place in range(30)]
    assert all(items[0] == 7 and len({*items}) == 3 and {*items} < {4, 7, 1, 9} for items in asked)
    assert {items[1] for items in asked} == {4, 1, 9}
    answers = [TASK.response(each, 4) for each in questions[:3]]
    assert [each.recommended for each in answers] == [True, False, False]
    assert all(each.form == DECISION and each.text == "" for each in answers)
    with pytest.raises(IndexError):
        questions[90]


def test_questions_do_not_depend_on_where_candidates_are_stored():
    turned = [row(index, (1, 9, 7, 4)) for index in range(10)]
    first = TASK.questions([row(index) for index in range(10)], DECISION, 3, 5)
    again = TASK.questions(turned, DECISION, 3, 5)
    assert [each.question for each in first] == [each.question for each in again]


def test_fewer_negatives_than_asked_for_come_again():
    items = [each.question.item for each in TASK.questions([row()], DECISION, negatives=5, seed=0)]
    assert items[0] == 7 and sorted(items[1:4]) == [1, 4, 9] and items[4:] == items[1:3]


def test_a_rationale_is_taught_where_the_question_has_one():
    from recalign.api import RATIONALE

    asked = replace(row(), question=Question(7, RATIONALE, "Because."))
    assert TASK.response(asked, 4).text == "Because."
    assert TASK.response(replace(asked, question=Question(7, DECISION, "Because.")), 4).text == ""


def test_chance_is_the_mean_over_all_places_of_the_positive():
    """One positive of 20: the mean of 1 / log2(p + 1) over the places p <= k, divided by 20."""
    rows = [row(index, range(20), index) for index in range(3)]
    names = ["ndcg@1", "ndcg@5", "ndcg@10", "ndcg@20", "hit@5", "mrr", "auc"]
    metrics, _ = parse_metrics(names, Catalogue20(), 20)
    found = measure_mean(TASK.chance(rows, 20), rows, metrics, [])
    expected = {f"ndcg@{k}": sum(1 / np.log2(p + 1) for p in range(1, k + 1)) / 20 for k in (1, 5, 10, 20)}
    expected |= {"hit@5": 0.25, "mrr": sum(1 / p for p in range(1, 21)) / 20, "auc": 0.5}
    assert {name: found.metrics[name].mean for name in names} == pytest.approx(expected)
    assert [round(expected[f"ndcg@{k}"], 4) for k in (1, 5, 10, 20)] == [0.05, 0.1474, 0.2272, 0.352]


class Catalogue20:
    """As much of a catalogue as ranking metrics read."""

    genre_names: list[str] = []

    def __len__(self) -> int:
        return 20


def test_other_tasks_have_no_level_of_chance():
    assert find_task("next").chance([row()], 10) == ()


def test_a_row_without_candidates_is_named():
    with pytest.raises(UserError, match="User u's row has no candidates to rank"):
        candidates_of([replace(row(), candidates=None)])


def test_rows_are_ranked_as_the_model_was_trained_to():
    asked = SimpleNamespace(answers=lambda rows: (np.array([0.0, 1.0, 3.0, 2.0]), None))  # of 1, 4, 7, 9
    assert TASK.decode(SimpleNamespace(questions=asked, seed=0), [row()]).items.tolist() == [[7, 9, 4, 1]]
