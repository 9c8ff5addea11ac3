import numpy as np
import pytest

from recalign.commands.eval import eval as evaluate
from recalign.comparison.evaluations import Evaluation, group_by_label
from recalign.comparison.report import grids
from recalign.comparison.systems import compare
from recalign.errors import UserError
from recalign.evaluation.significance import holm, paired
from recalign.runs.cost import mean_of, read_cost
from tests.evaluation.prepared import write_decoded, write_small

GOOD = [[1, 2], [2, 5], [5, 0], [0, 1]]
FAIR = [[1, 3], [3, 2], [5, 0], [0, 1]]
POOR = [[3, 4], [3, 4], [0, 1], [0, 1]]


@pytest.fixture
def data(tmp_path):
    return write_small(tmp_path / "data")


@pytest.fixture
def run(tmp_path, data):
    """Evaluate lists as a model run of some name."""

    def make(name, lists, dataset=None, metrics="ndcg@2,recall@2", baselines=False, label=None, **options):
        dataset = dataset or data
        evaluate(
            write_decoded(tmp_path / name, dataset, lists, **options), metrics=metrics, baselines=baselines, label=label
        )
        return Evaluation.find(tmp_path / name)

    return make


def test_differences_are_paired_and_against_the_first(run):
    found = compare({"poor": [run("poor", POOR)], "good": [run("good", GOOD)]})
    assert found.reference == "poor"
    test = found.tests["good"]["recall@2"]
    assert test == paired(np.zeros(3), np.ones(3), users=np.array(["u0", "u1", "u2"]))
    assert (test.difference.mean, test.difference.n, test.wins) == (1.0, 3, 3)
    assert "poor" not in found.tests


def test_the_reference_can_be_named(run):
    groups = {"poor": [run("poor", POOR)], "good": [run("good", GOOD)]}
    assert compare(groups, reference="good").tests["poor"]["recall@2"].difference.mean == -1.0
    with pytest.raises(UserError, match="Did you mean 'good'"):
        compare(groups, reference="goood")


def test_p_values_are_corrected_for_the_number_of_models(run):
    groups = {name: [run(name, lists)] for name, lists in (("poor", POOR), ("fair", FAIR), ("good", GOOD))}
    found = compare(groups)
    raw = [found.tests[name]["ndcg@2"].p for name in ("fair", "good")]
    assert [found.adjusted[name]["ndcg@2"] for name in ("fair", "good")] == holm(raw)


def test_seeds_are_averaged_user_by_user(run):
    groups = {"a": [run("s0", POOR, seed=0), run("s1", GOOD, seed=1)], "b": [run("b", GOOD)]}
    found = compare(groups)
    assert found.systems[0].frame["recall@2"].to_list() == [0.5, 0.5, 0.5, None]
    assert found.systems[0].summary["recall@2"].n == 3
    assert found.tests["b"]["recall@2"].difference.mean == 0.5
    means = [run["means"]["recall@2"] for run in found.as_dict()["systems"][0]["runs"]]
    assert means == [0.0, 1.0]


def folds(tmp_path):
    return [write_small(tmp_path / f"fold{n}", digest=f"f{n}", users=f"fold{n}-", fold=n) for n in (1, 2)]


def test_folds_are_joined_so_that_each_user_is_tested_once(run, tmp_path):
    one, two = folds(tmp_path)
    groups = {
        name: [run(f"{name}1", first, one, baselines=True), run(f"{name}2", second, two, baselines=True)]
        for name, first, second in (("a", POOR, POOR), ("b", GOOD, POOR))
    }
    found = compare(groups)
    assert found.systems[0].frame.height == 8
    test = found.tests["b"]["recall@2"]
    assert (test.difference.mean, test.difference.n, test.wins) == (0.5, 6, 3)
    baselines = [system for system in found.systems if system.baseline]
    assert [system.frame.height for system in baselines] == [8] * 5


def test_splits_by_other_seeds_are_joined_and_a_user_of_several_counts_once(run, tmp_path):
    one, two = (write_small(tmp_path / f"split{seed}", digest=f"s{seed}", seed=seed) for seed in (0, 1))
    groups = {
        name: [
            run(f"{name}-{number}", lists, data)
            for number, (lists, data) in enumerate(zip(per_split, (one, two), strict=True))
        ]
        for name, per_split in (("a", (POOR, POOR)), ("b", (GOOD, POOR)))
    }
    found = compare(groups)
    assert found.systems[0].frame.height == 8
    assert found.systems[0].frame["user_id"].n_unique() == 4
    together, alone = found.tests["b"]["recall@2"], compare({name: runs[:1] for name, runs in groups.items()})
    assert (together.difference.mean, together.difference.n) == (0.5, 6)
    assert (together.wins, together.losses, together.ties) == (3, 0, 0)  # users, and not rows
    assert together.p == alone.tests["b"]["recall@2"].p


