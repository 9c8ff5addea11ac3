"""`recalign schema`: the JSON Schema of what `--json` prints."""

from __future__ import annotations

import json as json_module
from typing import Annotated, Any

import typer

from recalign import console
from recalign.commands.shared_options import JsonOption, QuietOption
from recalign.errors import UserError, did_you_mean


def schema(
    command: Annotated[
        str | None, typer.Argument(help="A command, such as eval or 'plugins list', or error (default: all).")
    ] = None,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> dict[str, Any]:
    """Print the JSON Schema of what commands print with --json; its identifier is their field `schema`.

    Example: recalign schema eval
    """
    from recalign.commands.schemas import SCHEMAS, identifier, json_schema

    if command is not None and command not in SCHEMAS:
        raise UserError(f"There is no command '{command}' that prints JSON.", did_you_mean(command, SCHEMAS))
    found = {identifier(name): json_schema(name) for name in ([command] if command else SCHEMAS)}
    console.show(json_module.dumps(next(iter(found.values())) if command else found, indent=2))
    return {"schemas": found}
