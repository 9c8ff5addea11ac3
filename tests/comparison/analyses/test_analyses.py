"""Analyses of evaluated runs: eval and compare, against figures by hand."""

import json

import polars as pl
import pytest

from recalign.cli import main
from recalign.commands.compare import compare
from recalign.commands.eval import eval as evaluate
from recalign.errors import UserError
from recalign.evaluation.significance import holm

A, B = {0, 1, 2}, {0, 2, 3, 6}
FIVE = [3, 4, 5, 6]


def cells(results, analysis, metric="ndcg@1"):
    """Part -> system -> what it reaches."""
    found = next(
        each for each in results["analyses"]["groups"] if (each["analysis"], each["metric"]) == (analysis, metric)
    )
    return found, {part["label"]: {cell["system"]: cell for cell in part["systems"]} for part in found["parts"]}


def varied(results, name, system="a", metric="ndcg@1"):
    wanted = (name, system, metric)
    every = results["analyses"]["variations"]
    return next(each for each in every if (each["variation"], each["system"], each["metric"]) == wanted)


@pytest.fixture
def runs(decoded):
    folders = [decoded("a", A), decoded("b", B)]
    for folder in folders:
        evaluate(folder, metrics="ndcg@1", baselines=False)
    return folders


def test_systems_are_held_against_each_other_in_every_part(runs):
    results = compare(runs, analyses="cold-groups,history")
    told, groups = cells(results, "cold-groups")
    assert (told["reference"], told["left_out"]) == ("a", 0)
    assert [(part["label"], part["rows"], part["users"]) for part in told["parts"]] == [
        ("0", 2, 2),
        ("1 to 5", 4, 4),
        ("more than 5", 2, 2),
    ]
    assert [groups[label]["a"]["mean"]["mean"] for label in groups] == [0, 1 / 4, 1]
    assert [groups[label]["b"]["mean"]["mean"] for label in groups] == [1 / 2, 2 / 4, 1 / 2]
    tests = [groups[label]["b"]["test"] for label in groups]
    assert [test["difference"]["mean"] for test in tests] == [1 / 2, 1 / 4, -1 / 2]
    assert [(test["wins"], test["losses"], test["ties"]) for test in tests] == [(1, 0, 1), (1, 0, 3), (0, 1, 1)]
    assert [test["tie_share"] for test in tests] == [1 / 2, 3 / 4, 1 / 2]
    assert groups["0"]["a"]["test"] is None
    _, lengths = cells(results, "history")
    assert {label: cell["b"]["mean"]["mean"] for label, cell in lengths.items()} == {
        "1": 1 / 2,
        "2": 0,
        "3 to 4": 1,
        "5 to 8": 0,
        "9": 1,
    }


def test_quarters_against_a_baseline_and_the_correction_runs_over_all_parts(decoded, tmp_path):
    for name, hits in (("sasrec", set()), ("ours", set(range(8))), ("other", {0, 1, 6, 7})):
        evaluate(decoded(name, hits), metrics="ndcg@1", recommenders="popularity")
    results = compare([tmp_path / name for name in ("sasrec", "ours", "other")], analyses="cold-quartiles")
    told, quarters = cells(results, "cold-quartiles")
    assert list(quarters) == ["quarter 1: 0", "quarter 2: 1", "quarter 3: 3", "quarter 4: 7"]
    assert [quarters[each]["ours"]["test"]["difference"]["mean"] for each in quarters] == [1, 1, 1, 1]
    assert [quarters[each]["other"]["test"]["difference"]["mean"] for each in quarters] == [1, 0, 0, 1]
    models = [cell for part in told["parts"] for cell in part["systems"] if cell["test"] and not cell["baseline"]]
    assert len(models) == 8 and [cell["p_holm"] for cell in models] == holm([cell["test"]["p"] for cell in models])
    assert {cell["system"] for part in told["parts"] for cell in part["systems"] if cell["baseline"]} == {"popularity"}


def test_the_report_has_tables_and_figures_of_the_analyses(runs, tmp_path, capsys):
    compare(runs, analyses="all", out=tmp_path / "c")
    assert "Rows by the length of their history" in capsys.readouterr().out
    page = (tmp_path / "c" / "report.html").read_text()
    assert 'id="analyses"' in page and page.count("Rows by the length of their history") >= 2
    assert "| 3 to 4 | 2 | a |" in (tmp_path / "c" / "table.md").read_text()
    assert "Rows by the length" in (tmp_path / "c" / "table.tex").read_text()
    assert len(json.loads((tmp_path / "c" / "table.json").read_text())["analyses"]["groups"]) == 3
    names = {file.name for file in (tmp_path / "c" / "figures").iterdir()}
    assert {f"{name}-ndcg@1.svg" for name in ("cold-quartiles", "cold-groups", "history")} <= names
    compare(runs, out=tmp_path / "without")
    assert 'id="analyses"' not in (tmp_path / "without" / "report.html").read_text()


def test_one_evaluation_is_analysed_beside_its_baselines(decoded, capsys):
    folder = decoded("a", A)
    evaluate(folder, metrics="ndcg@1", analyses="cold-groups")
    assert "more than 5" in capsys.readouterr().out
    with pytest.raises(SystemExit) as stop:  # it is up to date, and tells the same
        main(["eval", str(folder), "--metrics", "ndcg@1", "--analyses", "cold-groups", "--json"])
    assert stop.value.code in (0, None)
    told = capsys.readouterr()
    results = json.loads(told.out)
    _, groups = cells(results, "cold-groups")
    assert groups["1 to 5"]["a"]["mean"]["mean"] == 1 / 4 and groups["1 to 5"]["a"]["test"] is None
    assert groups["more than 5"]["popularity"]["test"]["difference"]["n"] == 2
    assert json.loads((folder / "eval" / "analyses.json").read_text()) == results["analyses"]
    assert (folder / "eval" / "figures" / "cold-groups-ndcg@1.svg").is_file()
    assert evaluate(folder, metrics="ndcg@1", analyses="history")["out"] != results["out"]


