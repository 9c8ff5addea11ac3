"""The command line: start-up cost, exit codes, errors for people and for scripts."""

import errno
import io
import json
import os
import subprocess
import sys
from typing import Annotated

import pytest
import typer

from recalign import __version__, cli, console
from recalign.errors import UserError

HEAVY = ("torch", "transformers", "polars", "datasets", "peft", "scipy", "matplotlib")
SUBCOMMANDS = [*cli.COMMANDS, "plugins", "plugins list", "plugins show", "plugins check", "plugins new"]


def imported_by(*arguments, **environment):
    """Run the command line in a new process; return the heavy modules that it imported, and what it printed."""
    program = (
        "import sys\nfrom recalign.cli import main\n"
        "try:\n    main(sys.argv[1:])\nexcept SystemExit as stop:\n    assert not stop.code, stop.code\n"
        f"import json\nsys.stderr.write(json.dumps([m for m in {HEAVY} if m in sys.modules]))"
    )
    command, environment = [sys.executable, "-c", program, *arguments], {**os.environ, **environment}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    return json.loads(done.stderr), done.stdout


@pytest.fixture
def command(monkeypatch):
    """Replace the `run` command's function by one of the test's, and call it through `main`."""

    def call(function, *arguments):
        app = typer.Typer()
        app.command(name="run")(cli.expose(function))
        app.callback()(lambda: None)
        monkeypatch.setattr(cli, "app", app)
        with pytest.raises(SystemExit) as stop:
            cli.main(["run", *arguments])
        return stop.value.code

    yield call
    console.configure()


@pytest.mark.parametrize("arguments", [["--help"], ["plugins", "list"], ["--version"]], ids=" ".join)
def test_start_up_imports_nothing_heavy(arguments):
    modules, text = imported_by(*arguments)
    assert modules == []
    assert text


@pytest.mark.parametrize("typed", ["recalign ", "recalign sft --", "recalign plugins "])
def test_completion_imports_nothing_heavy(typed):
    asked = {"_RECALIGN_COMPLETE": "complete_bash", "COMP_WORDS": typed, "COMP_CWORD": str(typed.count(" "))}
    modules, text = imported_by(**asked)
    assert modules == []
    assert text


def test_a_command_that_computes_is_seen_to_import_what_is_heavy():
    """The measure above measures: `--dry-run` looks the objectives up, which are torch's."""
    modules, _ = imported_by("run", "quickstart", "--dry-run")
    assert "torch" in modules


@pytest.mark.parametrize("subcommand", SUBCOMMANDS)
def test_every_help_imports_nothing_heavy_and_explains_every_option(subcommand):
    modules, text = imported_by(*subcommand.split(), "--help")
    assert modules == []
    assert "Usage:" in text


def test_help_groups_the_commands_in_panels_and_shows_examples():
    _, text = imported_by("--help")
    for heading in (*cli.PANELS, "Extend", "Examples"):
        assert heading in text
    for name in (*cli.COMMANDS, "plugins"):
        assert name in text


def test_version_is_the_packages():
    assert imported_by("--version")[1].strip() == __version__


def test_result_is_one_json_object_on_stdout(command, capsys):
    def run(json: bool = False, quiet: bool = False) -> dict:
        """Do."""
        console.say("working")
        console.show("a table")
        return {"loss": 0.5}

    assert command(run, "--json") == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out) == {"loss": 0.5}
    assert "working" in captured.err


def test_quiet_silences_all_but_errors(command, capsys):
    def run(quiet: bool = False) -> dict:
        """Do."""
        console.say("working")
        console.warn("odd")
        raise UserError("no such thing", "try another")

    assert command(run, "--quiet") == 2
    captured = capsys.readouterr()
    assert captured.err == "error: no such thing\ntry another\n"
    assert captured.out == ""


def test_a_users_error_exits_2_without_traceback_and_as_json_on_request(command, capsys):
    def run(json: bool = False) -> dict:
        """Do."""
        raise UserError("tau = '[x]' is refused", "write a number")

    assert command(run, "--json") == 2
    captured = capsys.readouterr()
    assert json.loads(captured.out) == {
        "schema": "error/1",
        "error": "tau = '[x]' is refused",
        "hint": "write a number",
    }
    assert "tau = '[x]' is refused" in captured.err
    assert "Traceback" not in captured.err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["align", "--max-steps", "abc"], "Invalid value for '--max-steps': Input should be a valid integer"),
        (["align", "--max-steps=abc"], "'abc'"),
        (["align", "--warmup", "2"], "Input should be less than or equal to 0.99: '2'."),
        (["decode", "--split", "tst"], "'tst' is not one of 'test', 'valid'."),
        (["prepare", "--list-length", "0"], "list-length = 0 is refused: input should be greater than or equal to 1."),
    ],
)
def test_a_value_of_the_wrong_type_is_shown(arguments, said, capsys, tmp_path):
    with pytest.raises(SystemExit) as stop:
        cli.main([*arguments, "--out", str(tmp_path / "out")])
    assert stop.value.code == 2
    told = capsys.readouterr().err
    assert said in told
    assert told.count(repr(arguments[-1].partition("=")[2] or arguments[-1])) <= 1


