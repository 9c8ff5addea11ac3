"""Fixtures for all tests: a workspace of one's own, real data where it is there, a small prepared dataset."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from recalign import cli, console

ROOT = Path(__file__).resolve().parent.parent

settings.register_profile("untimed", deadline=None)  # how long an example takes is the machine's affair
settings.load_profile("untimed")


@pytest.fixture(autouse=True)
def _own_workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test writes into the runs of the folder that it is started from."""
    monkeypatch.setenv("RECALIGN_HOME", str(tmp_path / "runs"))


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No test unpacks models into its user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RECALIGN_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(autouse=True)
def _a_console_that_speaks() -> None:
    """A test that ran a command with --quiet or --json leaves no silence behind."""
    console.configure()


@pytest.fixture(scope="session")
def shared_data() -> Callable[[str], Path]:
    """`shared_data("ml-100k")`: a folder of real data beside the checkout; the test is skipped where it is missing."""

    def find(name: str) -> Path:
        folder = ROOT.parent / "shared" / "data" / name
        if not folder.is_dir():
            pytest.skip(f"real data is not here: {folder}")
        return folder

    return find


@pytest.fixture
def call(capsys):
    """`call(command, *arguments)`: exit code and what stderr said; there never is a traceback."""

    def run(*arguments):
        with pytest.raises(SystemExit) as stop:
            cli.main([str(argument) for argument in arguments])
        told = " ".join(capsys.readouterr().err.split())
        assert "Traceback" not in told
        return stop.value.code or 0, told

    return run


@pytest.fixture
def said(monkeypatch):
    """What users are told of models that share no prompts."""
    from recalign.decoding import compatibility

    lines: list[str] = []
    compatibility._tell_once.cache_clear()
    monkeypatch.setattr(compatibility.console, "warn", lines.append)
    return lines
