"""`recalign run`: the steps of a recipe, one after the other or several at a time."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from textwrap import shorten
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from recalign import console
from recalign.commands.shared_options import JsonOption, OutOption, QuietOption
from recalign.errors import UserError, did_you_mean

if TYPE_CHECKING:
    from recalign.workflow.plan import RecipeStep
    from recalign.workflow.scheduler import Status

SHOWN = 60
"""A plan of more steps than this is shown a line a [[step]] instead of one a run."""


def run(
    recipe: Annotated[str, typer.Argument(help="A .toml file, or the name of an embedded recipe, such as quickstart.")],
    overrides: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            help="Change the recipe: option=value, step.option=value, step.params.tau=0.5.",
            metavar="KEY=VALUE",
        ),
    ] = None,
    only: Annotated[
        list[str] | None, typer.Option(help="Run this step and what it needs, nothing else (may be repeated).")
    ] = None,
    jobs: Annotated[int, typer.Option(help="Number of steps at a time; each gets its share of the cores.", min=1)] = 1,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check everything, print the plan, run nothing.")] = False,
    keep_going: Annotated[
        bool, typer.Option("--keep-going", help="After a failure, run what does not need it.")
    ] = False,
    out: OutOption = None,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> dict[str, Any]:
    """Run a recipe: several commands, chained; what is done and unchanged is skipped, what was cut off goes on.

    Examples:
    - recalign run quickstart

    - recalign run blade-ml-100k --dry-run

    - recalign run experiment.toml --jobs 2 --set data.path=../ml-100k --set seed=[0]
    """
    from recalign.workflow.plan import plan
    from recalign.workflow.recipe import load_recipe
    from recalign.workflow.scheduler import check, execute
    from recalign.workspace import home

    loaded = load_recipe(recipe, overrides or ())
    root = out or home() / loaded.name
    steps = _selected(plan(loaded, root), only or ())
    if dry_run:
        statuses = check(steps, root)
        console.show(_plan_tree(loaded.document.get("title") or loaded.name, steps, statuses))
        return {"recipe": loaded.name, "out": str(root), "steps": [_described(s, statuses[s.id].state) for s in steps]}
    outcome = execute(steps, root, jobs=jobs, keep_going=keep_going)
    return _summary(loaded.name, steps, outcome, root)


def _selected(steps: list[RecipeStep], only: Sequence[str]) -> list[RecipeStep]:
    """The steps named (by name or id) and all that they need."""
    if not only:
        return steps
    known = {label for step in steps for label in (step.name, step.id)}
    unknown = [label for label in only if label not in known]
    if unknown:
        raise UserError(f"--only {unknown[0]}: there is no such step.", did_you_mean(unknown[0], known))
    wanted = {step.id for step in steps if step.name in only or step.id in only}
    for step in reversed(steps):
        if step.id in wanted:
            wanted.update(step.needs)
    return [step for step in steps if step.id in wanted]


def _described(step: RecipeStep, state: str) -> dict[str, Any]:
    return {
        "id": step.id,
        "command": step.command,
        "arguments": step.arguments,
        "needs": list(step.needs),
        "out": str(step.out),
        "state": state,
    }


def _plan_tree(title: str, steps: list[RecipeStep], statuses: dict[str, Status]) -> Tree:
    todo = sum(not statuses[step.id].done for step in steps)
    tree = Tree(Text(f"{title}: {len(steps)} steps, {len(steps) - todo} done, {todo} to do", style="bold"))
    for name in dict.fromkeys(step.name for step in steps):
        family = [step for step in steps if step.name == name]
        done = sum(statuses[step.id].done for step in family)
        sweep = " x ".join(f"{len({step.axes[axis] for step in family})} {axis}" for axis in family[0].axes)
        counts = f" ({sweep}: {done} of {len(family)} done)" if sweep else ""
        branch = tree.add(Text(f"{name}{counts}"))
        for step in family if len(steps) <= SHOWN else family[:1]:
            status = statuses[step.id]
            mark = Text("done" if status.done else status.state, style="green" if status.done else "yellow")
            reason = f" ({status.reason})" if status.reason else ""
            typed = shorten(f"recalign {step.command} {shlex.join(step.arguments)}", 600, placeholder=" ...")
            branch.add(Text.assemble(mark, reason, f"  {typed}"))
    return tree


def _summary(name: str, steps: list[RecipeStep], outcome: dict[str, str], root: Path) -> dict[str, Any]:
    """Print where the time went, a line a [[step]], and return all of it."""
    from recalign.workflow.scheduler import Ledger
    from recalign.workspace import RunFolder

    ledger = Ledger(root)
    rows = [
        {
            **_described(step, outcome[step.id]),
            "seconds": ledger.record(step).get("seconds"),
            "results": RunFolder(step.out).record.get("results"),
        }
        for step in steps
    ]
    total = sum(row["seconds"] or 0.0 for row in rows) or 1.0
    table = Table("step", "runs", "skipped", "seconds", "share", "output")
    for family in dict.fromkeys(step.name for step in steps):
        members = [row for step, row in zip(steps, rows, strict=True) if step.name == family]
        seconds = sum(row["seconds"] or 0.0 for row in members)
        skipped = sum(row["state"] == "done" for row in members)
        figures = (len(members) - skipped, skipped, f"{seconds:.1f}", f"{seconds / total:.0%}")
        table.add_row(Text(family), *(str(figure) for figure in figures), Text(str(root / family)))
    for column in table.columns[1:5]:
        column.justify = "right"
    console.show(table)
    return {"recipe": name, "out": str(root), "steps": rows}
