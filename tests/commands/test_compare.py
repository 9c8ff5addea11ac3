import json

import pytest

from recalign.cli import main
from recalign.commands.compare import compare
from recalign.commands.eval import eval as evaluate
from recalign.errors import UserError
from tests.evaluation.prepared import write_decoded, write_small

POOR, GOOD = [[3, 4]] * 4, [[1, 2], [2, 5], [5, 0], [0, 1]]


@pytest.fixture
def runs(tmp_path):
    """Two seeds of sft and of blade, evaluated."""
    data = write_small(tmp_path / "data")
    folders = {}
    for name, lists in (("sft", POOR), ("blade", GOOD)):
        for seed in (0, 1):
            folder = write_decoded(tmp_path / f"s{seed}" / name, data, lists, seed=seed)
            evaluate(folder, metrics="ndcg@2,recall@2", baselines=False)
            folders[name, seed] = tmp_path / f"s{seed}" / name
    return folders


def test_seeds_form_one_row_each(runs, tmp_path):
    results = compare(list(runs.values()))
    assert [system["name"] for system in results["systems"]] == ["sft", "blade"]
    assert results["reference"] == "sft"
    assert results["systems"][1]["against_reference"]["recall@2"]["difference"]["mean"] == 1.0
    assert [run["seed"] for run in results["systems"][0]["runs"]] == [0, 1]
    folder = tmp_path / "runs" / "compare"
    saved = json.loads((folder / "table.json").read_text())
    assert saved["systems"] == json.loads(json.dumps(results["systems"]))
    assert (folder / "report.html").is_file()


def test_named_groups(runs):
    names = [f"base={runs['sft', 0]},{runs['sft', 1]}", f"ours={runs['blade', 0]}/decode-greedy-test"]
    results = compare(group=names, reference="ours", metrics="recall@2")
    assert [system["name"] for system in results["systems"]] == ["base", "ours"]
    assert results["systems"][0]["against_reference"]["recall@2"]["difference"]["mean"] == -1.0
    assert results["metrics"] == ["recall@2"]


def test_the_same_comparison_again_is_up_to_date_and_another_gets_a_folder_of_its_own(runs, tmp_path):
    first = compare(list(runs.values()))
    assert compare(list(runs.values())) == json.loads(json.dumps(first))
    other = compare([runs["sft", 0]])
    assert other["out"].startswith(str(tmp_path / "runs" / "compare-"))
    assert compare([runs["sft", 0]])["out"] == other["out"]
    assert len(json.loads((tmp_path / "runs" / "compare" / "table.json").read_text())["systems"]) == 2


def test_a_folder_that_is_named_is_made_again_without_being_asked_to(runs, tmp_path):
    compare(list(runs.values()), out=tmp_path / "mine")
    assert len(compare([runs["sft", 0]], out=tmp_path / "mine")["systems"]) == 1
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="notes.txt"):
        compare([runs["sft", 1]], out=tmp_path / "mine")
    assert (tmp_path / "mine" / "notes.txt").read_text() == "mine"


def test_a_comparison_of_evaluations_that_changed_is_made_again_in_its_place(runs):
    first = compare([runs["sft", 0], runs["blade", 0]])
    evaluate(runs["sft", 0] / "decode-greedy-test", metrics="ndcg@2,recall@2,mrr", baselines=False, overwrite=True)
    again = compare([runs["sft", 0], runs["blade", 0]])
    assert again["out"] == first["out"]
    assert set(again["metrics"]) - set(first["metrics"]) == {"mrr"}


def test_corpus_level_metrics_can_be_named(runs):
    results = compare(list(runs.values()), metrics="coverage,recall@2")
    assert results["metrics"] == ["recall@2"]
    assert [list(system["corpus"]) for system in results["systems"]] == [["coverage"], ["coverage"]]
    assert results["systems"][0]["corpus"]["coverage"] == pytest.approx(2 / 6)
    only = compare(list(runs.values()), metrics="gini")
    assert list(only["systems"][0]["corpus"]) == ["gini"]
    with pytest.raises(UserError, match="No run has the metric 'coverag'") as error:
        compare(list(runs.values()), metrics="coverag")
    assert "'coverage'" in error.value.hint


def test_of_several_evaluations_the_one_that_has_the_metrics_is_taken(runs):
    for run in (runs["sft", 0], runs["blade", 0]):
        other = evaluate(run, metrics="hit@1", baselines=False)
        assert "eval-" in other["out"]
    results = compare([runs["sft", 0], runs["blade", 0]], metrics="hit@1")
    assert results["metrics"] == ["hit@1"]
    assert set(compare([runs["sft", 0], runs["blade", 0]])["metrics"]) == {"ndcg@2", "recall@2"}


def test_tables_go_to_stdout(runs, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["compare", *map(str, runs.values())])
    assert stop.value.code in (0, None)
    shown = capsys.readouterr().out
    assert "difference to sft" in shown
    assert "users better/worse" in shown


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "Nothing to compare"),
        ({"group": ["sft"]}, "not of the form name=run1,run2"),
        ({"group": ["sft="]}, "not of the form name=run1,run2"),
    ],
)
def test_groups_that_cannot_be_read_are_refused(options, message):
    with pytest.raises(UserError, match=message):
        compare(**options)


def test_a_run_or_name_given_twice_is_refused(runs):
    one = runs["sft", 0]
    with pytest.raises(UserError, match="is named twice"):
        compare(group=[f"a={one}", f"b={one}/decode-greedy-test"])
    with pytest.raises(UserError, match="--group a is given twice"):
        compare(group=[f"a={one}", f"a={runs['sft', 1]}"])
    with pytest.raises(UserError, match="name of a --group and of a run"):
        compare([one], group=[f"sft={runs['sft', 1]}"])


def test_a_refused_comparison_leaves_nothing_behind(runs, tmp_path):
    with pytest.raises(UserError, match="no system 'nobody'"):
        compare(list(runs.values()), reference="nobody")
    assert not (tmp_path / "runs" / "compare").exists()
