import json

import pytest

from recalign.cli import main
from recalign.comparison.conditions import Condition
from recalign.comparison.systems import compare
from recalign.errors import UserError

from .conftest import FAIR, GOOD, POOR


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ndcg@5 < reference - 0.002", ("ndcg@5", True, True, -0.002, None, False)),
        ("mgu>reference+1e-3, p < .05", ("mgu", False, True, 0.001, 0.05, False)),
        (" recall@5 < 0.2 , interval ", ("recall@5", True, False, 0.2, None, True)),
        ("ndcg@5 - 0.5*mgu < reference", ("ndcg@5 - 0.5*mgu", True, True, 0.0, None, False)),
        ("ndcg@5 > -0.5", ("ndcg@5", False, False, -0.5, None, False)),
    ],
)
def test_conditions_are_read(text, expected):
    condition = Condition.parse(text)
    found = (condition.metric, condition.below, condition.relative, condition.offset, condition.p, condition.interval)
    assert found == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ndcg@5", "is no condition"),
        ("ndcg@5 < reference * 2", "is no condition"),
        ("ndcg@5 <= 0.2", "is no condition"),
        ("< 0.2", "is no condition"),
        ("ndcg@5 < 0.2, p < 0.05", "not to a number"),
    ],
)
def test_what_is_none_is_refused(text, message):
    with pytest.raises(UserError, match=message):
        Condition.parse(text)


@pytest.fixture(scope="module")
def comparison(evaluated):
    """recall@2: 0 (sft, the reference), 2/3 or so (fair), 1 (good); an oracle and baselines beside them."""
    groups = {"sft": POOR, "fair": FAIR, "good": GOOD}
    runs = {name: [evaluated(f"met/{name}", lists, baselines=name == "sft")] for name, lists in groups.items()}
    return compare({**runs, "bon": [evaluated("met/bon", POOR, oracle=True)]}, reference="good")


@pytest.mark.parametrize(
    ("text", "systems"),
    [
        ("recall@2 < reference", ["sft", "fair"]),
        ("recall@2 < reference - 0.9", ["sft"]),
        ("recall@2 < reference - 1", []),  # exactly one less
        ("recall@2 > reference", []),
        ("recall@2 < reference - 0.9, interval", ["sft"]),
        ("recall@2 < reference, p < 0.2", []),  # three users: the least p is 0.25
        ("recall@2 < reference, p < 0.9", ["sft"]),
        ("recall@2 > 0.9", ["good"]),  # of a number the reference, too, has to keep to
        ("coverage < reference", ["sft"]),
    ],
)
def test_a_condition_holds_for_models_and_neither_for_oracles_nor_for_baselines(comparison, text, systems):
    condition = Condition.parse(text)
    condition.check(comparison)
    assert [told.partition(":")[0] for told in condition.failures(comparison)] == systems


def test_what_was_found_is_said(comparison):
    told = Condition.parse("recall@2 < reference").failures(comparison)[0]
    assert told.startswith("sft: recall@2 0.0000, -1.0000 [-1.0000, -1.0000]* on good, p (Holm) ")


def test_a_metric_that_is_not_there_and_a_test_of_one_value_are_refused(comparison):
    with pytest.raises(UserError, match="no run has the metric 'recal@2'") as refused:
        Condition.parse("recal@2 < 1").check(comparison)
    assert "recall@2" in refused.value.hint
    with pytest.raises(UserError, match="one value for all lists together"):
        Condition.parse("gini > reference, p < 0.05").check(comparison)


def test_the_command_ends_with_exit_code_3_and_its_report_written(evaluated, tmp_path, capsys):
    runs = [str(evaluated(f"exit/{name}", lists).folder) for name, lists in (("old", GOOD), ("new", POOR))]
    asked = ["compare", *runs, "--quiet", "--out", str(tmp_path / "out"), "--users", "0", "--json"]
    codes = []
    capsys.readouterr()  # of the evaluations
    for condition in ("recall@2 < reference - 0.5", "recall@2 > reference", "recall@2 << 1"):
        with pytest.raises(SystemExit) as stop:
            main([*asked, "--fail-if", condition])
        codes.append(stop.value.code or 0)
        told = json.loads(capsys.readouterr().out)
        assert ("error" in told) == bool(codes[-1])
        assert (tmp_path / "out/report.html").is_file()
    assert codes == [3, 0, 2]
