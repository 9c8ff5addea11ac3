"""Transfer by hand: two models, trained on one dataset each, measured on both."""

import json

import numpy as np
import pytest

from recalign.api import Predictions
from recalign.commands.compare import compare
from recalign.commands.eval import eval as evaluate
from recalign.errors import UserError
from recalign.runs.lineage import KEY, of_model
from recalign.runs.predictions import write_predictions
from recalign.workspace import RunFolder
from tests.evaluation.prepared import write_decoded, write_small

GOOD, POOR, FAIR = [[1], [2], [5], [0]], [[3]] * 4, [[1], [3], [5], [0]]


def decoded_on(model, dataset, lists):
    """A decode run of a model on another dataset."""
    run = RunFolder(model / f"decode-greedy-test-on-{dataset.path.name}")
    facts = {KEY: of_model(str(model), data=str(dataset.path), split="test", size=1).as_dict()}
    run.begin("decode", {"model": str(model), "decoder": "greedy"}, {"data": dataset.hash}, facts=facts)
    items = np.array(lists)
    predictions = Predictions(items, np.zeros(items.shape), np.full(len(items), 1))
    write_predictions(run.path, predictions, list(dataset.rows("test")), dataset.catalogue)
    run.finish({"oracle": False, "cost": {}})
    return run.path


@pytest.fixture
def runs(tmp_path):
    """Model a is good at home and fair abroad, model b good at home and poor abroad; three rows have targets."""
    music, games = (write_small(tmp_path / name, digest=name, users=name) for name in ("music", "games"))
    folders = [
        write_decoded(tmp_path / "a" / "sft", music, GOOD),
        decoded_on(tmp_path / "a" / "sft", games, FAIR),
        write_decoded(tmp_path / "b" / "sft", games, GOOD),
        decoded_on(tmp_path / "b" / "sft", music, POOR),
    ]
    for folder in folders:
        evaluate(folder, metrics="hit@1", baselines=False)
    return folders


def test_every_model_is_held_against_the_one_that_was_trained_there(runs, tmp_path, capsys):
    results = compare(runs, transfer=True)
    (table,) = results["transfer"]
    assert (table["trained"], table["measured"]) == (("music", "games"), ("music", "games"))
    cells = {(cell["trained"], cell["measured"]): cell for cell in table["cells"]}
    assert {place: cell["mean"]["mean"] for place, cell in cells.items()} == {
        ("music", "music"): 1,
        ("games", "games"): 1,
        ("music", "games"): pytest.approx(2 / 3),
        ("games", "music"): 0,
    }
    assert {place for place, cell in cells.items() if cell["home"]} == {("music", "music"), ("games", "games")}
    away, far = cells["music", "games"]["test"], cells["games", "music"]["test"]
    assert (away["difference"]["mean"], away["losses"], away["ties"]) == (pytest.approx(-1 / 3), 1, 2)
    assert (far["difference"]["mean"], far["losses"], far["tie_share"]) == (-1, 3, 0)
    # p: one difference 1.0, three of one sign 0.25; Holm over both: 0.5 and 1.0
    assert (away["p"], far["p"]) == (1.0, pytest.approx(0.25))
    assert cells["games", "music"]["p_holm"] == pytest.approx(0.5)
    assert "measured on (columns)" in capsys.readouterr().out
    folder = tmp_path / "runs" / "transfer"
    assert len(json.loads((folder / "transfer.json").read_text())[0]["cells"]) == 4
    assert "| music | **1.0000" in (folder / "transfer.md").read_text()
    assert (folder / "figures" / "transfer-hit@1.svg").is_file() and (folder / "transfer.tex").is_file()
    assert compare(runs, transfer=True) == json.loads(json.dumps(results))


def test_a_model_that_was_not_measured_somewhere_has_no_cell_and_no_test_without_a_home(runs):
    results = compare([runs[0], runs[1]], transfer=True)
    (table,) = results["transfer"]
    assert [(cell["measured"], cell["test"]) for cell in table["cells"]] == [("music", None), ("games", None)]
    three = compare(runs[:3], transfer=True, overwrite=True)
    assert len(three["transfer"][0]["cells"]) == 3


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"reference": "sft"}, "--transfer takes no --reference"),
        ({"analyses": "all"}, "--transfer takes no --analyses"),
        ({"metrics": "ndcg@1"}, "No run has the metric 'ndcg@1'"),
    ],
)
def test_what_does_not_fit_is_told(runs, options, said):
    with pytest.raises(UserError, match=said):
        compare(runs, transfer=True, **options)


def test_one_dataset_is_no_transfer(runs):
    with pytest.raises(UserError, match="all 1 runs are measured on"):
        compare(runs[:1], transfer=True)
