"""SIGTERM is answered like Ctrl-C: exit code 130, no half files, what can be resumed is said."""

import os
import signal
import subprocess
import sys
import time

import pytest

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there are no such signals")


def test_sigterm_interrupts_any_command_and_leaves_its_handler_as_it_was(call, tmp_path, monkeypatch):
    def terminated(*_, **__):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(5)  # the handler comes first

    before = signal.getsignal(signal.SIGTERM)
    with monkeypatch.context() as patch:
        patch.setattr("recalign.preparation.pipeline.write_rows", terminated)
        code, told = call("prepare", "synthetic", "-p", "users=50", "--out", tmp_path / "out")
    assert (code, "interrupted." in told) == (130, True)
    assert not (tmp_path / "out").exists()
    assert [path for path in tmp_path.iterdir() if path.name != "runs"] == []
    assert signal.getsignal(signal.SIGTERM) is before


def test_sigterm_to_a_command_of_its_own_process(tmp_path):
    program = "from recalign.cli import main; main()"
    given = ["prepare", "synthetic", "-p", "users=200000", "--out", str(tmp_path / "out")]
    process = subprocess.Popen([sys.executable, "-c", program, *given], stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not list(tmp_path.glob(".out.*.tmp")) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    told = process.communicate(timeout=120)[1]
    assert process.returncode == 130, told[-2000:]
    assert "Traceback" not in told
    assert list(tmp_path.iterdir()) == []
