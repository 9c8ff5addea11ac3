"""`recalign doctor`: what an issue report needs, and what is wrong."""

import json
import sys

import pytest
import torch

from recalign import __version__, cli
from recalign.commands.doctor import doctor
from tests.fake_distribution import REWARD, install


def test_it_tells_versions_devices_cores_memory_and_disk(tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(["doctor", "--json"])
    found = json.loads(capsys.readouterr().out)
    assert stop.value.code == 0
    assert (found["recalign"], found["python"]) == (__version__, sys.version.split()[0])
    assert found["packages"]["torch"].partition("+")[0] == torch.__version__.partition("+")[0]
    assert found["devices"][-1]["device"] == "cpu"
    assert 1 <= found["cores"]["free"] <= found["cores"]["usable"]
    assert 0 < found["memory_gb"]["available"] <= found["memory_gb"]["total"]
    assert found["workspace"] == {
        "path": str(tmp_path / "runs"),
        "exists": False,
        "free_gb": pytest.approx(found["workspace"]["free_gb"]),
        "writable": True,
        "problem": "",
    }
    assert found["plugins"]["packages"]["recalign"]["plugins"] > 50
    assert found["problems"] == []


def test_plugins_that_fail_are_named(tmp_path, monkeypatch, capsys):
    install(
        tmp_path,
        "fake-broken",
        {"recalign.metrics": {"broken": "fake_broken", "ndcg": "fake_second"}},
        {"fake_broken": "import nothing_of_that_name\n", "fake_second": REWARD},
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    found = doctor()
    told = {(each["name"], each["package"]) for each in found["plugins"]["problems"]}
    assert told == {("broken", "fake-broken"), ("ndcg", "fake-broken"), ("ndcg", "recalign")}
    assert any("nothing_of_that_name" in problem for problem in found["problems"])
    assert any("claimed by" in problem for problem in found["problems"])
    captured = capsys.readouterr()
    assert "fake-broken 1.2" in captured.out and "warning:" in captured.err


def test_a_workspace_that_cannot_be_written_is_a_problem(tmp_path, monkeypatch):
    def refuse(dir):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("recalign.commands.doctor.tempfile.TemporaryFile", refuse)
    found = doctor()
    assert found["workspace"]["writable"] is False
    assert f"The workspace {tmp_path / 'runs'} cannot be written: Permission denied." in found["problems"]