@pytest.mark.parametrize("arguments", [[], ["plugins"]], ids=str)
def test_without_a_command_there_is_help_and_no_error(arguments, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(arguments)
    captured = capsys.readouterr()
    assert stop.value.code in (0, 2)  # of Typer's versions
    assert "Usage:" in captured.out + captured.err
    assert "error" not in captured.err


def test_a_folder_that_may_not_be_written_is_the_users_to_mend(command, capsys):
    def run() -> dict:
        """Do."""
        raise PermissionError(errno.EACCES, "Permission denied", "/data/x")

    assert command(run) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("error: /data/x: Permission denied.\nCheck who may")


def test_going_on_and_starting_afresh_exclude_each_other(capsys, tmp_path):
    with pytest.raises(SystemExit) as stop:
        cli.main(["sft", "--resume", "--overwrite", "--out", str(tmp_path / "out")])
    assert stop.value.code == 2
    assert "--overwrite deletes what --resume would go on with." in capsys.readouterr().err


def test_a_reader_who_leaves_does_not_end_the_work():
    program = (
        "import sys\nfrom recalign import console\n"
        "sys.stdin.readline()\n"
        "for _ in range(3):\n    console.show('a table')\n"
        "console.write('{}')\nsys.stderr.write('all done')"
    )
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", program], **pipes) as process:
        process.stdout.close()
        _, told = process.communicate(b"now\n")
    assert (process.returncode, told) == (0, b"all done")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no device that is full")
def test_a_result_that_does_not_fit_on_the_disk_is_told(command, capsys, monkeypatch):
    def run(json: bool = False) -> dict:
        """Do."""
        return {"rows": 1}

    with open("/dev/full", "w") as full:
        monkeypatch.setattr(sys, "stdout", full)
        assert command(run, "--json") == 2
    assert "No space left" in capsys.readouterr().err


def test_closed_streams_are_no_fault():
    script = f'"{sys.executable}" -m recalign plugins list --json >&- 2>&-'
    assert subprocess.run(script, shell=True, check=False).returncode == 0  # noqa: S602 - our own words


def test_a_fault_of_ours_exits_1_with_traceback(command, capsys):
    def run(json: bool = False) -> dict:
        """Do."""
        return {"value": 1 / 0}

    assert command(run, "--json") == 1
    captured = capsys.readouterr()
    assert "ZeroDivisionError" in json.loads(captured.out)["error"]
    assert "Traceback" in captured.err


def test_ctrl_c_exits_130_and_says_how_to_go_on(command, capsys, monkeypatch):
    def run() -> dict:
        """Do."""
        raise KeyboardInterrupt

    assert command(run) == 130
    assert "The same command goes on" in capsys.readouterr().err  # `run` takes no --resume
    monkeypatch.setattr(cli, "app", lambda **_: run())
    with pytest.raises(SystemExit) as stop:
        cli.main(["sft"])
    assert stop.value.code == 130
    assert "--resume" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--sede", "1"], "--seed"),
        (["--seed", "x"], "Invalid value for '--seed'"),
        (["--seed", "-1"], "Invalid value for '--seed'"),
        (["--seed"], "--seed"),
        (["more"], "unexpected extra argument"),
    ],
)
def test_a_command_line_that_does_not_parse_exits_2_and_says_why(command, capsys, arguments, message):
    def run(seed: Annotated[int, typer.Option(min=0)] = 0, json: bool = False) -> dict:
        """Do."""
        return {}

    assert command(run, *arguments, "--json") == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert message in json.loads(captured.out)["error"]
    assert "run --help" in captured.err


def test_an_unknown_command_suggests_the_nearest(capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(["plugin"])
    assert stop.value.code == 2
    assert "plugins" in capsys.readouterr().err


def test_a_result_with_nan_is_a_fault_not_broken_json(command, capsys):
    def run(json: bool = False) -> dict:
        """Do."""
        return {"loss": float("nan")}

    assert command(run, "--json") == 1
    assert "error" in json.loads(capsys.readouterr().out)


def test_brackets_in_paths_are_no_markup(capsys):
    console.say("wrote runs/[bold]x[/]")
    console.warn("no [red]")
    captured = capsys.readouterr()
    assert captured.err == "wrote runs/[bold]x[/]\nwarning: no [red]\n"


def test_a_bar_leaves_one_line_where_stderr_is_no_terminal(capsys):
    with console.progress("rows", 2) as advance:
        advance()
        advance(1, "done")
    lines = [line for line in capsys.readouterr().err.splitlines() if line.strip()]
    assert len(lines) == 1
    assert "2/2" in lines[0]


def test_a_bar_in_a_narrow_terminal_keeps_its_figures_and_cuts_the_note(monkeypatch):
    from rich.console import Console

    out = io.StringIO()
    monkeypatch.setattr(console, "stderr", Console(file=out, width=80))
    with console.progress("list-dpo, reward ndcg@5", 3) as advance:
        advance(3, "loss 0.5022  reward 0.09078  valid reward 0.1543")
    line = next(line for line in out.getvalue().splitlines() if line.strip())
    assert "list-dpo, reward ndcg@5" in line and "3/3 0:00:0" in line and "loss 0.5022" in line
    assert line.rstrip().endswith("…")


def test_module_runs_like_the_script():
    done = subprocess.run(
        [sys.executable, "-m", "recalign", "--version"], capture_output=True, text=True, check=True, env={**os.environ}
    )
    assert done.stdout.strip() == __version__
