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
from recalign.workspace import RunFolder, content_hash

Ready = TypeVar("Ready")
OWN = 8
"""Characters of the hash in the name of a folder of one's own."""


@dataclass(frozen=True)
class Asked:
    """What a command is asked for, which decides whether a folder's content fits.

    Args:
        command: the subcommand's name.
        options: what determines the output (not --quiet, --json or --out).
        inputs: name -> content hash of what the run reads.
        makes: patterns of the names that the run writes in its folder; a file of another name is the user's.
        facts: what run.json states besides, such as the seed and the lineage; they decide nothing.
        remade: whether all that the run writes can be made again from what is kept beside it, such as predictions:
            what is outdated in its folder is then replaced without being asked for.
    """

    command: str
    options: Mapping[str, Any]
    inputs: Mapping[str, str]
    makes: tuple[str, ...] = ("*",)
    facts: Mapping[str, Any] = field(default_factory=dict)
    remade: bool = False

    @property
    def hash(self) -> str:
        """What run.json calls `hash`."""
        return content_hash({"command": self.command, "options": dict(self.options), "inputs": dict(self.inputs)})

    def same_options(self, record: Mapping[str, Any]) -> bool:
        """Whether a run was asked for the same, whatever it read."""
        one, two = (self.command, dict(self.options)), (record.get("command"), record.get("options"))
        return content_hash(one) == content_hash(two)


def choose_folder(out: Path | None, default: Path, asked: Asked, *, overwrite: bool = False) -> RunFolder:
    """Choose the folder of a run: the one that the user names, the default one, or one of its own beside that.

    The default one is taken where it is free, holds the same run, or holds an outdated one that is simply made again.
    Else the run gets a name that follows from what was asked for, so that the same command finds it again.

    Args:
        out: the folder that the user names, if any.
        default: the folder that such a run has if nothing else is there.
        asked: what is asked for.
        overwrite: delete what the default folder holds, so that it is free.
    """
    if out or overwrite:
        return RunFolder(out or default)
    held = RunFolder(default).record
    if not held or held.get("hash") == asked.hash or (asked.remade and asked.same_options(held)):
        return RunFolder(default)
    if held.get("status") != "done" and not RunFolder(default).saved_anything:
        return RunFolder(default)
    key = content_hash({"command": asked.command, "options": dict(asked.options)}) if asked.remade else asked.hash
    own = default.with_name(f"{default.name}-{key[:OWN]}")
    console.say(f"{default} holds another {held.get('command')}; this one goes to {own}.")
    return RunFolder(own)


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

    overwrite = overwrite or _outdated(run, asked)
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


def _outdated(run: RunFolder, asked: Asked) -> bool:
    """Whether a folder holds a run of the same command that is simply made again; not within a recipe, which asks."""
    held = run.record if asked.remade and not run.claimed else {}
    return held.get("command") == asked.command and held.get("hash") != asked.hash


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
