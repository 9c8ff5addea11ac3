"""`recalign run`: plans, summaries, embedded recipes, several steps at a time."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from recalign import cli, console
from recalign.removal import check_run
from recalign.workflow.recipe import embedded_recipes
from recalign.workflow.signatures import signature_of
from recalign.workspace import RunFolder, write_json
from tests import fake_commands

FAKE = """
title = "Two seeds"

[[step]]
name = "data"
command = "prepare"

[[step]]
name = "sft"
command = "sft"
data = "@data"
matrix.seed = [0, 1]
"""

REAL = """
[[step]]
name = "data"
command = "prepare"
source = "synthetic"
params = { users = 40, items = 30 }
matrix.seed = [0, 1, 2]
"""


@pytest.fixture
def call(monkeypatch, tmp_path, capsys):
    """Call `recalign run x.toml ARGUMENTS --json`; return exit code, parsed stdout and stderr."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RECALIGN_HOME", raising=False)

    def run(*arguments, recipe="x.toml"):
        with pytest.raises(SystemExit) as stop:
            cli.main(["run", recipe, *arguments, "--json"])
        captured = capsys.readouterr()
        return stop.value.code, json.loads(captured.out), captured.err

    yield run
    console.configure()


@pytest.fixture
def fakes(monkeypatch, tmp_path):
    fake_commands.install(monkeypatch)
    (tmp_path / "x.toml").write_text(FAKE, "utf-8")
    yield
    signature_of.cache_clear()


def test_dry_run_prints_the_plan_and_runs_nothing(call, fakes):
    code, plan, _ = call("--dry-run")
    assert code == 0
    assert [(step["id"], step["state"]) for step in plan["steps"]] == [
        ("data", "new"),
        ("sft/seed=0", "new"),
        ("sft/seed=1", "new"),
    ]
    assert plan["steps"][1]["arguments"] == "--data runs/x/data --seed 0 --out runs/x/sft/seed=0".split()
    assert not Path("runs").exists()
    assert fake_commands.calls == []


