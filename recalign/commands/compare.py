"""Compare evaluated runs: means with intervals, paired tests against a reference, cost; for readers in four formats."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from recalign import console
from recalign.commands.shared_options import (
    AnalysesOption,
    JsonOption,
    OutOption,
    OverwriteOption,
    QuietOption,
    SeedOption,
)
from recalign.errors import ConditionMet, UserError
from recalign.workspace import content_hash, home

if TYPE_CHECKING:
    from recalign.comparison.evaluations import Evaluation

RunsArgument = Annotated[
    list[Path] | None,
    typer.Argument(
        help="Eval folders, decode folders or model runs. Runs that differ only in seed or dataset fold become one row."
    ),
]
GroupOption = Annotated[
    list[str] | None,
    typer.Option(
        "--group",
        help="Aggregate runs into one row: seeds are averaged, folds and splits by other seeds joined.",
        metavar="NAME=RUN,RUN,...",
    ),
]
ReferenceOption = Annotated[
    str | None, typer.Option(help="Row that the others are tested against (default: the first).")
]
MetricsOption = Annotated[str | None, typer.Option(help="Comma-separated (default: all, the same for every run).")]
FailIfOption = Annotated[
    list[str] | None,
    typer.Option(
        help="End with exit code 3 if this holds for a model, such as 'ndcg@5 < reference - 0.002'; ', p < 0.05' or "
        "', interval' after it asks for the test or the whole interval, too. Repeatable.",
        metavar="CONDITION",
    ),
]
UsersOption = Annotated[
    int, typer.Option(help="Maximum number of rows in the report's browser of users; of more, some are drawn.", min=0)
]

TransferOption = Annotated[
    bool,
    typer.Option(
        "--transfer",
        help="A table of what models reach on the datasets they were trained on and on others (decode --data OTHER).",
    ),
]


def compare(
    runs: RunsArgument = None,
    group: GroupOption = None,
    reference: ReferenceOption = None,
    metrics: MetricsOption = None,
    fail_if: FailIfOption = None,
    analyses: AnalysesOption = None,
    transfer: TransferOption = False,
    users: UsersOption = 5000,
    out: OutOption = None,
    seed: SeedOption = 0,
    overwrite: OverwriteOption = False,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> dict[str, Any]:
    """Compare evaluated runs, the first one being the reference.

    Examples:
    - recalign compare runs/sft runs/align-blade-ndcg

    - recalign compare --group sft=f1/sft,f2/sft --group blade=f1/blade,f2/blade --reference sft

    - recalign compare runs/released runs/candidate --fail-if "ndcg@5 < reference - 0.002"

    - recalign compare runs/sft runs/align-blade-ndcg --analyses all

    - recalign compare a/eval-on-a a/eval-on-b b/eval-on-a b/eval-on-b --transfer
    """
    from recalign.comparison import report
    from recalign.comparison.analyses import analyse
    from recalign.comparison.analyses.partitions import find_partitions
    from recalign.comparison.analyses.tables import ANALYSES_CAPTION, analysis_grids
    from recalign.comparison.conditions import Condition
    from recalign.comparison.report_files import FILES, write_report
    from recalign.comparison.systems import compare as compare_runs
    from recalign.evaluation.per_user import split_metrics
    from recalign.runs.lifecycle import Asked, choose_folder, perform

    if transfer:
        given = {"--group": group, "--reference": reference, "--fail-if": fail_if, "--analyses": analyses}
        return _transfer(runs or [], given, metrics, out, seed, overwrite)
    partitions = find_partitions(analyses)
    conditions = [Condition.parse(text) for text in fail_if or []]
    wanted = None if metrics is None else split_metrics(metrics)
    groups = _groups(runs or [], group or [], [*(wanted or ()), *(condition.metric for condition in conditions)])
    asked = {
        "groups": {name: [str(each.folder) for each in members] for name, members in groups.items()},
        "reference": reference,
        "metrics": wanted,
        "users": users,
        "seed": seed,
    }
    asked |= {"analyses": [each.name for each in partitions]} if partitions else {}
    inputs = {str(each.folder): content_hash(each.results) for members in groups.values() for each in members}
    comparison = compare_runs(groups, reference=reference, metrics=wanted, seed=seed)
    for condition in conditions:
        condition.check(comparison)
    found = analyse(comparison, partitions, seed)

    asked_for = Asked("compare", asked, inputs, FILES, remade=True)
    default = home() / "compare"
    run = choose_folder(out, default, asked_for, overwrite=overwrite)

    def work(_: None) -> dict[str, Any]:
        files = write_report(comparison, run.path, analyses=found, users=users, seed=seed)
        return {
            **comparison.as_dict(),
            "analyses": found.as_dict(),
            "files": [str(file) for file in files],
            "out": str(run.path),
        }

    results = perform(run, asked_for, lambda: None, work, resume=True, overwrite=overwrite)
    for grid in (*report.grids(comparison), *analysis_grids(found)):
        console.show(report.to_rich(grid))
    console.show(report.CAPTION)
    if found:
        console.show(ANALYSES_CAPTION)
    console.say(f"{run.path / 'report.html'} shows it all; beside it tables (Markdown, LaTeX, CSV, JSON) and figures.")
    failures = [told for condition in conditions for told in condition.failures(comparison)]
    if failures:
        held = ", ".join(condition.text for condition in conditions if condition.failures(comparison))
        raise ConditionMet(f"--fail-if {held}:\n" + "\n".join(failures), f"All figures are in {run.path}.")
    return results


def _transfer(
    runs: list[Path], given: dict[str, Any], metrics: str | None, out: Path | None, seed: int, overwrite: bool
) -> dict[str, Any]:
    """Compare models over several datasets; see `recalign.comparison.transfer`."""
    from recalign.comparison import report
    from recalign.comparison.transfer import CAPTION, FILES, transfer_grid, transfer_tables, write_transfer
    from recalign.evaluation.per_user import split_metrics
    from recalign.runs.lifecycle import Asked, choose_folder, perform

    unfit = next((option for option, value in given.items() if value), None)
    if unfit is not None:
        raise UserError(f"--transfer takes no {unfit}: every dataset has its own reference.", f"Leave {unfit} out.")
    wanted = None if metrics is None else split_metrics(metrics)
    opened = [each for members in _groups(runs, [], wanted or []).values() for each in members]
    tables = transfer_tables(opened, wanted, seed)
    asked = {"runs": [str(each.folder) for each in opened], "transfer": True, "metrics": wanted, "seed": seed}
    inputs = {str(each.folder): content_hash(each.results) for each in opened}
    asking = Asked("compare", asked, inputs, FILES, remade=True)
    run = choose_folder(out, home() / "transfer", asking, overwrite=overwrite)

    def work(_: None) -> dict[str, Any]:
        files = write_transfer(tables, run.path)
        told = [table.as_dict() for table in tables]
        return {"transfer": told, "files": [str(file) for file in files], "out": str(run.path)}

    results = perform(run, asking, lambda: None, work, resume=True, overwrite=overwrite)
    for table in tables:
        console.show(report.to_rich(transfer_grid(table)))
    console.show(CAPTION)
    console.say(f"{run.path} holds it as Markdown, LaTeX and JSON, with figures.")
    return results


def _groups(runs: list[Path], named: list[str], metrics: list[str]) -> dict[str, list[Evaluation]]:
    """Open all runs: named groups first where there are any, then the others, grouped by what they are."""
    from recalign.comparison.evaluations import Evaluation, group_by_label

    groups: dict[str, list[Evaluation]] = {}
    for text in named:
        name, equals, paths = text.partition("=")
        name = console.label(name)
        members = [path.strip() for path in paths.split(",") if path.strip()]
        if not equals or not name.strip() or not members:
            raise UserError(f"--group {text!r} is not of the form name=run1,run2.", "Write --group blade=a,b,c.")
        if name.strip() in groups:
            raise UserError(f"--group {name.strip()} is given twice.", "Name each group once.")
        groups[name.strip()] = [Evaluation.find(Path(path), metrics) for path in members]
    for name, found in group_by_label([Evaluation.find(path, metrics) for path in runs]).items():
        if name in groups:
            raise UserError(f"'{name}' is the name of a --group and of a run.", "Choose another name for the group.")
        groups[name] = found
    if not groups:
        raise UserError("Nothing to compare.", "Name runs: `recalign compare runs/sft runs/align-blade-ndcg`.")
    folders = [each.folder.resolve() for group in groups.values() for each in group]
    twice = next((folder for place, folder in enumerate(folders) if folder in folders[:place]), None)
    if twice is not None:
        raise UserError(f"{twice} is named twice.", "Name each run once.")
    return groups
