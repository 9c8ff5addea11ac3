"""Trackers: the figures of the log, tables of sample lists, and one run a training, grouped by recipe."""

import importlib
import json
import os
import sys

import pytest

from recalign import cli
from recalign.errors import UserError
from recalign.training.trackers import COLUMNS, TrackedRun, Tracking, markdown_table, table_row
from recalign.training.trainer import read_log
from recalign.training.training_options import TrainingOptions
from recalign.workspace import write_json
from tests.fake_dataset import write_dataset
from tests.fake_trackers import write_trackers
from tests.training.test_trainer import SignalAt, make_trainer

NAMES = ("wandb", "mlflow", "trackio")
RECIPE = """
[defaults.sft]
model = "builtin:tiny,hidden=16,heads=2"
batch-size = 8
max-steps = 4
log-every = 2
eval-every = 2
report-to = "wandb,mlflow,trackio"

[[step]]
name = "sft"
command = "sft"
data = "DATA"
matrix.seed = [0, 1]
"""


@pytest.fixture
def fakes(tmp_path, monkeypatch):
    """Stand-ins of the trackers, by name."""
    write_trackers(tmp_path / "site")
    monkeypatch.syspath_prepend(tmp_path / "site")
    for name in [name for name in sys.modules if name.partition(".")[0] in NAMES]:
        monkeypatch.delitem(sys.modules, name)
    yield {name: importlib.import_module(name) for name in NAMES}
    for name in [name for name in sys.modules if name.partition(".")[0] in NAMES]:
        del sys.modules[name]


def of_kind(module, kind):
    return [what for name, what in module.calls if name == kind]


