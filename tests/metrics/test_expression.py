import re
import sys

import numpy as np
import pytest

from recalign.api import Catalogue, ListBatch, Predictions, Row
from recalign.errors import UserError
from recalign.metrics.expression import check_cutoffs, parse_expression, parse_metric
from recalign.metrics.parser import GRAMMAR
from recalign.plugins import registry
from tests.fake_distribution import install

NAMES = ["a", "b", "c"]
CATALOGUE = Catalogue(NAMES, NAMES, [("x",), ("y",), ("x",)], [""] * 3, np.array([3, 2, 1]))
BARE = Catalogue(NAMES, NAMES, [(), (), ()], [""] * 3, np.array([3, 2, 1]))
ROW = Row(7, "anna", np.array([0]), np.array([1, 2]), np.array([1.0, 0.0]), 0.0)
LISTS = ListBatch(np.array([[0, 1], [1, 2]]), np.array([2, 2]), [ROW, ROW], np.array([0, 0]))


TOY = '''"""toy: a made-up metric."""
import numpy as np
from recalign.api import Field, Metric, Params, hookimpl


class Toy(Metric):
    """Counts whatever a test wants."""

    class Params(Params):
        value: float = Field(1.0, description="what it returns")
        mode: str = Field("fine", description="how it misbehaves")

    takes_cutoff = False

    def score(self, lists):
        if self.params.mode == "raise":
            raise ZeroDivisionError("oops")
        if self.params.mode == "short":
            return np.ones(1)
        if self.params.mode == "text":
            return ["a"] * len(lists)
        values = np.full(len(lists), self.params.value)
        if self.params.mode in ("nan", "inf"):
            values[1] = float(self.params.mode)
        return values

    def defined_for(self, row):
        if self.params.mode == "raise":
            raise KeyError("oops")
        return self.params.mode != "undefined"


@hookimpl
def recalign_metric():
    return Toy
'''


@pytest.fixture(scope="module", autouse=True)
def site(tmp_path_factory):
    """A folder on sys.path with an installed metric that misbehaves as a test wants."""
    folder = tmp_path_factory.mktemp("site")
    install(folder, "fake-toy", {"recalign.metrics": {"toy": "fake_toy"}}, {"fake_toy": TOY})
    sys.path.insert(0, str(folder))
    yield
    sys.path.remove(str(folder))
    sys.modules.pop("fake_toy", None)


def toy(text):
    return parse_expression(text).bind(CATALOGUE)


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("ndcg", "ndcg"),
        (" ndcg@5 ", "ndcg@5"),
        ("ndcg@5-0.5*mgu", "ndcg@5 - 0.5*mgu"),
        ("ndcg@5 + ild*.10", "ndcg@5 + 0.1*ild"),
        ("-mgu", "-mgu"),
        ("+2*ndcg - 1*recall@3", "2*ndcg - recall@3"),
        ("- 2e-1*mgu", "-0.2*mgu"),
    ],
)
def test_canonical_text(text, canonical):
    assert parse_expression(text).text == canonical
    assert parse_expression(canonical).text == canonical


def test_parameters_stand_in_parentheses_before_or_after_the_cutoff():
    expression = parse_expression("2*toy(value=-0.5, mode='fine')")
    assert expression.terms[0].metric.params.value == -0.5
    assert expression.text == "2*toy(value=-0.5, mode=fine)"
    assert parse_expression("ndcg()@3").terms[0].cutoff == 3


def test_the_score_is_the_weighted_sum():
    expression = parse_expression("ndcg@2 - 0.5*mgu + 3*ild").bind(CATALOGUE)
    parts = {name: parse_expression(name).bind(CATALOGUE).score(LISTS) for name in ("ndcg@2", "mgu", "ild")}
    assert parts["ndcg@2"] == pytest.approx([1 / np.log2(3), 1.0])
    assert parts["mgu"] == pytest.approx([0.5, 0.5])
    assert expression.score(LISTS) == pytest.approx(parts["ndcg@2"] - 0.5 * parts["mgu"] + 3 * parts["ild"])


def test_reads_and_defined_for_join_all_terms():
    expression = parse_expression("ndcg@2 - 0.5*mgu").bind(CATALOGUE)
    assert expression.reads == {"targets", "genres", "history"}
    assert expression.defined_for(ROW)
    irrelevant = Row(0, "bo", np.array([0]), np.array([1]), np.array([0.0]), 0.0)
    assert not expression.defined_for(irrelevant)
    assert parse_expression("mgu").bind(CATALOGUE).defined_for(irrelevant)


def test_a_harm_that_is_rewarded_is_reported():
    assert parse_expression("ndcg + mgu@3").harms == ["mgu@3"]
    assert parse_expression("ndcg - mgu@3").harms == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "name of a metric is expected"),
        ("ndcg@", "whole number"),
        ("ndcg@0", "at least 1"),
        ("ndcg@2.5", "whole number"),
        ("ndcg@3@4", "twice"),
        ("ndcg*recall", "cannot be multiplied"),
        ("ndcg recall", r"\+ or - is expected"),
        ("2 ndcg", r"\* and a metric"),
        ("ndcg +", "name of a metric"),
        ("ndcg/2", "'/' is not understood"),
        ("__import__('os')", "name=value"),
        ("__import__", "no metric named"),
        ("ndcg(k)", "name=value"),
        ("ndcg(k=)", "a value is expected"),
        ("ndcg(k=1", "comma or a closing"),
        ("ndcg(k=1)", "no parameter 'k'"),
        ("0.5", r"\* and a metric"),
        ("1e999*ndcg", "at '1e999.*a weight from 1e-09 to 1e.09"),
        ("1e308*ndcg", "at '1e308.*a weight from 1e-09 to 1e.09"),
        ("ndcg - 1e-400*mgu", "at '1e-400.*a weight from 1e-09 to 1e.09"),
        ("0*ndcg", "is 0 for every list"),
        ("ndcg - ndcg", "is 0 for every list"),
        ("0.1*ndcg + 0.2*ndcg - 0.3*ndcg", "is 0 for every list"),
        ("ndcg@" + "5" * 5000, "of at most 9 digits"),
        ("ndcg@\u0665", "'\u0665' is not understood"),
        ("ndcg@\u00b2", "'\u00b2' is not understood"),
        ("\u0665*ndcg", "'\u0665' is not understood"),
    ],
)
def test_bad_expressions_are_refused_with_their_place(text, message):
    with pytest.raises(UserError, match=message):
        parse_expression(text)


