import json
import re

import pytest

from recalign import cli, workspace
from recalign.data.dataset import PreparedDataset


def run(*arguments):
    """Exit code of a command line."""
    with pytest.raises(SystemExit) as stop:
        cli.main(["prepare", *map(str, arguments)])
    return stop.value.code or 0


def test_the_bare_command_prepares_the_embedded_default_in_the_workspace(capsys):
    assert run() == 0
    assert PreparedDataset(workspace.home() / "data").info["options"]["source"] == "synthetic"
    assert re.search(r"users.*1,000", capsys.readouterr().out)
    assert run() == 0
    assert "nothing to do" in capsys.readouterr().err


def test_json_is_one_object_on_stdout(tmp_path, capsys):
    assert run("synthetic", "-p", "users=30", "--seed", "2", "--out", tmp_path / "d", "--json") == 0
    result = json.loads(capsys.readouterr().out)
    assert result["hash"] == PreparedDataset(tmp_path / "d").hash
    assert result["counts"]["users"] == 30


def test_options_reach_the_dataset(tmp_path):
    options = [
        "--task",
        "next",
        "--split",
        "leave-one-out",
        "--history",
        "6",
        "--k-core",
        "2",
        "--relevance",
        "rating>3",
    ]
    assert run("synthetic", "-p", "users=40", *options, "--identifier", "atomic", "--out", tmp_path / "d") == 0
    told = PreparedDataset(tmp_path / "d").info["options"]
    wanted = {"task": "next", "split": "leave-one-out", "history": 6, "k_core": 2, "relevance": "rating>3"}
    assert {**wanted, "identifier": "atomic", "targets": 1}.items() <= told.items()


def test_the_last_line_says_where_the_rows_are_and_how_many(tmp_path, capsys):
    assert run("synthetic", "-p", "users=50", "--out", tmp_path / "d") == 0
    sizes = {split: len(PreparedDataset(tmp_path / "d").rows(split)) for split in ("train", "valid", "test")}
    said = f"{tmp_path / 'd'}: {sizes['train']} train, {sizes['valid']} valid and {sizes['test']} test rows."
    assert capsys.readouterr().err.splitlines()[-1] == said
    assert run("synthetic", "-p", "users=50", "--out", tmp_path / "d") == 0
    assert "nothing to do" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["sinthetic"], "synthetic"),
        (["table"], "needs a path"),
        (["table", "nowhere.csv"], "nowhere.csv does not exist"),
        (["synthetic", "-p", "user=3"], "no parameter 'user'"),
        (["synthetic", "-p", "users=none"], "users = 'none'"),
        (["synthetic", "--relevance", "stars>=4"], "stars>=4"),
        (["synthetic", "--split", "diagonal"], "diagonal"),
        (["synthetic", "--targets", "30"], "0 users with at least 31 interactions"),
    ],
)
def test_bad_input_ends_with_exit_code_2_and_no_traceback(arguments, said, capsys):
    assert run(*arguments) == 2
    told = capsys.readouterr().err
    assert said in told and "Traceback" not in told
    assert not (workspace.home() / "data").exists()


def test_ctrl_c_ends_with_130_and_leaves_nothing(monkeypatch):
    from recalign.preparation import pipeline as module

    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "write_rows", interrupt)
    assert run() == 130
    assert list(workspace.home().iterdir()) == []
