import numpy as np
import pytest

from recalign.api import Catalogue, ListBatch, Predictions, Row
from recalign.evaluation.measures import MEASURES, corpus_measures
from recalign.metrics.expression import parse_expression

NAMES = ["a", "b", "c", "d"]
CATALOGUE = Catalogue(NAMES, NAMES, [()] * 4, NAMES, np.array([4, 2, 1, 0]))
ROW = Row(0, "u", np.array([0, 3]), np.array([1, 2]), np.array([1.0, 0.0]), 0.0)
LISTS = [[2, 1, 0], [0, 0, -1], [1, 1], [], [3, 2, 0]]


def score(text, row=ROW):
    items = np.full((len(LISTS), 3), -1)
    for place, values in enumerate(LISTS):
        items[place, : len(values)] = values
    lengths = np.array([len(values) for values in LISTS])
    batch = ListBatch(items, lengths, [row] * len(LISTS), np.zeros(len(LISTS)))
    return parse_expression(text, MEASURES).bind(CATALOGUE).score(batch)


@pytest.mark.parametrize(
    ("metric", "expected"),
    [
        ("hit@1", [0, 0, 1, 0, 0]),
        ("hit", [1, 0, 1, 0, 0]),
        ("mrr", [1 / 2, 0, 1, 0, 0]),
        ("mrr@1", [0, 0, 1, 0, 0]),
        ("validity", [1, 2 / 3, 1, 0, 1]),
        ("repeats", [0, 1 / 3, 1 / 2, 0, 0]),
        ("history", [1 / 3, 2 / 3, 0, 0, 2 / 3]),
        ("unseen", [0, 0, 0, 0, 1 / 3]),
        ("popularity", [7 / 3, 4, 2, 0, 5 / 3]),
        ("popularity@1", [1, 4, 2, 0, 0]),
    ],
)
def test_by_hand(metric, expected):
    assert score(metric) == pytest.approx(expected)


def test_hits_leave_out_rows_without_relevant_targets():
    bare = Row(0, "u", np.array([0]), np.array([1]), np.array([0.0]), 0.0)
    for name in ("hit", "mrr"):
        metric = parse_expression(name, MEASURES).bind(CATALOGUE)
        assert metric.defined_for(ROW)
        assert not metric.defined_for(bare)


def test_an_empty_history_holds_nothing():
    assert score("history", Row(0, "u", np.array([], dtype=np.int64), ROW.targets, ROW.gains, 0.0)).tolist() == [0] * 5


def predictions(lists):
    items = np.array(lists)
    return Predictions(items, np.zeros(items.shape), np.full(len(items), items.shape[1]))


def test_coverage_and_gini_by_hand():
    assert corpus_measures(predictions([[0, 1], [2, 3]]), CATALOGUE) == {"coverage": 1.0, "gini": pytest.approx(0.0)}
    assert corpus_measures(predictions([[0], [0]]), CATALOGUE) == {"coverage": 0.25, "gini": pytest.approx(0.75)}
    # counts 0 0 1 3: 2 * (3*1 + 4*3) / (4*4) - 5/4
    mixed = corpus_measures(predictions([[0, 1], [0, -1], [0, -1]]), CATALOGUE)
    assert mixed == {"coverage": 0.5, "gini": pytest.approx(0.625)}


def test_nothing_recommended_covers_nothing():
    assert corpus_measures(predictions([[-1, -1]]), CATALOGUE) == {"coverage": 0.0, "gini": 0.0}
