"""Commands that take the real ones' place in tests of recipes: they only claim their run folder and note the call."""

import sys
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any, Literal

import typer

from recalign.commands.shared_options import OutOption, OverwriteOption, ParamOption, ResumeOption, SeedOption
from recalign.workspace import RunFolder

calls: list[tuple[str, str]] = []
"""(command, out) in the order of the calls."""
fail: dict[str, BaseException] = {}
"""out folder's name -> what to raise half-way."""


def _work(
    command: str, out: Path | None, resume: bool = True, overwrite: bool = False, **options: Any
) -> dict[str, Any]:
    assert out is not None
    run = RunFolder(out)
    state = run.begin(command, options, {}, resume=resume, overwrite=overwrite)
    calls.append((command, "/".join(out.parts[out.parts.index("runs") + 1 :])))
    if state != "done":
        (out / "half").write_text("x")
        if out.name in fail:
            raise fail.pop(out.name)
        run.finish({"state": state})
    return {"state": state}


def prepare(
    source: Annotated[str, typer.Argument()] = "synthetic",
    path: Annotated[Path | None, typer.Argument()] = None,
    *,
    fold: Annotated[int | None, typer.Option(min=1)] = None,
    identifier: Annotated[Literal["title", "atomic"], typer.Option()] = "title",
    drop_invalid: Annotated[bool, typer.Option("--drop-invalid")] = False,
    param: ParamOption = None,
    out: OutOption = None,
    seed: SeedOption = 0,
    overwrite: OverwriteOption = False,
) -> dict[str, Any]:
    """Prepare."""
    return _work("prepare", out, overwrite=overwrite, source=source, path=path, fold=fold, seed=seed)


def sft(
    *,
    data: Annotated[Path, typer.Option()],
    epochs: float = 1.0,
    learning_rate: float | None = None,
    out: OutOption = None,
    seed: SeedOption = 0,
    resume: ResumeOption = False,
    overwrite: OverwriteOption = False,
) -> dict[str, Any]:
    """Train."""
    return _work("sft", out, resume, overwrite, data=data, epochs=epochs, seed=seed)


def align(
    *,
    model: Annotated[str, typer.Option()],
    objective: str = "blade",
    reward: str = "ndcg",
    param: ParamOption = None,
    out: OutOption = None,
    seed: SeedOption = 0,
    resume: ResumeOption = False,
    overwrite: OverwriteOption = False,
) -> dict[str, Any]:
    """Align."""
    return _work("align", out, resume, overwrite, model=model, objective=objective, param=param, seed=seed)


def compare(
    runs: Annotated[list[Path] | None, typer.Argument()] = None,
    group: Annotated[list[str] | None, typer.Option("--group")] = None,
    *,
    out: OutOption = None,
    overwrite: OverwriteOption = False,
) -> dict[str, Any]:
    """Compare."""
    return _work("compare", out, True, overwrite, runs=runs, group=group)


def install(monkeypatch: Any) -> None:
    """Put these functions where the real commands' modules are looked up."""
    from recalign.workflow.signatures import signature_of

    calls.clear()
    fail.clear()
    for function in (prepare, sft, align, compare):
        module = ModuleType(f"recalign.commands.{function.__name__}")
        setattr(module, function.__name__, function)
        monkeypatch.setitem(sys.modules, module.__name__, module)
    signature_of.cache_clear()
