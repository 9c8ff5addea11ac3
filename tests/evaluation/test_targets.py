import json

import numpy as np
import pytest

from recalign.commands.eval import eval as evaluate
from recalign.errors import UserError
from recalign.evaluation.targets import counting
from tests.evaluation.prepared import write_decoded, write_small

LISTS = [[1, 3, 2], [2, 5, 3], [5, 0, 1], [0, 1, 3]]


@pytest.fixture
def dataset(tmp_path):
    return write_small(tmp_path / "data")  # no training interaction has item 5


@pytest.fixture
def decoded(tmp_path, dataset):
    return write_decoded(tmp_path / "run", dataset, LISTS)


def test_rows_keep_the_targets_that_count_and_go_without_them(decoded):
    warm, cold = evaluate(decoded, targets="warm"), evaluate(decoded, targets="cold")
    # user 1 likes the warm item 2 and merely consumed the cold item 5; user 2 likes the cold item 5 alone
    assert (warm["rows"], warm["metrics"]["recall@3"]["n"]) == (3, 2)
    assert (cold["rows"], cold["metrics"]["recall@3"]["n"]) == (2, 1)
    assert cold["metrics"]["mrr"]["mean"] == 1.0
    # the one unseen item stands first
    assert warm["baselines"]["random unseen"]["metrics"]["mrr"]["mean"] < 1.0
    assert cold["baselines"]["random unseen"]["metrics"]["mrr"]["mean"] == 1.0


def test_the_three_evaluations_lie_beside_each_other(decoded):
    for targets, folder in (("all", "eval"), ("warm", "eval-warm"), ("cold", "eval-cold")):
        evaluate(decoded, targets=targets, baselines=False)
        assert json.loads((decoded / folder / "run.json").read_text())["options"]["targets"] == targets


def test_lists_stay_with_their_rows(dataset):
    from recalign.runs.predictions import read_predictions

    lists, rows = read_predictions(write_decoded(dataset.path.parent / "d", dataset, LISTS), dataset, "test")
    some, kept = counting("cold", lists, rows, dataset.catalogue)
    assert [row.user_id for row in kept] == ["u1", "u2"]
    assert [(row.targets.tolist(), row.gains.tolist()) for row in kept] == [([5], [0.0]), ([5], [1.0])]
    assert np.array_equal(some.items, [[2, 5, 3], [5, 0, 1]])


def test_no_such_target_is_said(decoded, dataset):
    rows = [row for row in dataset.rows("test") if row.user_id == "u2"]
    alone = write_decoded(decoded.parent.parent / "alone", dataset, LISTS[2:3], rows=rows)
    with pytest.raises(UserError, match="None of the 1 rows has a warm target"):
        evaluate(alone, targets="warm")
