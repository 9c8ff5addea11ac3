import json

from recalign.comparison.evaluations import Evaluation
from recalign.comparison.trail import commands, predictions_of, read_log, trail_of
from recalign.runs.predictions import PREDICTIONS_FILE
from recalign.workspace import RunFolder, invoking

from .conftest import FAIR, GOOD, POOR


def test_an_evaluation_is_followed_back_to_the_training_that_it_rests_on(evaluated):
    start = RunFolder(evaluated.folder / "trail-sft")
    start.begin("sft", {"model": "builtin:tiny"}, {})
    start.finish({})
    run = evaluated("trail", GOOD, model_options={"model": str(start.path)})
    trail = trail_of(run)
    assert [step.command for step in trail.steps] == ["sft", "align", "decode", "eval"]
    assert trail.training[-1].folder == evaluated.folder / "trail"
    assert trail.predictions.options["decoder"] == "greedy"


def test_a_model_that_names_itself_ends_the_trail(evaluated):
    run = evaluated("circle", GOOD, model_options={"model": str(evaluated.folder / "circle")})
    assert [step.command for step in trail_of(run).training] == ["align"]


def test_predictions_that_were_made_again_are_not_those_that_were_evaluated(evaluated):
    run = evaluated("again", POOR)
    folder = predictions_of(run)
    assert folder == evaluated.folder / "again/decode-greedy-test"
    (folder / PREDICTIONS_FILE).write_bytes((predictions_of(evaluated("other", FAIR)) / PREDICTIONS_FILE).read_bytes())
    assert predictions_of(Evaluation.find(folder)) is None
    (folder / PREDICTIONS_FILE).unlink()
    assert predictions_of(Evaluation.find(folder)) is None


def test_broken_records_and_logs_leave_gaps_and_no_errors(evaluated):
    run = evaluated("broken", POOR)
    model = evaluated.folder / "broken"
    (model / "log.jsonl").write_text('{"step": 1, "loss": 2.0}\n[1]\nnonsense\n{"loss": 3.0}\n', "utf-8")
    assert read_log(trail_of(run).training[-1]) == [{"step": 1, "loss": 2.0}]
    (model / "run.json").write_text("{", "utf-8")
    assert trail_of(run).training == ()


def test_what_was_typed_is_recorded_and_told_once_in_the_order_of_the_runs(evaluated, monkeypatch):
    with (
        invoking(["decode", "--model", "runs/my model"]),
        invoking(["inner"]),
    ):  # a run that a command begins is its own
        one = evaluated("typed/one", POOR)
        two = evaluated("typed/two", GOOD)
    record = json.loads((one.folder / "run.json").read_text("utf-8"))
    assert record["invoked"]["arguments"] == ["decode", "--model", "runs/my model"]
    found = commands([trail_of(one), trail_of(two)])
    assert list(found.values()) == [["recalign decode --model 'runs/my model'"]]
    assert commands([trail_of(evaluated("typed/none", POOR))]) == {}
