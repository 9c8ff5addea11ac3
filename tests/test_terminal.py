"""Commands on a real terminal: the panel of a training, and how it leaves the terminal behind."""

import io
import json
import signal
import sys

import pytest

from recalign import console
from tests.fake_dataset import write_dataset
from tests.fake_distribution import install
from tests.terminal import Terminal

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there are no pseudo-terminals")

CHATTY = """
import sys, warnings
from recalign import console
from recalign.api import hookimpl
from recalign.objectives.sft import Sft

calls = 0

class Chatty(Sft):
    \"\"\"Says things in every way there is.\"\"\"

    name = "chatty"

    def loss(self, answers):
        global calls
        calls += 1
        if calls % 10 == 1:
            console.warn(f"WARNED {calls} of " + "a long line " * 12)
            print(f"PRINTED {calls}")
            print(f"ERRED {calls}", file=sys.stderr)
            warnings.warn(f"NOTED {calls}")
            print(f"BEGUN {calls}", end="")
        return super().loss(answers)

@hookimpl
def recalign_objective():
    return Chatty
"""


@pytest.fixture
def sft(tmp_path):
    """`sft(*arguments, ...)`: `recalign sft` of a tiny model, on a terminal."""
    write_dataset(tmp_path / "data")

    def run(*arguments, **terminal):
        usual = ["--data", tmp_path / "data", "--model", "builtin:tiny,hidden=16,heads=2", "--batch-size", 4]
        return Terminal(["sft", *usual, "--eval-every", 30, *arguments], **terminal)

    return run


def test_sft_shows_a_panel_in_which_nothing_is_lost_and_leaves_the_terminal_clean(sft, tmp_path):
    install(tmp_path / "site", "recalign-chatty", {"recalign.objectives": {"chatty": "chatty"}}, {"chatty": CHATTY})
    path = {"PYTHONPATH": f"{tmp_path / 'site'}", "PYTHONWARNINGS": "always"}
    terminal = sft("--max-steps", 30, "--objective", "chatty", environment=path, columns=90, lines=30)
    assert terminal.end() == 0, terminal.everything
    text = terminal.everything
    for word in ("WARNED", "PRINTED", "ERRED", "NOTED", "BEGUN"):
        assert [f"{word} {number}" in text for number in (1, 11, 21)] == [True] * 3, text
    assert "warning: WARNED 11 of a long line" in text
    assert text.count("╭─ sft (chatty) ") == text.count("╰─") == 1  # the last state stays, and nothing of those before
    for word in ("update 30 of 30", "100%", "valid loss", "best ", "rows/s", "a step:", "lists after update 30", "✓"):
        assert word in text
    after = "".join(text[text.index("╰") :].split())  # a long path breaks lines anywhere
    assert "Astep:" in after and "30updates,bestvalidationloss" in after
    assert "30/30" not in text  # no bar besides
    assert not terminal.screen.cursor.hidden


@pytest.mark.slow
def test_a_terminal_may_become_narrow_and_low_and_ctrl_c_leaves_it_clean(sft):
    terminal = sft("--max-steps", 100_000, columns=120, lines=40)
    terminal.until(lambda text: "lists after" in text)
    for columns, lines in ((44, 14), (20, 6), (90, 30)):
        terminal.resize(columns, lines)
        top = f"╭─ sft {'─' * (columns - 8)}╮"
        text = terminal.until(lambda text, top=top: top in text)
        assert max(map(len, text.splitlines())) <= columns
    terminal.process.send_signal(signal.SIGINT)
    assert terminal.end() == 130
    text = terminal.everything
    assert "stopping after this update, with a checkpoint" in text
    assert text.rstrip().endswith("What was saved is resumable with --resume.")
    assert not terminal.screen.cursor.hidden


@pytest.mark.slow
def test_a_second_signal_leaves_the_terminal_clean_too(sft):
    terminal = sft("--max-steps", 100_000)
    terminal.until(lambda text: "update " in text)
    terminal.process.send_signal(signal.SIGTERM)
    terminal.process.send_signal(signal.SIGTERM)
    assert terminal.end() == 130
    assert "Traceback" not in terminal.everything and "interrupted." in terminal.everything
    assert not terminal.screen.cursor.hidden


@pytest.mark.slow
def test_json_gets_the_bar_of_before_and_no_panel(sft, tmp_path):
    terminal = sft("--max-steps", 30, "--json", stdout=tmp_path / "stdout")
    assert terminal.end() == 0
    assert "╭─" not in terminal.everything and "30/30" in terminal.everything
    assert json.loads((tmp_path / "stdout").read_text())["updates"] == 30


class Stream(io.StringIO):
    def __init__(self, terminal):
        super().__init__()
        self.isatty = lambda: terminal


@pytest.mark.parametrize(
    ("terminal", "options", "term", "force", "panel"),
    [
        (True, {}, "xterm", "", True),
        (False, {}, "xterm", "", False),
        (False, {}, "xterm", "1", False),  # colours in a log of a CI are no terminal
        (True, {"json": True}, "xterm", "", False),
        (True, {"quiet": True}, "xterm", "", False),
        (True, {}, "dumb", "", False),
    ],
)
def test_where_a_panel_is_drawn(monkeypatch, terminal, options, term, force, panel):
    monkeypatch.setattr(sys, "stderr", Stream(terminal))
    monkeypatch.setenv("TERM", term)
    monkeypatch.setenv("FORCE_COLOR", force)
    if not force:
        monkeypatch.delenv("FORCE_COLOR")
    monkeypatch.setattr(console, "stderr", console._Console(stderr=True))
    monkeypatch.setattr(console, "stdout", console._Console())
    console.configure(**options)
    assert console.interactive() is panel


def test_of_several_processes_the_first_alone_draws(monkeypatch):
    monkeypatch.setattr(sys, "stderr", Stream(True))
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(console, "stderr", console._Console(stderr=True))
    monkeypatch.setenv("RANK", "1")
    console.configure()
    assert not console.interactive()
