"""The Typer app: registers the commands, prints results and errors, sets exit codes."""

from __future__ import annotations

import contextlib
import importlib
import json as json_module
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from typing import Any

import typer

from recalign import __version__, console, huge_pages
from recalign.errors import LONGEST, TAIL, UserError, advice_on, shortened, wants_memory
from recalign.invocation import invoking
from recalign.workflow.signatures import UsageError, command_function, signature_of, usage_text, with_signature_of

PANELS = {
    "Data and models": ("prepare", "rationales", "sft", "align", "export"),
    "Recommend and judge": ("recommend", "decode", "baseline", "eval", "explain", "compare"),
    "Whole experiments": ("run",),
    "Diagnostics and formats": ("doctor", "schema"),
}
COMMANDS = tuple(name for names in PANELS.values() for name in names)

UTF8 = "Name it in UTF-8, or set LC_ALL=C.UTF-8 or PYTHONUTF8=1."
LESS = "Ask for less at a time: smaller --batch-size, --token-budget, --size, model or parameters."
HELP = """Teach a language model to recommend, align it to list-level metrics, decode, evaluate, compare.

Examples:

- recalign run quickstart

- recalign align --objective blade --reward ndcg

- recalign align --objective blade -p tau=0.3 --reward "ndcg@5 - 0.5*mgu"

- recalign plugins show blade

Outputs go to runs/ (or RECALIGN_HOME). Exit codes: 0 done, 1 a fault of recalign, 2 the input, 3 a condition of
compare --fail-if, 130 interrupted.
"""

app = typer.Typer(
    name="recalign",
    help=HELP,
    no_args_is_help=True,
    add_completion=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback(invoke_without_command=True)
def _root(version: bool = typer.Option(False, "--version", help="Print the version and exit.")) -> None:
    if version:
        print(__version__)
        raise typer.Exit


def expose(function: Callable[..., dict[str, Any]], name: str = "") -> Callable[..., None]:
    """Wrap a command function for the shell: --json and --quiet, the result on stdout.

    Args:
        function: of the command; where it returns nothing, it has printed its results itself.
        name: by which `recalign schema` describes its result; empty: nothing does.
    """

    @with_signature_of(function)
    def wrapped(**options: Any) -> None:
        console.configure(json=options.get("json", False), quiet=options.get("quiet", False))
        if options.get("resume") and options.get("overwrite"):
            raise UserError("--overwrite deletes what --resume would go on with.", "Leave one of them out.")
        try:
            result = function(**options)
        except KeyboardInterrupt:
            raise typer.Abort from None  # some versions of Typer return 130 from the app, others abort by themselves
        if result and options.get("json") and console.speaks():
            _print_json(result, name)

    return wrapped


def _register() -> None:
    for panel, names in PANELS.items():
        for name in names:
            app.command(name=name, rich_help_panel=panel)(expose(command_function(name), name))
    plugins = importlib.import_module("recalign.commands.plugins")
    plugins_app = typer.Typer(help=plugins.__doc__, no_args_is_help=True, rich_markup_mode="markdown")
    for name, function in plugins.COMMANDS.items():
        plugins_app.command(name=name)(expose(function, f"plugins {name}"))
    app.add_typer(plugins_app, name="plugins", rich_help_panel="Extend")


_register()


def main(arguments: list[str] | None = None) -> None:
    """Entry point of the `recalign` script.

    Exit codes: 0; 1 a fault of ours (traceback); 2 the user's input; 130 interrupted. With --json an error is one JSON
    object on stdout too: {"error": ..., "hint": ...}.
    """
    huge_pages.ask()
    arguments = sys.argv[1:] if arguments is None else arguments
    as_json = "--json" in arguments
    with _terminated_as_interrupted(), console.results_apart(as_json):
        code = _outcome(arguments, as_json)
    sys.exit(code)


@contextlib.contextmanager
def _terminated_as_interrupted() -> Iterator[None]:
    """Let SIGTERM do what Ctrl-C does: what is half-written is removed, what can be resumed is noted."""
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGTERM) != signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _outcome(arguments: list[str], as_json: bool) -> int:
    """Run the command line and tell what goes wrong; the exit code."""
    try:
        for text in arguments:
            if _undecodable(text):
                raise UserError(f"The argument {text!r} is not in the encoding of this system.", UTF8)
        with invoking(arguments):
            code = app(args=arguments, standalone_mode=False, prog_name="recalign")
    except UserError as error:
        return _fail(error.what, error.hint, as_json, code=error.code)
    except UsageError as error:
        context, what = error.ctx, usage_text(error, arguments)
        if not what:  # no command is named, and its help has been shown
            return 2
        hint = f"`{context.command_path} --help` lists what it takes." if context else ""
        return _fail(shortened(what, LONGEST, TAIL), hint, as_json, code=2)
    except (KeyboardInterrupt, typer.Abort):
        return _fail("interrupted.", _how_to_go_on(arguments), as_json, code=130)
    except Exception as error:
        told = _not_ours(error)
        return _fault(error, as_json) if told is None else _fail(told.what, told.hint, as_json, code=2)
    return code if isinstance(code, int) else 0


def _not_ours(error: Exception) -> UserError | None:
    """What is to be told of an error of the system; None of a fault of ours."""
    if isinstance(error, OSError) and (hint := advice_on(error)):
        return UserError(f"{error.filename or 'Writing failed'}: {error.strerror}.", hint)
    if wants_memory(error):
        return UserError(f"Memory ran out: {str(error) or 'there is no more'}.", LESS)
    if isinstance(error, UnicodeEncodeError) and _undecodable(error.object):
        return UserError(f"{error.object!r} is not in the encoding of this system.", UTF8)
    return None


def _undecodable(text: str) -> bool:
    """Whether a text holds bytes that the system's encoding could not read."""
    return any("\ud800" <= character <= "\udfff" for character in text)


def _how_to_go_on(arguments: list[str]) -> str:
    command = next((name for name in COMMANDS if name in arguments[:1]), None)
    if command is not None and signature_of(command).takes("resume"):
        return "What was saved is resumable with --resume."
    return "The same command goes on; what is done is not done again."


def _fault(error: Exception, as_json: bool) -> int:
    traceback.print_exception(error)
    return _fail(f"{type(error).__name__}: {error}", "This is a fault of recalign.", as_json, code=1)


def _fail(what: str, hint: str, as_json: bool, *, code: int) -> int:
    console.error(what, hint)
    if as_json:
        with contextlib.suppress(OSError):  # stdout may be what failed
            _print_json({"error": what, "hint": hint}, "error")
    return code


def _print_json(value: dict[str, Any], name: str) -> None:
    if name:
        from recalign.commands.schemas import identifier

        value = {"schema": identifier(name), **value}
    console.write(json_module.dumps(value, default=str, allow_nan=False))
