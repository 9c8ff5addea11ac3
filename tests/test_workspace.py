"""Run folders and writing: nothing half-written, nothing overwritten unasked."""

import errno
import json
import os
import subprocess
import sys

import psutil
import pytest

from recalign.errors import UserError
from recalign.reading import read_json
from recalign.workspace import (
    RunFolder,
    at_work,
    atomic,
    content_hash,
    file_hash,
    home,
    this_process,
    write_json,
)


def test_home_is_runs_unless_the_environment_names_another(monkeypatch, tmp_path):
    monkeypatch.delenv("RECALIGN_HOME", raising=False)
    assert str(home()) == "runs"
    monkeypatch.setenv("RECALIGN_HOME", str(tmp_path))
    assert home() == tmp_path


def test_a_failed_write_leaves_what_was_there(tmp_path):
    file = tmp_path / "a.txt"
    file.write_text("old")
    with pytest.raises(ZeroDivisionError), atomic(file) as temporary:
        temporary.write_text("half")
        raise ZeroDivisionError
    assert file.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_a_full_disk_is_a_user_error_and_leaves_what_was_there(tmp_path):
    file = tmp_path / "a.txt"
    file.write_text("old")
    with pytest.raises(UserError, match="No space left"), atomic(file) as temporary:
        temporary.write_text("half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert file.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_a_folder_is_replaced_as_a_whole(tmp_path):
    folder = tmp_path / "model"
    for name in ("one", "two"):
        with atomic(folder) as temporary:
            temporary.mkdir()
            (temporary / name).write_text(name)
    assert os.listdir(folder) == ["two"]
    assert os.listdir(tmp_path) == ["model"]


def test_what_a_killed_process_left_half_written_is_removed(tmp_path):
    (tmp_path / ".data.999999999.tmp").mkdir()
    (tmp_path / ".data.999999999.tmp" / "half").write_text("x")
    (tmp_path / f".data.{os.getppid()}.tmp").write_text("of a process at work")
    (tmp_path / ".other.999999999.tmp").write_text("of another file")
    for file in tmp_path.iterdir():
        os.utime(file, (0, 0))
    (tmp_path / ".data.999999998.tmp").write_text("perhaps of another machine")
    with atomic(tmp_path / "data") as temporary:
        temporary.write_text("whole")
    kept = {f".data.{os.getppid()}.tmp", ".data.999999998.tmp", ".other.999999999.tmp", "data"}
    assert set(os.listdir(tmp_path)) == kept


@pytest.mark.parametrize(
    ("code", "advice"), [(errno.ENOSPC, "Free some space"), (errno.EROFS, "who may"), (errno.ENAMETOOLONG, "name")]
)
def test_what_the_system_refuses_comes_with_advice(tmp_path, code, advice):
    with pytest.raises(UserError) as error, atomic(tmp_path / "a"):
        raise OSError(code, os.strerror(code))
    assert os.strerror(code) in error.value.what
    assert advice in error.value.hint


def test_json_refuses_nan_and_says_what_is_unreadable(tmp_path):
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "a.json", {"loss": float("nan")})
    assert os.listdir(tmp_path) == []
    (tmp_path / "b.json").write_text('{"half": ')
    with pytest.raises(UserError, match="not readable JSON"):
        read_json(tmp_path / "b.json")
    with pytest.raises(UserError, match="does not exist"):
        read_json(tmp_path / "c.json")


def test_content_hash_ignores_the_order_of_keys():
    assert content_hash({"a": 1, "b": 2}) == content_hash({"b": 2, "a": 1}) != content_hash({"a": 1, "b": 3})


def test_file_hash_sees_no_hidden_files(tmp_path):
    (tmp_path / "a").write_text("x")
    first = file_hash(tmp_path)
    (tmp_path / ".cache").mkdir()
    (tmp_path / ".cache" / "b").write_text("y")
    assert file_hash(tmp_path) == first


def test_file_hash_follows_content_and_names_but_not_time(tmp_path):
    (tmp_path / "a").write_text("x")
    first = file_hash(tmp_path)
    os.utime(tmp_path / "a", (0, 0))
    assert file_hash(tmp_path) == first
    (tmp_path / "a").write_text("y")
    changed = file_hash(tmp_path)
    (tmp_path / "a").rename(tmp_path / "b")
    assert len({first, changed, file_hash(tmp_path), file_hash(tmp_path / "b")}) == 4