def test_baselines_are_rows_of_their_own_family(run):
    found = compare({"poor": [run("poor", POOR, baselines=True)], "good": [run("good", GOOD)]})
    names = [system.name for system in found.systems]
    assert names[:2] == ["poor", "good"]
    assert "item-kNN" in names
    assert found.adjusted["good"]["recall@2"] == found.tests["good"]["recall@2"].p
    assert compare({"good": [run("good2", GOOD, baselines=True)]}, reference="item-kNN").tests["good"]


def test_runs_that_differ_in_seed_only_form_one_group(run):
    first, second = run("x/blade", POOR, seed=0), run("y/blade", GOOD, seed=1)
    other = run("z/blade", GOOD, seed=2, model_options={"params": {"tau": 0.5}})
    assert group_by_label([first, second]) == {"blade": [first, second]}
    apart = group_by_label([first, second, other])
    assert [len(runs) for runs in apart.values()] == [1, 1, 1]
    assert all(name.startswith("blade (") for name in apart)


def test_runs_that_differ_in_seeds_alone_belong_together_at_whatever_depth(run):
    first, second = (
        run(
            f"blade/seed={seed}",
            GOOD,
            seed=seed,
            model_options={"model": f"sft/seed={seed}", "training": {"seed": seed}},
        )
        for seed in (0, 1)
    )
    assert [first.results["seed"], second.results["seed"]] == [0, 1]
    assert group_by_label([first, second]) == {"blade": [first, second]}
    other = run("blade/seed=2", GOOD, seed=2, model_options={"model": "bear/seed=2", "training": {"seed": 2}})
    assert len(group_by_label([first, second, other])) == 3


def test_an_option_that_an_earlier_version_did_not_know_is_one_that_was_not_given(run):
    old, new, other = (
        run(f"{name}/blade", GOOD, seed=seed, model_options={"tau": 0.3, **options})
        for seed, (name, options) in enumerate(
            {"old": {}, "new": {"backbone": None, "params": {}}, "other": {"backbone": "item-vectors"}}.items()
        )
    )
    assert group_by_label([old, new]) == {"blade": [old, new]}
    assert len(group_by_label([old, new, other])) == 3


def test_runs_of_one_seed_and_label_stand_alone(run):
    apart = group_by_label([run("x/blade", POOR, seed=0), run("y/blade", GOOD, seed=0)])
    assert len(apart) == 2


def test_costs_are_averaged_over_runs(run):
    groups = {
        "a": [
            run("s0", POOR, seed=0, cost={"prompts": 4, "seconds": 2.0}),
            run("s1", POOR, seed=1, cost={"prompts": 4, "seconds": 1.0, "forward_passes": 8}),
        ]
    }
    cost = compare(groups).systems[0].cost
    assert (cost["prompts_per_second"], cost["decode_seconds"], cost["forward_passes"]) == (3.0, 1.5, 8.0)
    assert cost["training_seconds"] == 60.0
    assert mean_of([]) == {}
    assert read_cost({}, 2.5) == {"training_seconds": 2.5}


def test_oracles_stay_marked(run):
    found = compare({"sft": [run("sft", POOR)], "bon": [run("bon", GOOD, oracle=True)]})
    assert [system.oracle for system in found.systems] == [False, True]


def refusal(groups, message, **options):
    with pytest.raises(UserError, match=message):
        compare(groups, **options)


def test_different_datasets_are_refused(run, tmp_path):
    other = write_small(tmp_path / "other", digest="other")
    refusal(
        {"a": [run("a", POOR)], "b": [run("b", POOR, other)]},
        r"'a' \(.*a.*\) and 'b' \(.*b.*\) are on different datasets: .*data.* and .*other",
    )


def test_datasets_that_differ_in_how_items_are_written_are_compared_but_not_pooled(run, tmp_path):
    kinds = ("title", "semantic")
    data = {kind: write_small(tmp_path / f"d-{kind}", kind, measured="same", identifier=kind) for kind in kinds}
    title, semantic = run("a", POOR, data["title"], baselines=True), run("b", GOOD, data["semantic"], label="a")
    found = compare({"title": [title], "semantic": [semantic]})
    assert found.tests["semantic"]["recall@2"].difference.mean == 1.0
    assert {system.name for system in found.systems if system.baseline} == set(title.baselines) != set()
    refusal({"both": [title, semantic]}, r"different datasets \(identifier: 'title' and 'semantic'\)")
    named = group_by_label([title, run("c", GOOD, data["semantic"], label="a", baselines=False)])
    assert all(len(runs) == 1 for runs in named.values()) and len(named) == 2


