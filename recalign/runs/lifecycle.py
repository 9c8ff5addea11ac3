"""The life of a run: what is done already is not done again, what was cut off goes on, and how it ended is noted.

Every command that writes a run folder goes through `perform`, or through `perform_whole` where the folder appears only
when all of it is written.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from recalign import console
from recalign.errors import UserError
from recalign.workspace import RunFolder

Ready = TypeVar("Ready")


@dataclass(frozen=True)
class Asked:
    """What a command is asked for, which decides whether a folder's content fits.

    Args:
        command: the subcommand's name.
        options: what determines the output (not --quiet, --json or --out).
        inputs: name -> content hash of what the run reads.
        makes: patterns of the names that the run writes in its folder; a file of another name is the user's.
        facts: what run.json states besides, such as the seed and the lineage; they decide nothing.
    """

    command: str
    options: Mapping[str, Any]
    inputs: Mapping[str, str]
    makes: tuple[str, ...] = ("*",)
    facts: Mapping[str, Any] = field(default_factory=dict)


def perform(
    run: RunFolder,
    asked: Asked,
    ready: Callable[[], Ready],
    work: Callable[[Ready], Mapping[str, Any]],
    *,
    resume: bool = False,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Do a command's work in its folder, or return the results of the run that did the same before.

    Of several processes the first claims the folder and notes how the run ends; all of them work.

    Args:
        run: the folder.
        asked: what for.
        ready: loads what the work needs; what is wrong with the input shows here, before the folder is claimed.
        work: takes what `ready` returned and returns the results that run.json keeps.
        resume: go on with an unfinished run.
        overwrite: delete what the folder holds.

    Raises:
        UserError: see `RunFolder.begin`; a run that saved nothing before such an error leaves no folder.
        KeyboardInterrupt: noted; what was saved stays resumable.
    """

    def begin() -> None:
        if console.speaks():
            run.begin(
                asked.command,
                asked.options,
                asked.inputs,
                resume=resume,
                overwrite=overwrite,
                makes=asked.makes,
                facts=asked.facts,
            )

    if run.done and not overwrite:
        begin()
        console.say(f"{run.path} is up to date.")
        return dict(run.record["results"])
    if console.speaks():  # what costs nothing to refuse is refused before anything is loaded
        run.plan(asked.command, asked.options, asked.inputs, resume=resume, overwrite=overwrite, makes=asked.makes)
    prepared = ready()
    begin()
    try:
        results = dict(work(prepared))
    except KeyboardInterrupt:
        if console.speaks():
            run.interrupt()
        raise
    except UserError:
        if console.speaks() and not run.saved_anything:
            run.clear(run.record)
        raise
    if console.speaks():
        run.finish(results)
    return results


def perform_whole(
    run: RunFolder,
    asked: Asked,
    ready: Callable[[], Ready],
    work: Callable[[Ready, Path], Mapping[str, Any]],
    *,
    overwrite: bool = False,
) -> tuple[dict[str, Any], bool]:
    """Do a command's work so that its folder appears whole or not at all; see `perform`.

    Args:
        run: the folder.
        asked: what for.
        ready: as in `perform`.
        overwrite: as in `perform`.
        work: takes what `ready` returned and a temporary folder to write to; returns the results.

    Returns:
        The results, and whether they are those of a run that did the same before.
    """
    held = run.record
    state, record = run.plan(asked.command, asked.options, asked.inputs, resume=True, overwrite=overwrite)
    if state == "done":
        return dict(record["results"]), True
    prepared = ready()
    with run.at_once(record, held) as (folder, results):
        results.update(work(prepared, folder))
    return results, False
