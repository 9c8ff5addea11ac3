"""Running a recipe: what is done is skipped, what changed is made again, what was cut off goes on."""

import json
import os
from pathlib import Path

import psutil
import pytest

from recalign.errors import UserError
from recalign.workflow.plan import plan
from recalign.workflow.recipe import load_recipe
from recalign.workflow.scheduler import execute, survey
from recalign.workflow.signatures import signature_of
from recalign.workspace import RunFolder, write_json
from tests import fake_commands
from tests.fake_commands import calls, fail

RECIPE = """
[[step]]
name = "data"
command = "prepare"

[[step]]
name = "sft"
command = "sft"
data = "@data"
matrix.seed = [0, 1]

[[step]]
name = "align"
command = "align"
model = "@sft"

[[step]]
name = "all"
command = "compare"
runs = "@align"
"""
ROOT = Path("runs/x")


@pytest.fixture(autouse=True)
def fakes(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RECALIGN_HOME", raising=False)
    fake_commands.install(monkeypatch)
    Path("x.toml").write_text(RECIPE, "utf-8")
    yield
    signature_of.cache_clear()


def run(*overrides, **options):
    """Execute, and return the ids of the steps that were called."""
    calls.clear()
    execute(plan(load_recipe("x.toml", overrides), ROOT), ROOT, **options)
    return [out.removeprefix("x/") for _, out in calls]


def states(*overrides):
    return {name: status.state for name, status in survey(plan(load_recipe("x.toml", overrides), ROOT), ROOT).items()}


ALL = ["data", "sft/seed=0", "sft/seed=1", "align/seed=0", "align/seed=1", "all"]


def test_steps_run_in_order_and_a_second_run_does_nothing():
    assert set(states().values()) == {"new"}
    assert run() == ALL
    assert set(states().values()) == {"done"}
    assert run() == []


def test_a_survey_touches_nothing():
    states()
    assert not Path("runs").exists()


def test_a_changed_option_runs_its_step_and_what_is_downstream():
    run()
    assert states("sft.epochs=3") == {
        "data": "done",
        "sft/seed=0": "changed",
        "sft/seed=1": "changed",
        "align/seed=0": "changed",
        "align/seed=1": "changed",
        "all": "changed",
    }
    assert run("sft.epochs=3") == ALL[1:]
    assert RunFolder(ROOT / "sft/seed=0").record["options"]["epochs"] == 3.0


def test_the_reason_names_what_changed():
    run()
    reasons = survey(plan(load_recipe("x.toml", ["sft.epochs=3"]), ROOT), ROOT)
    assert reasons["sft/seed=0"].reason == "epochs: None -> 3"


def test_a_longer_sweep_runs_only_what_is_new():
    run()
    assert run("sft.matrix.seed=[0, 1, 2]") == ["sft/seed=2", "align/seed=2", "all"]


def test_what_was_deleted_is_made_again_and_so_is_what_read_it():
    run()
    for file in (ROOT / "sft/seed=1").iterdir():
        file.unlink()
    assert states()["align/seed=1"] == "waits"
    assert run() == ["sft/seed=1", "align/seed=1", "all"]


def test_a_step_that_was_run_by_hand_in_between_is_noticed_downstream():
    run()
    folder = RunFolder(ROOT / "sft/seed=0")
    folder.finish({"by": "hand"})
    assert run() == ["align/seed=0", "all"]


def test_another_run_by_hand_in_a_steps_folder_is_not_taken_for_the_steps():
    run()
    folder = RunFolder(ROOT / "sft/seed=0")
    folder.begin("sft", {"epochs": 9}, {}, overwrite=True)
    folder.finish({})
    assert states()["sft/seed=0"] == "unfinished"
    with pytest.raises(UserError, match=r"Step 'sft/seed=0': .* holds another run") as error:
        run()
    assert "--overwrite" not in error.value.hint  # `recalign run` takes none
    assert folder.record["options"] == {"epochs": 9}


@pytest.mark.parametrize("cut_off", [KeyboardInterrupt(), UserError("disk full"), RuntimeError("a fault")], ids=repr)
def test_a_run_that_was_cut_off_goes_on_where_it_was(cut_off):
    fail["seed=1"] = cut_off
    with pytest.raises(type(cut_off)):
        run()
    assert calls[-1] == ("sft", "x/sft/seed=1")
    assert states()["sft/seed=1"] == "unfinished"
    assert run() == ALL[2:]
    assert RunFolder(ROOT / "sft/seed=1").record["results"] == {"state": "resume"}


def test_an_unfinished_step_that_cannot_resume_starts_afresh():
    fail["data"] = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        run()
    assert run() == ALL
    assert RunFolder(ROOT / "data").record["results"] == {"state": "fresh"}


def test_a_finished_step_is_kept_when_the_ledger_is_lost():
    run()
    (ROOT / "recipe.json").unlink()
    assert run() == ALL
    assert all(RunFolder(ROOT / name).record["results"] == {"state": "fresh"} for name in ALL)


def test_a_users_error_names_the_step():
    fail["seed=0"] = UserError("too few rows", "take more")
    with pytest.raises(UserError, match="Step 'sft/seed=0': too few rows") as error:
        run()
    assert error.value.hint == "take more"
    assert [out for _, out in calls] == ["x/data", "x/sft/seed=0"]


def test_keep_going_runs_what_does_not_need_the_failure_and_still_fails():
    fail["seed=0"] = UserError("too few rows")
    with pytest.raises(UserError, match="1 steps failed: sft/seed=0"):
        run(keep_going=True)
    assert [out for _, out in calls] == ["x/data", "x/sft/seed=0", "x/sft/seed=1", "x/align/seed=1"]


def test_a_recipe_at_work_elsewhere_is_not_run_twice(monkeypatch):
    ROOT.mkdir(parents=True)
    other = psutil.Process(os.getppid())
    owner = {"pid": other.pid, "born": other.create_time()}
    write_json(ROOT / "recipe.lock", owner)
    with pytest.raises(UserError, match="is running a recipe"):
        run()
    write_json(ROOT / "recipe.lock", {**owner, "born": 0.0})  # of a process that is gone
    assert run() == ALL
    assert not (ROOT / "recipe.lock").exists()


def test_the_ledger_holds_the_seconds_of_every_step():
    run()
    ledger = json.loads((ROOT / "recipe.json").read_text())
    assert set(ledger) == set(ALL)
    assert all(record["seconds"] >= 0 for record in ledger.values())