def test_different_splits_are_refused(run):
    refusal(
        {"a": [run("a", POOR)], "b": [run("b", POOR, split="valid")]},
        "'a' .* and 'b' .* are on different splits: 'test' and 'valid'",
    )


def test_different_rows_are_refused(run, data):
    part = list(data.rows("test"))[:2]
    refusal({"a": [run("a", POOR)], "b": [run("b", POOR[:2], rows=part)]}, r"answer different rows \(4 and 2\)")
    refusal({"a": [run("c", POOR, seed=0), run("d", POOR[:2], rows=part, seed=1)]}, "has 2 of 4")


def test_a_metric_that_a_system_lacks_has_no_value_there(run):
    one, two = run("a", POOR), run("b", POOR, metrics="ndcg@2")
    for groups in ({"a": [one], "b": [two]}, {"b": [two], "a": [one]}):
        comparison = compare(groups, reference="a")
        assert set(comparison.metrics) == set(compare({"a": [one]}).metrics) > {"ndcg@2"}
        lacking = next(system for system in comparison.systems if system.name == "b")
        assert lacking.summary["recall@2"].mean is None and lacking.summary["ndcg@2"].mean is not None
        assert comparison.tests["b"]["recall@2"].difference.n == 0
        shown = next(grid for grid in grids(comparison) if grid.title == "recall@2")
        assert next(row for row in shown.rows if row[0] == "b")[1:] == ("-", "-", "", "", "", "")
    assert compare({"a": [one], "b": [two]}, metrics=["ndcg@2"]).metrics == ("ndcg@2",)


def test_a_test_that_does_not_exist_is_not_corrected_for(run):
    """Three systems are tested on ndcg, one of them on recall: its p is not raised there."""
    runs = {"a": [run("a", POOR)], "b": [run("b", GOOD)]}
    alone = compare(runs, metrics=["recall@2"])
    beside = compare({**runs, "c": [run("c", GOOD, metrics="ndcg@2")]}, metrics=["recall@2"])
    assert beside.adjusted["b"]["recall@2"] == alone.adjusted["b"]["recall@2"] == alone.tests["b"]["recall@2"].p


def test_unknown_metrics_and_groups_of_different_metrics_are_refused(run):
    one, two = run("a", POOR, seed=0), run("b", POOR, seed=1, metrics="ndcg@2")
    refusal({"a": [one]}, "No run has the metric 'mgu'", metrics=["mgu"])
    refusal({"x": [one, two]}, r"/b/.* has no metric '.*', .*/a/.* has")
    refusal({"x": [two, one]}, r"/b/.* has no metric '.*', .*/a/.* has")
    assert compare({"x": [one, two]}, metrics=["ndcg@2"]).metrics == ("ndcg@2",)


def test_groups_pool_only_folds_of_one_dataset(run, tmp_path):
    other = write_small(tmp_path / "other", digest="other", users="x", task="next")
    refusal({"a": [run("a", POOR), run("b", POOR, other)]}, "different datasets .task: 'list' and 'next'")
    refusal({"a": [run("e", POOR), run("f", POOR, split="valid")]}, "is on the split 'test', .* on 'valid'")


def test_missing_unfinished_and_ambiguous_evaluations_are_refused(run, tmp_path, data):
    with pytest.raises(UserError, match="is no folder"):
        Evaluation.find(tmp_path / "nowhere")
    folder = write_decoded(tmp_path / "bare", data, POOR)
    with pytest.raises(UserError, match="holds no evaluation"):
        Evaluation.find(folder)
    found = run("done", POOR)
    (found.folder / "per_user.parquet").write_bytes(b"cut off")
    with pytest.raises(UserError, match="per_user.parquet is not readable"):
        compare({"a": [Evaluation.find(found.folder)]})
    (found.folder / "run.json").unlink()
    with pytest.raises(UserError, match="unfinished evaluation"):
        Evaluation.find(found.folder)
    evaluate(write_decoded(tmp_path / "two", data, POOR))
    evaluate(tmp_path / "two" / "decode-greedy-test", out=tmp_path / "two" / "second" / "eval")
    with pytest.raises(UserError, match="holds several evaluations"):
        Evaluation.find(tmp_path / "two")


def test_runs_without_a_value_for_each_row_are_refused(run):
    with pytest.raises(UserError, match="nothing can be tested user by user"):
        compare({"a": [run("a", POOR, metrics="coverage")]})
