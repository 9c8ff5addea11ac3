"""The workflow of docs/automation.md: its steps run as they stand, and the gate closes where it should."""

import re
import shlex
from pathlib import Path

import pytest
import yaml

from recalign import cli, console

DOCS = Path(__file__).parent.parent / "docs"
STEPS = yaml.safe_load((DOCS / "examples" / "recalign-gate.yml").read_text("utf-8"))["jobs"]["gate"]["steps"]
LINES = [line for step in STEPS for line in step.get("run", "").splitlines() if line.startswith("recalign ")]


def outcome(line):
    with pytest.raises(SystemExit) as stop:
        cli.main(shlex.split(line)[1:])
    console.configure()
    return stop.value.code or 0


@pytest.mark.slow
def test_the_steps_run_and_the_gate_closes_where_it_should(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RECALIGN_HOME", "runs")
    assert len(LINES) == 9
    assert [outcome(line) for line in LINES] == [0] * len(LINES)
    assert (tmp_path / "runs" / "compare" / "report.html").is_file()
    gate = re.sub("reference - 0.5, interval", "reference + 2", LINES[-1])
    capsys.readouterr()
    assert outcome(gate) == 3
    assert "--fail-if ndcg@5 < reference + 2" in capsys.readouterr().err


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_is_there(shell, monkeypatch, capsys):
    monkeypatch.setenv("_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION", "1")
    with pytest.raises(SystemExit) as stop:
        cli.main(["--show-completion", shell])
    assert (stop.value.code or 0) == 0
    assert "recalign" in capsys.readouterr().out.lower()