def test_the_plan_for_people_shows_commands_that_can_be_typed(fakes, monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RECALIGN_HOME", raising=False)
    with pytest.raises(SystemExit):
        cli.main(["run", "x.toml", "--dry-run"])
    text = capsys.readouterr().out
    assert "Two seeds: 3 steps, 0 done, 3 to do" in text
    assert "recalign sft --data runs/x/data --seed 0 --out runs/x/sft/seed=0" in text


def test_a_run_reports_every_steps_results_and_seconds(call, fakes):
    code, report, log = call()
    assert code == 0
    assert [(step["id"], step["state"]) for step in report["steps"]] == [
        ("data", "ran"),
        ("sft/seed=0", "ran"),
        ("sft/seed=1", "ran"),
    ]
    assert all(step["results"] == {"state": "fresh"} and step["seconds"] >= 0 for step in report["steps"])
    assert "[2/3] sft/seed=0" in log
    assert {step["state"] for step in call()[1]["steps"]} == {"done"}


def test_the_summary_says_where_the_time_went(fakes, monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RECALIGN_HOME", raising=False)
    with pytest.raises(SystemExit):
        cli.main(["run", "x.toml"])
    text = capsys.readouterr().out
    assert "share" in text
    assert "runs/x/sft" in text


def test_only_runs_a_step_and_what_it_needs(call, fakes):
    _, report, _ = call("--only", "sft/seed=1")
    assert [step["id"] for step in report["steps"]] == ["data", "sft/seed=1"]
    code, error, _ = call("--only", "stf")
    assert code == 2
    assert "'sft'" in error["hint"]


def test_out_names_the_folder(call, fakes):
    assert call("--out", "elsewhere/runs/y")[1]["out"] == "elsewhere/runs/y"
    assert RunFolder(Path("elsewhere/runs/y/data")).done


def test_ctrl_c_exits_130_and_the_next_run_goes_on(call, fakes):
    fake_commands.fail["seed=0"] = KeyboardInterrupt()
    code, error, _ = call()
    assert code == 130
    assert "error" in error
    assert call()[0] == 0
    assert RunFolder(Path("runs/x/sft/seed=0")).record["results"] == {"state": "resume"}


@pytest.mark.parametrize("recipe", embedded_recipes())
def test_every_embedded_recipe_is_sound(call, recipe):
    code, plan, log = call("--dry-run", recipe=recipe)
    assert code == 0, log
    assert plan["steps"][-1]["command"] == "compare"
    assert all(step["state"] == "new" for step in plan["steps"])


def test_an_unknown_recipe_lists_the_embedded_ones(call):
    code, error, _ = call(recipe="quikstart")
    assert code == 2
    assert "'quickstart'" in error["hint"]


def test_several_jobs_run_in_processes_of_their_own_and_leave_logs(call, tmp_path):
    (tmp_path / "x.toml").write_text(REAL, "utf-8")
    code, report, log = call("--jobs", "2")
    assert code == 0, log
    assert {step["state"] for step in report["steps"]} == {"ran"}
    assert sorted(path.name for path in Path("runs/x/logs").iterdir()) == [f"data.seed={seed}.log" for seed in range(3)]
    assert call("--jobs", "2")[1]["steps"][0]["state"] == "done"


def test_steps_in_processes_of_their_own_claim_their_folders_too(call, tmp_path):
    (tmp_path / "x.toml").write_text(REAL, "utf-8")
    for users in (40, 50):
        code, report, log = call("--jobs", "2", "--set", f"data.params.users={users}")
        assert code == 0, log
        assert {step["state"] for step in report["steps"]} == {"ran"}
    ledger = json.loads(Path("runs/x/recipe.json").read_text("utf-8"))
    for step, record in ledger.items():
        assert RunFolder(Path("runs/x") / step).record["claim"] == record["claim"]
    Path("runs/x/data/seed=1/notes.txt").write_text("mine")
    code, error, _ = call("--jobs", "2", "--set", "data.params.users=60")
    assert code == 2
    assert "Step 'data/seed=1'" in error["error"] and "notes.txt" in error["error"]
    code, error, _ = call("--jobs", "2", "--keep-going", "--set", "data.params.users=60")
    assert code == 2
    assert "1 steps failed: data/seed=1" in error["error"] and "notes.txt" in error["error"]
    assert RunFolder(Path("runs/x/data/seed=2")).record["options"]["params"]["users"] == 60
    assert Path("runs/x/data/seed=1/notes.txt").read_text() == "mine"


CHAIN = """
[[step]]
name = "data"
command = "prepare"
source = "synthetic"
params = { users = 60, items = 40 }

[[step]]
name = "sft"
command = "sft"
data = "@data"
epochs = 1

[[step]]
name = "align"
command = "align"
data = "@data"
model = "@sft"
objective = "grpo"
reward = "ndcg"
steps = 2
valid-rows = 8
report = false

[[step]]
name = "export"
command = "export"
model = "@align"

[[step]]
name = "popular"
command = "baseline"
recommender = "popularity"
data = "@data"

[[step]]
name = "decode"
command = "decode"
data = "@data"
model = "@align"
limit = 8

[[step]]
name = "eval"
command = "eval"
predictions = "@decode"
data = "@data"

[[step]]
name = "compare"
command = "compare"
runs = "@eval"
"""


@pytest.mark.slow
def test_every_command_accounts_for_all_that_it_writes_so_that_its_folder_can_be_made_again(call, tmp_path):
    (tmp_path / "x.toml").write_text(CHAIN, "utf-8")
    code, report, log = call()
    assert code == 0, log
    for step in report["steps"]:
        folder = Path(step["out"])
        record = RunFolder(folder).record
        check_run(folder, record, claim=record["claim"], within=Path("runs/x"))
        # as if it had been killed before it could list its files
        unfinished = {key: value for key, value in record.items() if key != "files"}
        write_json(folder / "run.json", unfinished)
        check_run(folder, unfinished, claim=record["claim"], within=Path("runs/x"))
        write_json(folder / "run.json", record)
    assert {step["state"] for step in call()[1]["steps"]} == {"done"}
    code, report, log = call("--set", "data.seed=1")
    assert code == 0, log
    assert {step["state"] for step in report["steps"]} == {"ran"}


def test_a_failure_in_a_process_names_the_step(call, tmp_path):
    (tmp_path / "x.toml").write_text(REAL.replace("items = 30 }", "items = 30 }\nk-core = 1000"), "utf-8")
    code, error, _ = call("--jobs", "2")
    assert code == 2
    assert "Step 'data/seed=" in error["error"]


def test_interrupting_several_jobs_stops_them_all(tmp_path):
    large = REAL.replace("users = 40, items = 30", "users = 3000, items = 300")
    (tmp_path / "x.toml").write_text(large, "utf-8")
    # What a background shell starts has SIGINT ignored; this run shall hear it all the same.
    code = "import signal as s; s.signal(s.SIGINT, s.default_int_handler); from recalign.cli import main; main()"
    command = [sys.executable, "-c", code, "run", "x.toml", "--jobs", "2"]
    running = subprocess.Popen(
        command,
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    while not (tmp_path / "runs/x/logs").exists() and running.poll() is None:
        time.sleep(0.05)
    running.send_signal(signal.SIGINT)
    assert running.wait() == 130
    assert not (tmp_path / "runs/x/recipe.lock").exists()


@pytest.mark.parametrize("stated", ['separator = "\\t", ', ""])
def test_parameters_of_blank_characters_survive_in_a_recipe(call, tmp_path, stated):
    """Stated in TOML, or set to a tab character on the command line."""
    (tmp_path / "log.dat").write_text("".join(f"{n // 5}\t{n * 7 % 11}\t{n}\n" for n in range(100)))
    columns = 'columns = "user_id,item_id,timestamp"'
    (tmp_path / "x.toml").write_text(
        '[[step]]\nname = "data"\ncommand = "prepare"\nsource = "table"\npath = "log.dat"\nsplit = "leave-one-out"\n'
        f"params = {{ {stated}{columns} }}\n"
    )
    code, _, told = call("--out", "runs", *([] if stated else ["--set", "data.params.separator=\t"]))
    assert code == 0, told
    counts = json.loads((tmp_path / "runs/data/dataset.json").read_text())["counts"]
    assert [(each["records"], each["read"]) for each in counts["files"]] == [(100, 100)]
