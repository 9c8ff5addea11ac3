import ir_measures
import numpy as np
import pytest

from recalign.api import Catalogue, Predictions, Row
from recalign.errors import UserError
from recalign.evaluation.per_user import default_metrics, evaluate_lists, parse_metrics, per_user, summarise
from recalign.metrics.expression import parse_expression

ITEMS = 40


def random_case(seed, top_gain):
    """Random rows with lists that find some of their targets, and ir-measures' view of the same."""
    rng = np.random.default_rng(seed)
    names = [str(item) for item in range(ITEMS)]
    catalogue = Catalogue(names, names, [()] * ITEMS, names, np.ones(ITEMS, dtype=np.int64))
    rows = []
    for index in range(60):
        targets = rng.choice(ITEMS, 12, replace=False)
        rows.append(
            Row(index, str(index), np.array([0]), targets, rng.integers(0, top_gain + 1, 12).astype(float), 0.0)
        )
    items = np.stack([rng.choice(ITEMS, 10, replace=False) for _ in rows])
    lists = Predictions(items, np.zeros(items.shape), np.full(60, 10))
    qrels = [
        ir_measures.Qrel(row.user_id, str(item), int(gain))
        for row in rows
        for item, gain in zip(row.targets, row.gains, strict=True)
    ]
    run = [
        ir_measures.ScoredDoc(row.user_id, str(item), float(-place))
        for row, ranked in zip(rows, items, strict=True)
        for place, item in enumerate(ranked)
    ]
    return catalogue, rows, lists, qrels, run


@pytest.mark.parametrize("top_gain", [1, 5])
def test_ndcg_and_recall_equal_ir_measures(top_gain):
    catalogue, rows, lists, qrels, run = random_case(top_gain, top_gain)
    exponential = {gain: 2**gain - 1 for gain in range(1, 6)}
    ours = per_user(lists, rows, parse_metrics(["ndcg@3", "ndcg@10", "recall@3", "recall@10"], catalogue, 10)[0])
    for name, measure in {
        "ndcg@3": ir_measures.nDCG(gains=exponential) @ 3,
        "ndcg@10": ir_measures.nDCG(gains=exponential) @ 10,
        "recall@3": ir_measures.R @ 3,
        "recall@10": ir_measures.R @ 10,
    }.items():
        theirs = {metric.query_id: metric.value for metric in ir_measures.iter_calc([measure], qrels, run)}
        defined = ours.drop_nulls(name)
        expected = [theirs[user] for user in defined["user_id"]]
        np.testing.assert_allclose(defined[name].to_numpy(), expected, rtol=0, atol=1e-12)


def test_rows_without_relevant_targets_are_null_and_counted(small):
    rows = list(small.rows("test"))
    lists = Predictions(np.array([[1, 2], [5, 2], [5, 0], [0, 1]]), np.zeros((4, 2)), np.full(4, 2))
    frame = per_user(lists, rows, parse_metrics(["recall@2", "mgu", "validity"], small.catalogue, 2)[0])
    assert frame.columns == ["row", "user_id", "recall@2", "mgu", "validity"]
    assert frame["recall@2"].to_list() == [1.0, 1.0, 1.0, None]
    assert frame["user_id"].to_list() == ["u0", "u1", "u2", "u3"]
    summary = summarise(frame)
    assert summary["recall@2"].n == 3
    assert summary["recall@2"].mean == 1.0
    assert summary["validity"].n == 4


def test_validation_leaves_out_what_means_nothing(small):
    rows = list(small.rows("test"))
    expression = parse_expression("recall@1").bind(small.catalogue)
    values = evaluate_lists(expression, np.array([[1], [5], [0], [0]]), np.ones(4, dtype=int), rows)
    assert values.tolist() == [0.5, 0.0, 0.0]


def test_default_metrics_fit_lists_and_genres(small, write_dataset):
    assert {"ndcg@3", "ndcg@5", "mgu", "ild", "validity"} < set(default_metrics(small.catalogue, 5))
    assert "ndcg@10" not in default_metrics(small.catalogue, 5)
    assert default_metrics(small.catalogue, 1)[0] == "ndcg@1"
    bare = write_dataset(["a"], [("t", 0, 0)], [("u", [0], [0], [1.0], 0.0)], name="bare")
    assert not {"mgu", "ild"} & set(default_metrics(bare.catalogue, 5))


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([], "No metric is asked for"),
        (["ndcg@5", "ndcg @ 5"], "asked for twice"),
        (["ndcg@11"], "looks at 11 positions, and the lists have 10"),
        (["validty"], "Did you mean 'validity'"),
        (["ndgc@5"], "Did you mean 'ndcg'"),
    ],
)
def test_metrics_that_cannot_be_measured_are_refused(small, names, message):
    with pytest.raises(UserError, match=message):
        parse_metrics(names, small.catalogue, 10)


def test_genre_metrics_without_genres_are_refused(write_dataset):
    bare = write_dataset(["a"], [("t", 0, 0)], [("u", [0], [0], [1.0], 0.0)])
    with pytest.raises(UserError, match="'mgu' reads genres"):
        parse_metrics(["mgu"], bare.catalogue, 5)


def test_corpus_level_metrics_are_told_apart(small):
    per_list, corpus = parse_metrics(["gini", "ndcg@3", "coverage@2", "mgu - ndcg"], small.catalogue, 5)
    assert [metric.text for metric in per_list] == ["ndcg@3", "mgu - ndcg"]
    assert [metric.text for metric in corpus] == ["gini", "coverage@2"]
    with pytest.raises(UserError, match="coverage@9 looks at 9 positions"):
        parse_metrics(["coverage@9"], small.catalogue, 5)


def test_what_reads_exact_predictions_has_no_value_without_them(small):
    rows = list(small.rows("test"))
    lists = Predictions(np.array([[1, 2]] * 4), np.zeros((4, 2)), np.full(4, 2))
    metrics, _ = parse_metrics(["hit", "pr@2"], small.catalogue, 2, provided=("exact",))
    assert per_user(lists, rows, metrics)["pr@2"].to_list() == [None] * 4
    assert per_user(lists, rows, metrics, exact=lists)["pr@2"].to_list() == [0.0, 0.0, 0.0, None]