def test_permutations_spread_around_the_order_as_it_is(decoded):
    """Means 2/8 and 4/8; four rows of eight differ between the two, by 1: deviation sqrt(1/2)."""
    rows = list(range(8))
    orders = {("order", 1): ({0, 1}, set(), rows), ("order", 2): ({0, 2, 3, 4}, {1}, rows)}
    results = evaluate(decoded("a", A, orders), metrics="ndcg@1", baselines=False)
    told = varied(results, "order")
    assert (told["rows"], told["as_it_is"]["mean"]) == (8, 3 / 8)
    assert told["spread"] == {
        "mean": pytest.approx(3 / 8),
        "deviation": pytest.approx((2 * (1 / 8) ** 2) ** 0.5),
        "low": 2 / 8,
        "high": 4 / 8,
        "row_deviation": pytest.approx(4 / 8 * 0.5**0.5),
    }
    first, second = told["values"]
    assert (first["value"], first["mean"]["mean"], first["test"]["difference"]["mean"]) == (1, 2 / 8, -1 / 8)
    assert (first["moved"], second["moved"]) == (1 / 8, 3 / 8)  # row 2; rows 1, 3 and 4
    assert (second["test"]["wins"], second["test"]["losses"], second["test"]["ties"]) == (2, 1, 5)
    # ranks of the second: 1 in four rows, 2 in one, none in three
    assert second["ranks"] == {"quartiles": (1.0, 1.0, None), "listed": 5 / 8}
    assert results["variations"] == {"order": [1, 2]}


def test_a_length_is_held_against_the_same_rows_as_they_are(decoded, capsys):
    """Rows 3 to 6 were answered again; as they are none of them is a hit."""
    lengths = {("length", 1): ({3}, set(), FIVE), ("length", 4): (set(), {5}, FIVE)}
    results = evaluate(decoded("a", A, lengths), metrics="ndcg@2,recall@2", baselines=False)
    told = varied(results, "length", metric="recall@2")
    assert (told["rows"], told["as_it_is"]["mean"]) == (4, 0)
    assert [each["mean"]["mean"] for each in told["values"]] == [1 / 4, 1 / 4]
    assert [each["ranks"]["listed"] for each in told["values"]] == [1 / 4, 1 / 4]
    assert [each["test"]["tie_share"] for each in told["values"]] == [3 / 4, 3 / 4]
    assert varied(results, "length", metric="ndcg@2")["values"][1]["mean"]["mean"] == pytest.approx(0.6309297 / 4)
    assert "Length of the history, controlled" in capsys.readouterr().out


def test_varied_rows_of_several_runs_are_averaged_and_systems_stand_beside_each_other(decoded, tmp_path):
    rows = list(range(8))
    for seed, hits in ((0, {0, 1}), (1, {0, 1, 2, 3})):
        orders = {("order", 1): (hits, set(), rows)}
        evaluate(decoded(f"s{seed}/a", A, orders, seed=seed), metrics="ndcg@1", baselines=False)
    evaluate(decoded("b", B, {("order", 1): (B, set(), rows)}), metrics="ndcg@1", baselines=False)
    results = compare([tmp_path / "s0/a", tmp_path / "s1/a", tmp_path / "b"], out=tmp_path / "c")
    told = varied(results, "order")
    assert told["values"][0]["mean"]["mean"] == (2 / 8 + 4 / 8) / 2
    assert (told["spread"]["deviation"], told["spread"]["row_deviation"]) == (None, None)
    other = varied(results, "order", system="b")
    assert (other["values"][0]["moved"], other["values"][0]["test"]["tie_share"]) == (0, 1)
    assert "| b | 8 | 1 |" in (tmp_path / "c" / "table.md").read_text()
    assert (tmp_path / "c" / "figures" / "order-ndcg@1.svg").is_file()


def test_varied_rows_beyond_the_measured_ones_are_left_out(decoded, tmp_path):
    """Row 0 has a warm target: of these three rows two are measured."""
    orders = {("place", 1): ({6}, set(), [0, 6, 7])}
    results = evaluate(decoded("a", A, orders), metrics="ndcg@1", baselines=False, targets="cold")
    assert varied(results, "place")["rows"] == 2
    frame = pl.read_parquet(tmp_path / "a" / "decode-greedy-test" / "eval-cold" / "variations.parquet")
    assert frame["row"].to_list() == [6, 7]


def test_an_evaluation_of_other_varied_rows_is_made_again(decoded):
    folder = decoded("a", A, {("order", 1): (A, set(), FIVE)})
    assert varied(evaluate(folder, metrics="ndcg@1", baselines=False), "order")["rows"] == 4
    (folder / "variations" / "order-1" / "predictions.parquet").unlink()
    assert "analyses" not in evaluate(folder, metrics="ndcg@1", baselines=False)


def test_an_analysis_without_its_dataset_is_refused(runs, data, tmp_path):
    moved = data.path.rename(data.path.parent / "elsewhere")
    try:
        with pytest.raises(UserError, match=r"The analysis 'cold-groups' reads the dataset .* is gone"):
            compare(runs, analyses="cold-groups", out=tmp_path / "c")
    finally:
        moved.rename(data.path)
    assert not (tmp_path / "c").exists()
