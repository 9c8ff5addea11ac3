"""`recalign rationales`: a teacher says why candidates suit users or not; what it decides rightly is kept."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from recalign import console
from recalign.commands.shared_options import (
    DataOption,
    DtypeOption,
    JsonOption,
    NumProcessesOption,
    OutOption,
    OverwriteOption,
    ParamOption,
    QuietOption,
    ResumeOption,
    SeedOption,
    TrustOption,
)
from recalign.errors import UserError
from recalign.workspace import RunFolder, content_hash, file_hash, home

if TYPE_CHECKING:
    from recalign.api import Engine, Teacher, TeacherContext
    from recalign.data.dataset import PreparedDataset
    from recalign.models.hardware import Dtype
    from recalign.rationales.budget import Budget
    from recalign.rationales.cases import Cases
    from recalign.text.prompts import Template


def rationales(
    teacher: Annotated[
        str,
        typer.Argument(
            help="A teacher: openai (a model behind an HTTP endpoint), local (a model on this machine) or rules (no "
            "model: a template filled in from counts); or a plugin's."
        ),
    ] = "rules",
    *,
    data: DataOption = None,
    param: ParamOption = None,
    rows: Annotated[int | None, typer.Option(help="Number of training rows to draw (default: all).", min=1)] = None,
    negatives: Annotated[
        int, typer.Option(help="Negatives of each row that are asked about, beside its positive.", min=0)
    ] = 1,
    template: Annotated[
        str, typer.Option(help="Prompt template by which teachers are asked: chat, alpaca or a Jinja file.")
    ] = "chat",
    max_tokens_total: Annotated[
        int | None,
        typer.Option(help="Maximum number of prompt and completion tokens that all questions may take.", min=1),
    ] = None,
    max_spend: Annotated[
        float | None, typer.Option(help="Maximum of money to spend, in that of the teacher's price parameters.", min=0)
    ] = None,
    dtype: DtypeOption = "auto",
    trust_remote_code: TrustOption = False,
    num_processes: NumProcessesOption = 1,
    out: OutOption = None,
    seed: SeedOption = 0,
    resume: ResumeOption = False,
    overwrite: OverwriteOption = False,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> dict[str, Any]:
    """Let a teacher write rationales for candidates of training rows, and keep those whose decision is right.

    Every reply is noted in answers.jsonl as it comes; rationales.jsonl has the kept ones, to read, edit and train on.

    Examples:
    - recalign rationales

    - recalign rationales openai -p model=deepseek-reasoner -p base_url=https://api.deepseek.com --rows 500

    - recalign sft --rationales runs/rationales/rationales.jsonl
    """
    from recalign.data.dataset import PreparedDataset
    from recalign.params import parse_assignments
    from recalign.plugins.registry import create
    from recalign.rationales.budget import Budget
    from recalign.rationales.cases import cases_of
    from recalign.rationales.journal import Journal
    from recalign.rationales.records import ANSWERS_FILE, RATIONALES_FILE
    from recalign.rationales.sharing import PARTS
    from recalign.runs.lifecycle import Asked, perform
    from recalign.text.prompts import load_template

    chosen: Teacher = create("teacher", teacher, parse_assignments(param or []))
    dataset = PreparedDataset(data or home() / "data")
    _share(num_processes, dataset, limited=max_tokens_total is not None or max_spend is not None)
    asked = {
        "teacher": teacher,
        "data": str(dataset.path),
        "identity": chosen.identity,
        "rows": rows,
        "negatives": negatives,
        "template": template,
        "seed": seed,
    }
    words, budget = load_template(template), Budget(chosen, max_tokens_total, max_spend)
    if max_spend is not None and budget.spent is None:
        raise UserError(
            f"--max-spend {max_spend:g} needs to know what the tokens of the teacher '{teacher}' cost.",
            f"Pass its prices (`recalign plugins show {teacher}` lists them), or limit tokens with --max-tokens-total.",
        )
    run = RunFolder(out or home() / "rationales")

    def ready() -> Cases:
        _connect()
        cases = cases_of(dataset, words, rows=rows, negatives=negatives, seed=seed)
        if resume:
            Journal(run.path)  # a broken line is told before the folder is claimed
        chosen.begin(_context(dataset, seed, dtype, trust_remote_code))
        return cases

    makes = (ANSWERS_FILE, RATIONALES_FILE, PARTS)
    results = perform(
        run,
        Asked("rationales", asked, _inputs(dataset, words, chosen), makes, {"seed": seed}),
        ready,
        lambda cases: _ask(chosen, cases, run.path, budget),
        resume=resume,
        overwrite=overwrite,
    )
    return {"out": str(run.path), **results}


def _share(count: int, dataset: PreparedDataset, *, limited: bool) -> None:
    """Start the processes that are asked for, and refuse limits that each of several would count for itself."""
    several = int(os.environ.get("WORLD_SIZE", "1")) > 1
    if limited and (count > 1 or several):
        raise UserError(
            "--max-tokens-total and --max-spend count what one process spends.", "Leave --num-processes out."
        )
    if count > 1 and not several:
        from recalign.training.processes import relaunch

        relaunch(count, data=dataset.path)


def _connect() -> None:
    """Join the other processes, where a launcher started some: only then is torch needed."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        from recalign.models.hardware import ANY
        from recalign.training.processes import connect

        connect(ANY.place())


