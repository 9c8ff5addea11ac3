import numpy as np
import pytest
from rich.console import Console

from recalign.api import Predictions
from recalign.evaluation.significance import Interval
from recalign.evaluation.tables import before_after, figure, number, p_text, signed
from recalign.metrics.expression import parse_expression


def lists(items):
    items = np.array(items)
    return Predictions(items, np.zeros(items.shape), np.full(len(items), items.shape[1]))


def test_before_after_by_hand(small):
    rows = list(small.rows("test"))
    table = before_after(
        small, rows, lists([[3], [3], [3], [3]]), lists([[1], [2], [0], [3]]), ["recall@1", "validity"]
    )
    change = table.as_dict()["recall@1"]
    assert change["before"]["mean"] == 0.0
    assert change["after"]["mean"] == pytest.approx((0.5 + 1 + 0) / 3)
    assert change["difference"]["mean"] == pytest.approx(0.5)
    assert change["difference"]["n"] == 3
    assert (change["wins"], change["losses"]) == (2, 0)
    assert table.as_dict()["validity"]["p"] == 1.0


def test_default_metrics_fit_the_lists(small):
    rows = list(small.rows("test"))
    three = before_after(small, rows, lists([[0, 1, 2]] * 4), lists([[0, 1, 2]] * 4))
    assert list(three.as_dict()) == ["ndcg@3", "recall@3", "mgu", "ild"]
    two = before_after(small, rows, lists([[0, 1]] * 4), lists([[0, 1]] * 4))
    assert list(two.as_dict()) == ["ndcg@2", "recall@2", "mgu", "ild"]


def test_the_reward_and_each_of_its_terms_go_first_and_are_named_once(small):
    rows = list(small.rows("test"))
    reward = parse_expression("2*recall@1 - 0.5*validity").bind(small.catalogue)
    before, after = lists([[3], [3], [3], [3]]), lists([[1], [2], [0], [3]])
    table = before_after(small, rows, before, after, ["recall@1", "mgu"], reward=reward)
    assert list(table.as_dict()) == ["2*recall@1 - 0.5*validity", "recall@1", "validity", "mgu"]
    change = table.as_dict()["2*recall@1 - 0.5*validity"]
    assert change["after"]["mean"] == pytest.approx(2 * (0.5 + 1 + 0) / 3 - 0.5)  # of the rows that have a target
    console = Console(record=True, width=160)
    console.print(table.render())
    lines = [line.split("│")[1].strip() if "│" in line else line[:2] for line in console.export_text().splitlines()]
    assert lines[lines.index("validity") + 1] == "├─"  # a rule ends what was aligned


def test_a_reward_that_looks_beyond_the_lists_is_measured_as_training_did(small):
    rows = list(small.rows("test"))
    reward = parse_expression("ndcg@10").bind(small.catalogue)
    table = before_after(small, rows, lists([[3]] * 4), lists([[1]] * 4), ["validity"], reward=reward)
    assert list(table.as_dict()) == ["ndcg@10", "validity"]


def test_the_table_shows_every_metric_with_its_interval(small):
    rows = list(small.rows("test"))
    table = before_after(small, rows, lists([[3], [3], [3], [3]]), lists([[1], [2], [0], [3]]), ["recall@1"])
    console = Console(record=True, width=160)
    console.print(table.render("Held-out [b]users", before="sft[1]", after="blade"))
    text = console.export_text()
    assert "recall@1" in text
    assert "0.5000 [" in text
    assert "blade" in text
    assert "sft[1]" in text and "Held-out [b]users" in text  # no markup


def test_figures_are_written_with_interval_sign_and_star():
    assert figure(Interval(0.5, 0.25, 0.75, 9)) == "0.5000 [0.2500, 0.7500]"
    assert signed(Interval(0.5, 0.25, 0.75, 9)) == "+0.5000 [+0.2500, +0.7500]*"
    assert signed(Interval(0.5, -0.25, 0.75, 9)) == "+0.5000 [-0.2500, +0.7500]"
    assert signed(Interval(-0.5, -0.75, -0.25, 9)).endswith("*")
    assert figure(Interval(None, None, None, 0)) == "-"
    assert (number(9.87654), number(12.3456)) == ("9.8765", "12.3")
    assert (p_text(0.0004), p_text(0.25)) == ("<0.001", "0.250")