def test_the_advice_on_expressions_names_metrics_that_are_there():
    examples = re.findall("'([^']*)'", GRAMMAR)
    assert examples
    for example in examples:
        parse_expression(example)


def test_long_input_is_not_echoed_whole():
    for text in ("ndcg@" + "5" * 5000, "x" * 100_000, "ndcg(" * 4000, "y" * 10_000):
        with pytest.raises(UserError) as caught:
            parse_expression(text)
        assert len(str(caught.value)) < 1500


def test_a_metric_is_looked_up_once_however_often_it_is_named(monkeypatch):
    """300 terms took as long as 300 searches of what is installed."""
    from recalign.plugins import registry

    asked, find = [], registry.find
    monkeypatch.setattr(registry, "find", lambda kind, name: asked.append(name) or find(kind, name))
    assert len(parse_expression(" + ".join(f"0.5*ndcg@{k % 9 + 1}" for k in range(300))).terms) == 300
    assert asked == ["ndcg"]


def test_an_unknown_name_in_a_composite_suggests_the_close_one():
    with pytest.raises(UserError, match="Did you mean 'ndcg'"):
        parse_expression("0.5*recall@5 + ndgc@5")
    with pytest.raises(UserError, match="Did you mean 'toy'"):
        parse_expression("toj")


def test_cutoff_where_it_means_nothing_is_refused():
    with pytest.raises(UserError, match="takes no @k"):
        parse_expression("toy@3")


def test_k_larger_than_the_list_is_refused():
    expression = parse_expression("ndcg@5 - mgu@10")
    check_cutoffs(expression, 10)
    with pytest.raises(UserError, match="mgu@10 looks at 10 positions, and the lists have 5"):
        check_cutoffs(expression, 5)


def test_genres_are_asked_for_before_the_run():
    with pytest.raises(UserError, match="'mgu' reads genres"):
        parse_expression("ndcg - mgu").bind(BARE)


def test_nan_names_metric_user_and_list():
    with pytest.raises(UserError, match=r"'toy' of .* returned nan for user 'anna' \(row 7\) and the list \[b, c\]"):
        toy("ndcg + toy(mode=nan)").score(LISTS)


def test_infinity_is_refused():
    with pytest.raises(UserError, match="returned inf"):
        toy("toy(mode=inf)").score(LISTS)


def test_a_wrong_length_is_refused():
    with pytest.raises(UserError, match=r"'toy' of .* returned shape \[1\] for 2 lists"):
        toy("toy(mode=short)").score(LISTS)


@pytest.mark.parametrize("mode", ["raise", "text"])
def test_a_metric_that_raises_is_named(mode):
    with pytest.raises(
        UserError, match=r"'toy' of package fake-toy 1.2 raised (ZeroDivisionError|ValueError) in score"
    ):
        toy(f"toy(mode={mode})").score(LISTS)


def test_a_metric_that_raises_on_a_row_names_the_user():
    with pytest.raises(UserError, match="raised KeyError in defined_for for user 'anna'"):
        toy("toy(mode=raise)").defined_for(ROW)


def test_a_fault_of_our_own_stays_ours(monkeypatch):
    monkeypatch.setattr(registry.find("metric", "ndcg"), "score", lambda self, lists: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        parse_expression("ndcg").bind(CATALOGUE).score(LISTS)


@pytest.mark.parametrize(
    ("text", "better"),
    [
        ("ndcg@5", True),
        ("mgu", False),
        ("-ndcg", False),
        ("-mgu", True),
        ("ndcg@5 - 0.5*mgu", True),
        ("mgu - ndcg", False),
        ("ndcg + mgu", None),
        ("popularity", None),
        ("ndcg - popularity", None),
        ("coverage", True),
        ("gini@3", False),
    ],
)
def test_the_direction_of_a_sum_is_that_of_its_terms_where_they_agree(text, better):
    assert parse_metric(text).higher_is_better is better


@pytest.mark.parametrize("text", ["coverage", "ndcg@5 + 0.1*coverage", "-gini"])
def test_a_metric_of_all_lists_together_is_no_reward(text):
    with pytest.raises(UserError, match="(coverage|gini) is one value for all lists .* cannot be a reward"):
        parse_expression(text)


def test_a_metric_of_all_lists_together_can_be_asked_for_alone():
    predictions = Predictions(np.array([[0, 1], [0, 2]]), np.zeros((2, 2)), np.array([2, 1]))
    metric = parse_metric("coverage@1").bind(CATALOGUE)
    assert (metric.text, metric.score(predictions, [ROW, ROW])) == ("coverage@1", pytest.approx(1 / 3))
    with pytest.raises(UserError, match="coverage is one value"):
        parse_metric("2*coverage")


def test_what_is_not_provided_is_refused():
    with pytest.raises(UserError, match="pr@5 needs the model's exact best titles"):
        parse_expression("ndcg@5 - pr@5")
    assert parse_expression("ndcg@5 - pr@5", provided=("exact",)).text == "ndcg@5 - pr@5"