def _standing() -> tuple[int, int, Callable[[], None]]:
    """This process's rank, how many there are, and what waits for all."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return 0, 1, lambda: None
    from recalign.training.processes import process, wait_for_all

    return *process(), wait_for_all


def _ask(teacher: Teacher, cases: Cases, folder: Path, budget: Budget) -> dict[str, Any]:
    """Ask about what has no answer yet, show what became of all, and return the run's results.

    Raises:
        UserError: a limit is reached, or the teacher cannot answer; what is there stays.
    """
    from recalign.rationales.asking import Asking
    from recalign.rationales.journal import Journal
    from recalign.rationales.outcomes import count_outcomes, outcome_table
    from recalign.rationales.records import ANSWERS_FILE, RATIONALES_FILE
    from recalign.rationales.sharing import gather, journal_of

    rank, processes, wait = _standing()
    if rank == 0:
        whole = Journal(folder)
        whole.mend()
        gather(folder, whole)
    wait()  # until what an interrupted run left is in its place
    open_cases = cases.without(Journal(folder).answered)
    wait()  # until all have read it
    mine = open_cases[rank::processes]
    journal = journal_of(folder, rank)
    budget.prompt_tokens, budget.completion_tokens = journal.spent
    counts: dict[str, dict[str, int]] = {}
    try:
        with console.progress(f"rationales ({teacher.name})", len(cases) - len(open_cases) + len(mine)) as advance:
            advance(len(cases) - len(open_cases))
            left = Asking(teacher, cases.dataset.catalogue, journal, budget)(mine, advance)
        wait()
        if rank:
            return {}
        gather(folder, journal)
        budget.prompt_tokens, budget.completion_tokens = journal.spent
    finally:
        if rank == 0:
            counts = count_outcomes(journal.records.values())
            if journal.records:
                console.show(outcome_table(counts))
                console.say(f"{folder / RATIONALES_FILE}: by the teacher '{teacher.name}', {budget.describe()}.")
    if left:
        raise UserError(
            f"The limit is reached: {budget.describe()}; {left:,} of {len(cases):,} questions are left.",
            "A question is asked only where what it may take at most still fits. Raise --max-tokens-total or "
            f"--max-spend and pass --resume, or go on with what is in {folder / RATIONALES_FILE}.",
        )
    tokens = {"prompt_tokens": budget.prompt_tokens, "completion_tokens": budget.completion_tokens}
    kept = sum(row["kept"] for row in counts.values())
    if not kept:
        console.warn(
            f"No answer is kept: {folder / RATIONALES_FILE} teaches nothing; {ANSWERS_FILE} says what was wrong."
        )
    return {"questions": len(cases), "kept": kept, "outcomes": counts, **tokens, "spent": budget.spent}


def _context(dataset: PreparedDataset, seed: int, dtype: Dtype, trust_remote_code: bool) -> TeacherContext:
    """What teachers are handed; models are loaded only where one asks for them."""
    from recalign.api import TeacherContext, TrainingData

    def load_engine(model: str) -> Engine:
        from recalign.decoding.engine import PolicyEngine
        from recalign.models.policy import load_policy

        policy = load_policy(model, dataset, seed=seed, dtype=dtype, trust_remote_code=trust_remote_code)
        return PolicyEngine(policy, dataset.catalogue, exclude_history=dataset.excludes_history(), seed=seed)

    return TeacherContext(dataset.catalogue, lambda: TrainingData.of(dataset), load_engine, seed)


def _inputs(dataset: PreparedDataset, template: Template, teacher: Teacher) -> dict[str, str]:
    """Hashes of what prompts are made of, and of what the teacher reads."""
    read = {str(file): file_hash(file) for file in teacher.files if file.exists()}
    return {"data": dataset.hash, "template": content_hash(template.source), **read}
