"""What users see: everything for people goes to stderr; stdout carries results (or one JSON object with --json)."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import IO, Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.live import Live
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.segment import Segment
from rich.table import Column
from rich.text import Text

from recalign.errors import shortened

BAR, WIDE = 40, 120
"""Columns of a progress bar, and of a terminal that has room for it beside the figures."""
FILE_WIDTH = 160
"""Columns of a table that goes into a file or a pipe, where there is no terminal to measure."""


class _Note(ProgressColumn):
    """The figures behind a progress bar: what is cut first where a line is too long."""

    def render(self, task: Task) -> Text:
        return Text(task.fields["note"], no_wrap=True, overflow="ellipsis")


class _Console(Console):
    """A console whose reader may leave (`| head`): what is still to be said goes nowhere, and the work goes on.

    Texts cannot steer the terminal: a title or a path with control characters shows them spelt out.
    """

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Render as rich does, with the control characters of texts spelt out; rich's own stay."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(printable(segment.text), segment.style)

    def on_broken_pipe(self) -> None:
        """Called by rich; its own way is to end the process."""
        _forget(self.file)


_UNPRINTABLE = {code: f"\\x{code:02x}" for code in (*range(9), *range(11, 32), *range(127, 160))}
_UNPRINTABLE |= {code: f"\\u{code:04x}" for code in (*range(0x202A, 0x202F), *range(0x2066, 0x206A))}
"""Characters that move a terminal's cursor, change its colours or turn its text round, and how they are shown."""
_MARKDOWN = str.maketrans({c: f"\\{c}" for c in "\\`*[]|"} | {"<": "&lt;", ">": "&gt;", "&": "&amp;"})
LONGEST_LABEL = 200
"""Characters of a label in a table."""
REFRESHES = 2
"""How often a second a panel is drawn."""
_results: IO[str] | None = None  # where results go while what plugins print goes to stderr


def printable(text: str) -> str:
    """Return a text with its control characters spelt out, but for line breaks and tabs."""
    return text.translate(_UNPRINTABLE)


def markdown(text: str) -> str:
    """Return a text with what Markdown would read as its own spelt out."""
    return text.translate(_MARKDOWN)


def label(text: str) -> str:
    """Return a text as one printable line that is not too long: what tables of every format call something."""
    return shortened(printable(" ".join(text.split())), LONGEST_LABEL)


@contextlib.contextmanager
def results_apart(apart: bool) -> Iterator[None]:
    """Keep stdout for results: what anything else prints meanwhile, such as a plugin at import, goes to stderr.

    Args:
        apart: whether to do so at all.
    """
    global _results  # noqa: PLW0603
    _results = sys.stdout
    try:
        with contextlib.redirect_stdout(sys.stderr) if apart else contextlib.nullcontext():
            yield
    finally:
        _results = None


def _forget(stream: IO[str]) -> None:
    """Send what is written to a stream from now on, and what is pending, nowhere."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _width(stream: IO[str] | None) -> int | None:
    terminal = stream is not None and stream.isatty()
    return None if terminal or "COLUMNS" in os.environ else FILE_WIDTH


stderr = _Console(stderr=True, highlight=False, width=_width(sys.stderr))
stdout = _Console(highlight=False, width=_width(sys.stdout))


def configure(*, json: bool = False, quiet: bool = False) -> None:
    """Set what is shown: --quiet silences stderr but for errors; --json keeps stdout for the one object.

    Of several training processes the first alone speaks.
    """
    stderr.quiet = quiet or not speaks()
    stdout.quiet = json or stderr.quiet


@contextlib.contextmanager
def silence() -> Iterator[None]:
    """Say and show nothing inside, as with --quiet and --json; errors are raised as ever."""
    before = stderr.quiet, stdout.quiet
    stderr.quiet = stdout.quiet = True
    try:
        yield
    finally:
        stderr.quiet, stdout.quiet = before


def speaks() -> bool:
    """Whether this is the only process, or the first of those that a launcher started."""
    return os.environ.get("RANK", "0") == "0"


def say(text: str) -> None:
    """One line about what is going on (plain text: brackets in paths and titles are no markup)."""
    stderr.print(text, markup=False, soft_wrap=True)


def warn(text: str) -> None:
    """One line about something suspicious."""
    stderr.print(Text.assemble(("warning:", "yellow"), " ", text), soft_wrap=True)  # at once: a panel may be below


def error(what: str, hint: str = "") -> None:
    """What went wrong and what to do about it; shown even with --quiet."""
    stderr.quiet = False
    stderr.print("[bold red]error:[/] ", end="")
    stderr.print(what, markup=False, soft_wrap=True)
    if hint:
        stderr.print(hint, markup=False, soft_wrap=True)


def show(renderable: Any) -> None:
    """A result (a table) on stdout."""
    stdout.print(renderable)


def write(line: str) -> bool:
    """One line of plain text on stdout, whatever is silenced: the object of --json.

    Returns:
        Whether it went to somebody; False where stdout is closed, or its reader has left.

    Raises:
        OSError: the disk is full. A reader who has left is no error.
    """
    stream = _results or sys.stdout
    if stream is None:  # closed from the start
        return False
    try:
        stream.write(line + "\n")
        stream.flush()
    except OSError as error:
        _forget(stream)
        if not isinstance(error, BrokenPipeError):
            raise
        return False
    return True


def interactive() -> bool:
    """Whether somebody watches a terminal that can be drawn on, and asked for neither --quiet nor --json."""
    drawable = stderr.file.isatty() and stderr.is_interactive and not stderr.is_dumb_terminal
    return drawable and not stderr.quiet and not stdout.quiet


@contextlib.contextmanager
def live(panel: RenderableType) -> Iterator[None]:
    """Show something that changes, at the bottom of the terminal; what is said meanwhile stands above it.

    The last state stays when it ends, however it ends.

    Args:
        panel: rendered again and again; it has to fit the terminal's size.
    """
    shares = sys.stdout is not None and sys.stdout.isatty()  # what plugins print must not get into the panel
    with Live(panel, console=stderr, refresh_per_second=REFRESHES, redirect_stdout=shares):
        try:
            yield
        finally:
            for stream in filter(None, (sys.stdout, sys.stderr)):
                stream.flush()  # lines that were begun


@contextlib.contextmanager
def progress(description: str, total: int | None) -> Iterator[Callable[..., None]]:
    """A progress bar; yields `advance(n=1, note="")`. One line at the end where stderr is no terminal.

    Args:
        description: what is being done, such as "reference lists".
        total: number of units, or None where it is not known.
    """
    whole = {"table_column": Column(no_wrap=True)}
    bar = Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=BAR if stderr.width >= WIDE else BAR // 4),
        MofNCompleteColumn(**whole),
        TimeElapsedColumn(**whole),
        TimeRemainingColumn(**whole),
        _Note(),
        console=stderr,
        disable=stderr.quiet,
        transient=False,
    )
    with bar:
        task = bar.add_task(description, total=total, note="")

        def advance(count: int = 1, note: str | None = None) -> None:
            if note is None:
                bar.update(task, advance=count)
            else:
                bar.update(task, advance=count, note=note)

        yield advance