def test_a_recipe_has_a_run_a_step_in_a_group_of_its_name(fakes, call, tmp_path):
    write_dataset(tmp_path / "data")
    (tmp_path / "seeds.toml").write_text(RECIPE.replace("DATA", str(tmp_path / "data")))
    environment = dict(os.environ)
    code, told = call("run", tmp_path / "seeds.toml")
    assert code == 0, told
    steps, wandb, mlflow, trackio = ["sft/seed=0", "sft/seed=1"], fakes["wandb"], fakes["mlflow"], fakes["trackio"]

    begun = of_kind(wandb, "init")
    assert [(each["name"].split()[0], each["WANDB_RUN_GROUP"]) for each in begun] == [(step, "seeds") for step in steps]
    assert len({each["WANDB_RUN_ID"] for each in begun}) == 2 == len(of_kind(wandb, "finish"))

    assert of_kind(mlflow, "experiment") == ["seeds", "seeds"]
    assert [name.split()[0] for name in of_kind(mlflow, "start")] == steps
    assert of_kind(mlflow, "tags") == [{"recipe": "seeds", "step": step} for step in steps]
    assert len(of_kind(mlflow, "end")) == 2

    begun = of_kind(trackio, "init")
    assert [each["project"] for each in begun] == ["seeds", "seeds"]
    assert [each["name"].split()[0] for each in begun] == steps and len(of_kind(trackio, "finish")) == 2
    assert dict(os.environ) == environment

    log = read_log(tmp_path / "runs" / "seeds" / "sft" / "seed=0")
    loss = {line["step"]: line["loss"] for line in log if "loss" in line}
    lines = of_kind(wandb, "log")
    assert {
        line["train/global_step"]: line["train/loss"] for line in lines[: len(lines) // 2] if "train/loss" in line
    } == (pytest.approx(loss))
    assert any("train/seconds_backward" in line for line in lines) and any("eval/metric" in line for line in lines)

    tables = [line["sample lists"] for line in lines if "sample lists" in line]
    assert [table.data[0][0] for table in tables] == [2, 4, 2, 4]  # the updates that were validated
    assert tables[0].columns == list(COLUMNS) and "1. " in tables[0].data[0][3]
    assert [table["update"][0] for table in of_kind(mlflow, "table")] == [2, 4, 2, 4]
    assert told.count("Trackio took no sample lists: no way to the server") == 2  # once a training, which goes on


def test_what_the_user_set_and_opened_stays(fakes, tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_PROJECT", "mine")
    monkeypatch.setenv("MLFLOW_TAGS", json.dumps({"who": "me", "step": "theirs"}))
    fakes["wandb"].init()
    fakes["mlflow"].start_run()
    options = TrainingOptions(max_steps=2, batch_size=8, report_to=("wandb", "mlflow"))
    make_trainer(tmp_path, "out", options).run()
    assert len(of_kind(fakes["wandb"], "init")) == 1 and fakes["wandb"].run is not None
    assert len(of_kind(fakes["mlflow"], "start")) == 1 and fakes["mlflow"].active_run() is not None
    assert of_kind(fakes["mlflow"], "tags") == [{"who": "me", "step": "theirs"}]
    assert os.environ["WANDB_PROJECT"] == "mine" and "WANDB_RUN_ID" not in os.environ


def test_an_interrupted_training_ends_its_runs(fakes, tmp_path):
    options = TrainingOptions(epochs=3, batch_size=8, report_to=NAMES)
    trainer = make_trainer(tmp_path, "out", options, fail_at=2)
    with pytest.raises(UserError, match="loss became"):
        trainer.run()
    assert fakes["wandb"].run is None and fakes["mlflow"].active_run() is None
    assert fakes["trackio"].context_vars.current_run.get() is None


def test_tags_that_are_no_json_are_refused_in_words(fakes, tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TAGS", "{who: me}")
    trainer = make_trainer(tmp_path, "out", TrainingOptions(max_steps=2, report_to=("mlflow",)))
    with pytest.raises(UserError, match="MLFLOW_TAGS"):
        trainer.run()


def events(folder):
    """The files of a folder as TensorBoard reads them."""
    pytest.importorskip("tensorboard", reason="tensorboard is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    return EventAccumulator(str(folder)).Reload()


def test_tensorboard_reads_back_the_figures_of_the_log_and_the_sample_lists(tmp_path):
    pytest.importorskip("tensorboard", reason="tensorboard is not installed")
    write_dataset(tmp_path / "data")
    usual = ["--data", str(tmp_path / "data"), "--model", "builtin:tiny,hidden=16,heads=2", "--batch-size", "8"]
    with pytest.raises(SystemExit) as stop:
        cli.main(
            ["sft", *usual, "--max-steps", "4", "--eval-every", "2", "--log-every", "1", "--report-to", "tensorboard"]
        )
    assert stop.value.code == 0
    log, read = read_log(tmp_path / "runs" / "sft"), events(tmp_path / "runs" / "sft" / "tensorboard")
    for name in ("loss", "seconds_forward", "rows_per_second"):
        assert {each.step: each.value for each in read.Scalars(f"train/{name}")} == (
            pytest.approx({line["step"]: line[name] for line in log if name in line}, rel=1e-5)
        )
    assert [each.step for each in read.Scalars("eval/metric")] == [2, 4]
    tables = read.Tensors("sample lists/text_summary")
    assert [each.step for each in tables] == [2, 4]
    text = tables[-1].tensor_proto.string_val[0].decode()
    assert text.startswith("| update | user | had, latest last | is recommended |")
    assert "| 4 | u0 |" in text and "<br>2. " in text


def test_what_an_interrupted_run_wrote_after_its_checkpoint_is_written_once(tmp_path):
    options = TrainingOptions(epochs=2, batch_size=8, log_every=1, report_to=("tensorboard",))
    pytest.importorskip("tensorboard", reason="tensorboard is not installed")
    trainer = make_trainer(tmp_path, "out", options)
    trainer.add_callback(SignalAt(4))
    with pytest.raises(KeyboardInterrupt):
        trainer.run()
    make_trainer(tmp_path, "out", options).run(resume=True)
    steps = [each.step for each in events(tmp_path / "out" / "tensorboard").Scalars("train/loss")]
    assert steps == sorted(set(steps)) and steps[-1] == trainer.state.max_steps


def test_a_folder_that_several_runs_share_has_one_for_each(tmp_path, monkeypatch):
    pytest.importorskip("tensorboard", reason="tensorboard is not installed")
    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", str(tmp_path / "board"))
    make_trainer(tmp_path, "out", TrainingOptions(max_steps=1, report_to=("tensorboard",))).run()
    assert [file.parent.name for file in (tmp_path / "board").rglob("events*")] == ["out"]


def test_a_training_is_known_by_its_step_or_folder_and_a_stage_by_its_place(tmp_path):
    run = tmp_path / "align"
    stage = run / "rounds" / "2" / "preferences"
    stage.mkdir(parents=True)
    record = {"command": "align", "options": {}, "inputs": {}, "status": "running", "started": 5.0}
    write_json(run / "run.json", record)
    plain = TrackedRun.of(run)
    assert (plain.name, plain.group, plain.project) == ("align", "", "recalign")
    assert TrackedRun.of(stage).name == "align/rounds/2/preferences"
    assert len({TrackedRun.of(run).key, TrackedRun.of(run).key, TrackedRun.of(stage).key}) == 2
    write_json(run / "run.json", {**record, "started": 6.0, "claim": {"recipe": "r", "step": "align/seed=1"}})
    step = TrackedRun.of(run)
    assert (step.name, step.group, step.project) == ("align/seed=1", "r", "r")
    assert step.key != plain.key
    assert step.called(["wandb"]) == "align/seed=1" and step.called(["trackio"]) == f"align/seed=1 {step.key[:6]}"


def test_trackers_without_tables_get_none():
    assert Tracking(["comet_ml"], None, []).trackers == []


def test_a_table_row_by_hand_and_as_markdown():
    sample = {
        "user_id": "u|1",
        "history": ["A", "B"],
        "recommended": [{"rank": 1, "title": "C <b>", "hit": True}, {"rank": 2, "title": None, "hit": False}],
        "missed": [],
    }
    row = table_row(sample, 7)
    assert row == [7, "u|1", "A\nB", "1. C <b> (hit)\n2. (no item)", ""]
    assert markdown_table([row]).splitlines()[2] == "| 7 | u\\|1 | A<br>B | 1. C &lt;b&gt; (hit)<br>2. (no item) |  |"
