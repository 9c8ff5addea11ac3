"""`recalign recommend`: what a model recommends to one person, or to many whose histories come line by line."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from recalign import console
from recalign.commands.decode import newest_model
from recalign.commands.explain import show_rationales, show_table
from recalign.commands.shared_options import (
    AttentionOption,
    DeviceOption,
    DtypeOption,
    ExcludeHistoryOption,
    JsonOption,
    LoadIn4bitOption,
    LoadIn8bitOption,
    ModelOption,
    ParamOption,
    QuietOption,
    SeedOption,
    TemplateVarOption,
    ThreadsOption,
    TrustOption,
    hardware,
)
from recalign.errors import UserError

if TYPE_CHECKING:
    from recalign.decoding.serving import ListService


def recommend(
    *,
    model: ModelOption = None,
    history: Annotated[
        list[str] | None,
        typer.Option(help="Title or id of an item that the person had; once per item, oldest first.", metavar="ITEM"),
    ] = None,
    history_file: Annotated[
        Path | None, typer.Option(help="File with one title or id a line, oldest first; --history goes on from it.")
    ] = None,
    stdin: Annotated[
        bool,
        typer.Option(
            "--stdin",
            help="Answer the histories that come on stdin, one a line: titles or ids between tabs, or a JSON object "
            "with `history` and, if need be, `candidates`, `size` and `profile`. Every line is answered by one line.",
        ),
    ] = False,
    candidate: Annotated[
        list[str] | None,
        typer.Option(
            help="Title or id of an item that may be recommended; once per item (default: all). The rank task needs "
            "them.",
            metavar="ITEM",
        ),
    ] = None,
    size: Annotated[
        int | None,
        typer.Option(help="Items of the list (default: the task's list length; 10 on next, all on rank).", min=1),
    ] = None,
    profile: Annotated[str, typer.Option(help="What is known of the person, where prompts show it (rank).")] = "",
    data: Annotated[
        Path | None,
        typer.Option(help="Prepared dataset to recommend from (default: the one that the model was trained on)."),
    ] = None,
    decoder: Annotated[str | None, typer.Option(help="A decoder; the default is that of `recalign decode`.")] = None,
    param: ParamOption = None,
    exclude_history: ExcludeHistoryOption = "auto",
    allow_repeats: Annotated[
        bool, typer.Option("--allow-repeats", help="Take histories that name an item more than once.")
    ] = False,
    template_var: TemplateVarOption = None,
    dtype: DtypeOption = "auto",
    device: DeviceOption = "auto",
    attn_implementation: AttentionOption = None,
    load_in_4bit: LoadIn4bitOption = False,
    load_in_8bit: LoadIn8bitOption = False,
    trust_remote_code: TrustOption = False,
    threads: ThreadsOption = None,
    seed: SeedOption = 0,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> dict[str, Any]:
    """Recommend items to one person, whose history is named title by title.

    Examples:
    - recalign recommend --model runs/sft --history "Alien (1979)" --history "Aliens (1986)" --size 5

    - recalign recommend --model runs/sft --history-file watched.txt --json

    - recalign recommend --model runs/sft --stdin < histories.tsv > lists.jsonl
    """
    from recalign.decoding.serving import load_service
    from recalign.models.weights import check_model
    from recalign.params import parse_assignments
    from recalign.text.chat_templates import parse_variables

    names = _history(history, history_file, stdin)
    name = model or newest_model()
    check_model(name, trust_remote_code)
    service = load_service(
        name,
        data,
        decoder=decoder,
        params=parse_assignments(param or []),
        exclude_history=exclude_history,
        allow_repeats=allow_repeats,
        template_vars=parse_variables(template_var or []),
        seed=seed,
        dtype=dtype,
        hardware=hardware(device, attn_implementation, load_in_4bit, load_in_8bit, threads),
        trust_remote_code=trust_remote_code,
    )
    facts = {"model": name, "data": str(service.dataset.path), "decoder": service.decoder.name}
    asked: dict[str, Any] = {"candidates": candidate or None, "size": size, "profile": profile}
    if stdin:
        _answer_lines(service, asked, facts)
        return {}
    found = service.recommend(names, **asked)
    service.engine.policy.prompter.tell()
    _show(found)
    return {**facts, **found}


def _history(history: list[str] | None, file: Path | None, stdin: bool) -> list[str]:
    """The names of the history, from a file and from the command line.

    Raises:
        UserError: there are none, or there are some and those of stdin.
    """
    from recalign.reading import read_text

    if stdin:
        if history or file:
            raise UserError("--stdin brings histories of its own.", "Leave out --stdin, or the others.")
        return []
    if not history and file is None:
        raise UserError(
            "No history is named.", "Name titles or ids: --history TITLE (once per item), --history-file, or --stdin."
        )
    lines = read_text(file, hint="Name a text in UTF-8, one title or id a line.").splitlines() if file else []
    names = [*(line.strip() for line in lines if line.strip()), *(history or [])]
    if not names:
        raise UserError(f"{file} names no item.", "Write one title or id a line, oldest first.")
    return names


def _answer_lines(service: ListService, asked: dict[str, Any], facts: dict[str, Any]) -> None:
    """Answer what comes on stdin.

    Raises:
        UserError: some lines could not be answered.
    """
    from recalign.commands.history_lines import answer_lines

    answered, refused = answer_lines(service, asked, facts)
    service.engine.policy.prompter.tell()
    if refused:
        raise UserError(f"{refused} of {answered + refused} lines could not be answered.", "stdout has the errors.")


def _show(found: dict[str, Any]) -> None:
    """Print the history as it was understood, and the list."""
    history = Table("history, oldest first", "genres")
    for item in found["history"]:
        history.add_row(Text(item["title"]), Text(", ".join(item["genres"])))
    console.show(history)
    show_table(found["recommended"])
    show_rationales(found["recommended"])
