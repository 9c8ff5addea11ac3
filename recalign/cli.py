"""The Typer app: registers the commands, prints results and UserErrors, sets exit codes."""

from __future__ import annotations

import functools
import importlib
import inspect
import json as json_module
import sys
from collections.abc import Callable
from typing import Any, get_type_hints

import typer

from recalign import __version__, console
from recalign.errors import UserError

COMMANDS = ("prepare", "sft", "align", "decode", "eval", "compare", "export", "run")

app = typer.Typer(
    name="recalign",
    help="Teach a language model to recommend, align it to list-level metrics, decode, evaluate, compare.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback(invoke_without_command=True)
def _root(version: bool = typer.Option(False, "--version", help="Print the version and exit.")) -> None:
    if version:
        print(__version__)
        raise typer.Exit


def expose(function: Callable[..., dict[str, Any]]) -> Callable[..., None]:
    """Wrap a command function for the shell: --json and --quiet, the result on stdout."""

    @functools.wraps(function)
    def wrapped(**options: Any) -> None:
        console.configure(json=options.get("json", False), quiet=options.get("quiet", False))
        result = function(**options)
        if options.get("json"):
            sys.stdout.write(json_module.dumps(result, default=str, allow_nan=False) + "\n")

    hints = get_type_hints(function, include_extras=True)
    signature = inspect.signature(function)
    wrapped.__signature__ = signature.replace(  # type: ignore[attr-defined]
        parameters=[p.replace(annotation=hints[p.name]) for p in signature.parameters.values()], return_annotation=None
    )
    wrapped.__annotations__ = {**hints, "return": None}
    return wrapped


for _name in COMMANDS:
    _module = importlib.import_module(f"recalign.commands.{_name}")
    app.command(name=_name)(expose(getattr(_module, _name)))
app.add_typer(importlib.import_module("recalign.commands.plugins").app, name="plugins")


def main(arguments: list[str] | None = None) -> None:
    """Entry point of the `recalign` script: exit codes 0, 1 (our fault), 2 (the user's input), 130 (interrupted)."""
    try:
        app(args=arguments, standalone_mode=False)
    except typer.Exit as stop:
        sys.exit(stop.exit_code)
    except UserError as error:
        console.stderr.quiet = False
        console.stderr.print("error: ", style="bold red", end="")
        console.stderr.print(error.what, markup=False)
        if error.hint:
            console.stderr.print(error.hint, markup=False)
        sys.exit(2)
    except (KeyboardInterrupt, typer.Abort):
        console.stderr.print("interrupted; what was saved is resumable with --resume.")
        sys.exit(130)
    except Exception as error:
        if hasattr(error, "format_message"):
            error.show()
            sys.exit(2)
        raise
