"""A terminal for tests: a command runs behind a pseudo-terminal, and an emulator keeps what one would see."""

from __future__ import annotations

import os
import select
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest

PATIENCE = 120.0
"""Seconds after which a command is given up."""


class Terminal:
    """Runs `recalign ARGUMENTS` with stderr, and stdout unless it is redirected, on a pseudo-terminal.

    Args:
        arguments: of the command.
        columns: of the terminal.
        lines: of the terminal.
        stdout: a file in place of the terminal.
        environment: variables besides those of this process.
    """

    def __init__(
        self,
        arguments: Sequence[object],
        *,
        columns: int = 100,
        lines: int = 40,
        stdout: Path | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        pyte = pytest.importorskip("pyte")
        pty = pytest.importorskip("pty")
        self.screen = pyte.HistoryScreen(columns, lines, history=10_000)
        self.stream = pyte.ByteStream(self.screen)
        self.raw = b""
        self._own, theirs = pty.openpty()
        self.resize(columns, lines)
        inherited = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES", "NO_COLOR")}
        with open(stdout or os.devnull, "wb") as file:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "recalign", *map(str, arguments)],
                stdin=theirs,
                stdout=theirs if stdout is None else file,
                stderr=theirs,
                env={**inherited, "TERM": "xterm-256color", "OMP_NUM_THREADS": "1", **(environment or {})},
                start_new_session=True,
            )
        os.close(theirs)

    def resize(self, columns: int, lines: int) -> None:
        """Give the terminal another size, as somebody who drags the corner of its window does."""
        import fcntl
        import termios

        fcntl.ioctl(self._own, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        self.screen.resize(lines, columns)

    def until(self, seen: Callable[[str], object]) -> str:
        """Read on until something is to be seen on the screen, or the command ends; return the screen."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            if seen(self.text):
                return self.text
            if not self._read(1.0) and self.process.poll() is not None:
                break
        else:
            self.process.kill()
            raise AssertionError(f"nothing of the kind within {PATIENCE:g} s:\n{self.text}")
        raise AssertionError(f"the command ended (exit code {self.process.returncode}):\n{self.everything}")

    def end(self) -> int:
        """Read to the end; return the exit code."""
        deadline = time.monotonic() + PATIENCE
        while self._read(1.0) or self.process.poll() is None:
            if time.monotonic() > deadline:
                self.process.kill()
                raise AssertionError(f"the command does not end:\n{self.text}")
        os.close(self._own)
        return self.process.wait()

    def _read(self, seconds: float) -> bytes:
        if not select.select([self._own], [], [], seconds)[0]:
            return b""
        try:
            data = os.read(self._own, 65536)
        except OSError:  # the other end is closed
            return b""
        self.raw += data
        self.stream.feed(data)
        return data

    @property
    def text(self) -> str:
        """What is to be seen."""
        return "\n".join(line.rstrip() for line in self.screen.display)

    @property
    def everything(self) -> str:
        """What is to be seen, and what was scrolled away above it."""
        above = (
            "".join(line[column].data for column in range(self.screen.columns)) for line in self.screen.history.top
        )
        return "\n".join([*(line.rstrip() for line in above), self.text])
