import sys

import pytest
from rich.console import Console

from recalign.commands.eval import eval as evaluate
from recalign.comparison.evaluations import Evaluation
from recalign.comparison.report import Grid, grids, main_metrics, to_latex, to_markdown, to_rich
from recalign.comparison.systems import compare
from tests.evaluation.prepared import write_decoded, write_small
from tests.fake_distribution import install


@pytest.fixture(scope="module")
def comparison(tmp_path_factory):
    tmp_path = tmp_path_factory.mktemp("report")
    data = write_small(tmp_path / "data")
    groups, good = {}, [[1, 2], [2, 5], [5, 0], [0, 1]]
    for name, lists in (("sft_a", [[3, 4]] * 4), ("bon & <b>", good), ("blade", good)):
        folder = write_decoded(tmp_path / name[:3], data, lists, oracle=name.startswith("bon"))
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("RECALIGN_HOME", str(tmp_path / "runs"))
            evaluate(folder, metrics="ndcg@2,recall@2,validity")
        groups[name] = [Evaluation.find(folder)]
    return compare(groups)


def test_grids_hold_means_differences_and_cost(comparison):
    means, ndcg, recall, cost = grids(comparison)
    assert means.headings == ("system", "runs", "ndcg@2", "recall@2", "validity", "coverage", "gini")
    assert means.rows[1][:4] == ("bon & <b> (oracle)", "1", "1.0000", "1.0000")
    assert means.rows[3][:2] == ("popularity", "-")
    assert means.rows[0][5] == "0.3333"
    assert {column for _, column in means.bold} == {2, 3, 5, 6}  # validity is the same for all
    assert not any(row == 1 for row, _ in means.bold)  # an oracle is no winner
    assert ndcg.rows[0][2] == "reference"
    assert ndcg.rows[1][2].startswith("+1.0000 [+1.0000")
    assert recall.rows[1][5] == "3/0"
    assert cost.rows[0] == ("sft_a", "2.0", "12.0", "2.0", "60.0")
    assert len(cost.rows) == 3


def test_markdown_has_a_row_for_every_system(comparison):
    text = to_markdown(comparison)
    assert "| bon &amp; &lt;b&gt; (oracle) | 1 | 1.0000 |" in text
    assert "| blade | 1 | **1.0000** |" in text
    assert "| item-kNN |" in text
    assert "| users better/worse |" in text


def test_latex_is_escaped(comparison):
    text = to_latex(comparison)
    assert "sft\\_a & 1 &" in text
    assert "bon \\& \\textless{}b\\textgreater{} (oracle) & 1 & 1.0000" in text
    assert "blade & 1 & \\textbf{1.0000}" in text
    assert text.count("\\begin{tabular}") == text.count("\\end{tabular}") == 4
    assert all(
        line.endswith("\\\\") for line in text.splitlines() if " & " in line and not line.startswith(("%", "\\c"))
    )


def test_rich_tables_have_all_rows(comparison):
    for grid in grids(comparison):
        assert to_rich(grid).row_count == len(grid.rows)  # none of them is wide


def test_a_wide_table_is_turned_on_the_console():
    headings = ("system", *(f"m{column}" for column in range(12)))
    rows = (("a", *"abcdefghijkl"), ("b", *"ABCDEFGHIJKL"))
    grid = Grid("t", headings, rows, frozenset({(1, 2)}))
    table = to_rich(grid)
    assert [str(column.header) for column in table.columns] == ["system", "a", "b"]
    assert table.row_count == 12
    turned = grid.turned()
    assert turned.rows[1] == ("m1", "b", "B")
    assert turned.bold == {(1, 2)}
    assert turned.turned() == grid


def test_names_with_brackets_are_shown_as_they_are(capsys):
    console = Console(width=80)
    console.print(to_rich(Grid("t [b]", ("system", "sft[1] [b]"), (("ndcg", "0.1"),))))
    text = capsys.readouterr().out
    assert "t [b]" in text and "sft[1] [b]" in text


def test_main_metrics_are_ndcg_and_recall_or_hits_at_five_and_ten():
    assert main_metrics(["ndcg@3", "ndcg@5", "ndcg@10", "recall@3", "mgu"]) == ["ndcg@5", "ndcg@10", "recall@3"]
    assert main_metrics(["hit@5", "ndcg@5", "recall@5"]) == ["ndcg@5", "recall@5"]
    assert main_metrics(["hit@3", "hit@10", "pr@10", "mrr"]) == ["hit@10", "pr@10"]
    assert main_metrics(["mgu", "ild"]) == ["mgu", "ild"]


HARM = '''"""distance: a made-up metric of harm."""
from recalign.api import Metric, hookimpl


class Distance(Metric):
    """The first item's number: the smaller, the better."""

    higher_is_better = False

    def score_one(self, items, row):
        return float(items[0])


@hookimpl
def recalign_metric():
    return Distance
'''


@pytest.mark.parametrize(
    ("declared", "wins", "users"), [("False", "4/0", "better/worse"), ("None", "0/4", "higher/lower")]
)
def test_better_and_worse_follow_what_a_third_partys_metric_declares(tmp_path, monkeypatch, declared, wins, users):
    source = HARM.replace("higher_is_better = False", f"higher_is_better = {declared}")
    install(tmp_path, "fake-harm", {"recalign.metrics": {"distance": f"fake_harm_{declared}"}}, {})
    (tmp_path / f"fake_harm_{declared}.py").write_text(source, "utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    dataset = write_small(tmp_path / "data")
    groups = {}
    for name, lists in {"far": [[4, 0]] * 4, "near": [[1, 0]] * 4}.items():
        folder = write_decoded(tmp_path / name, dataset, lists)
        evaluate(folder, metrics="distance", baselines=False)
        groups[name] = [Evaluation.find(folder)]
    means, distance = grids(compare(groups))[:2]
    assert (distance.headings[-2], distance.rows[1][-2]) == (f"users {users}", wins)
    assert ((1, 2) in means.bold, (0, 2) in means.bold) == (declared == "False", False)
    monkeypatch.delitem(sys.modules, f"fake_harm_{declared}")