class TestRunFolder:
    def test_a_fresh_run_is_recorded_and_closed(self, tmp_path):
        run = RunFolder(tmp_path / "sft")
        assert run.begin("sft", {"seed": 0}, {"data": "abc"}) == "fresh"
        assert json.loads((run.path / "run.json").read_text())["status"] == "running"
        run.finish({"loss": 0.5})
        assert run.done
        assert run.record["results"] == {"loss": 0.5}

    def test_the_same_request_again_is_done(self, tmp_path):
        run = RunFolder(tmp_path / "sft")
        run.begin("sft", {"seed": 0}, {})
        run.finish({})
        assert run.begin("sft", {"seed": 0}, {}) == "done"

    def test_another_request_is_refused_and_says_what_differs(self, tmp_path):
        run = RunFolder(tmp_path / "sft")
        run.begin("sft", {"seed": 0}, {})
        run.finish({})
        with pytest.raises(UserError, match="seed: 0 -> 1"):
            run.begin("sft", {"seed": 1}, {})
        with pytest.raises(UserError, match="its inputs changed"):
            run.begin("sft", {"seed": 0}, {"data": "new"})
        assert run.done

    def test_what_differs_is_said_inside_tables_too_and_another_command_by_its_name(self, tmp_path):
        run = RunFolder(tmp_path / "align")
        run.begin("align", {"params": {"tau": 0.3, "beta": 1}}, {})
        run.finish({})
        with pytest.raises(UserError, match=r"\(align; params.tau: 0.3 -> 0.5\)"):
            run.begin("align", {"params": {"tau": 0.5, "beta": 1}}, {})
        with pytest.raises(UserError, match=r"\(align; not of sft\)"):
            run.begin("sft", {"epochs": 1}, {})

    def test_an_unfinished_run_goes_on_only_when_asked(self, tmp_path):
        run = RunFolder(tmp_path / "sft")
        run.begin("sft", {"seed": 0}, {})
        (run.path / "checkpoint").write_text("x")
        run.interrupt()
        with pytest.raises(UserError, match="unfinished") as error:
            run.begin("sft", {"seed": 0}, {})
        assert "--resume" in error.value.hint
        assert run.begin("sft", {"seed": 0}, {}, resume=True) == "resume"
        assert (run.path / "checkpoint").exists()

    def test_an_unfinished_run_that_saved_nothing_gives_way(self, tmp_path):
        run = RunFolder(tmp_path / "align")
        run.begin("align", {"group_size": 70}, {})
        (run.path / "checkpoints").mkdir()
        (run.path / "log.jsonl").touch()
        assert run.begin("align", {"group_size": 8}, {}) == "fresh"
        assert os.listdir(run.path) == ["run.json"]

    def test_two_processes_do_not_work_in_one_folder(self, tmp_path):
        run = RunFolder(tmp_path / "sft")
        begin = f"from recalign.workspace import RunFolder; RunFolder({str(run.path)!r}).begin('sft', {{}}, {{}})"
        code = f"{begin}; print('begun', flush=True); input()"
        with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
            assert other.stdout.readline() == b"begun\n"
            (run.path / "checkpoint").write_text("x")
            for how in ({}, {"resume": True}, {"overwrite": True}):
                with pytest.raises(UserError, match=f"Process {other.pid} is at work in .*recalign sft"):
                    run.begin("sft", {}, {}, **how)
            other.kill()
        assert run.begin("sft", {}, {}, resume=True) == "resume"

    def test_a_later_process_of_the_same_number_is_another_one(self):
        me = this_process()
        assert not at_work(me)  # nobody disturbs himself
        parent = psutil.Process().parent()
        assert at_work({"pid": parent.pid, "born": parent.create_time()})
        assert not at_work({"pid": parent.pid, "born": parent.create_time() - 60})
        assert not at_work({})

    def test_overwrite_spares_runs_of_other_commands_and_what_it_reads(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        run = RunFolder(tmp_path / "sft")
        run.begin("sft", {}, {})
        (run.path / "model").mkdir()
        run.finish({})
        with pytest.raises(UserError, match="not of decode") as error:
            run.begin("decode", {}, {}, overwrite=True)
        assert "--overwrite" not in error.value.hint
        for start in ("sft", str(run.path / "model")):
            with pytest.raises(UserError, match="would delete"):
                run.begin("sft", {"training": {"model": start}, "metric": ""}, {}, overwrite=True)
        assert run.done
        assert run.begin("sft", {"model": "builtin:tiny", "metric": ""}, {}, overwrite=True) == "fresh"

    def test_overwrite_deletes_what_a_run_left(self, tmp_path):
        run = RunFolder(tmp_path / "sft")
        run.begin("sft", {"seed": 0}, {})
        (run.path / "checkpoint").write_text("x")
        assert run.begin("sft", {"seed": 1}, {}, overwrite=True) == "fresh"
        assert os.listdir(run.path) == ["run.json"]

    def test_a_broken_record_says_what_to_do_and_to_delete_nothing(self, tmp_path):
        (tmp_path / "run.json").write_text("")
        with pytest.raises(UserError, match="not readable JSON") as error:
            RunFolder(tmp_path).begin("sft", {}, {}, overwrite=True)
        assert error.value.hint == f"Restore it, or move {tmp_path} away; what made it can then run again."

    def test_a_folder_of_something_else_is_never_touched(self, tmp_path):
        (tmp_path / "thesis.tex").write_text("x")
        with pytest.raises(UserError, match="is no run of recalign"):
            RunFolder(tmp_path).begin("sft", {}, {}, overwrite=True)
        assert os.listdir(tmp_path) == ["thesis.tex"]
