"""A command's option list, read off its signature by Typer itself: recipes mean exactly what the command line means."""

from __future__ import annotations

import functools
import importlib
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import typer
from typer.main import get_command

from recalign.errors import UserError, did_you_mean

UsageError: type[Any] = typer.BadParameter.__mro__[1]
"""Base of what Typer raises for a command line that does not parse (newer Typer carries its own copy of click)."""

LARGEST = 2**32 - 1
"""What a number of the command line may be; also the largest seed that numpy takes."""

PARAMS = "params"
"""Key of a recipe's table of plugin parameters, which the command line spells -p key=value."""

DECIDED_BY_THE_RECIPE = frozenset({"out", "resume", "overwrite", "json", "quiet", "help"})


def usage_text(error: Any, arguments: Sequence[str]) -> str:
    """Say what is wrong with a command line that does not parse, naming the refused value.

    Args:
        error: a UsageError; its own text may name the option alone.
        arguments: the command line.
    """
    text = str(error.format_message())
    names = getattr(getattr(error, "param", None), "opts", ())
    given = [value for name, value in zip(arguments, arguments[1:], strict=False) if name in names]
    given += [text.partition("=")[2] for text in arguments if text.partition("=")[0] in names and "=" in text]
    if not given or repr(given[-1]) in text:
        return text
    return f"{text.rstrip('.')}: {given[-1]!r}."


def with_signature_of(function: Callable[..., Any]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Give a wrapper the options of a command function, annotations resolved; numbers beyond all sense are refused."""

    def decorate(called: Callable[..., Any]) -> Callable[..., Any]:
        def wrapper(**options: Any) -> Any:
            check_numbers(options)
            return called(**options)

        # not typing.get_type_hints: on Python 3.10 that hides an Annotated behind Optional where the default is None
        signature = inspect.signature(function, eval_str=True)
        functools.update_wrapper(wrapper, function)
        wrapper.__signature__ = signature.replace(return_annotation=None)  # type: ignore[attr-defined]
        wrapper.__annotations__ = {name: parameter.annotation for name, parameter in signature.parameters.items()}
        return wrapper

    return decorate


def check_numbers(options: Mapping[str, Any]) -> None:
    """Refuse numbers of a command line that no option means anything by, whatever bounds it has of its own.

    Args:
        options: name of a function's argument -> value.

    Raises:
        UserError: NaN, an infinity, or a number that is too large.
    """
    for name, value in options.items():
        if isinstance(value, int | float) and not -LARGEST <= value <= LARGEST:
            raise UserError(
                f"--{name.replace('_', '-')} {value} is no number of any use.", f"Numbers go up to {LARGEST:,}."
            )


def command_function(name: str) -> Callable[..., dict[str, Any]]:
    """Return the function of a command: NAME in `recalign.commands.NAME`; `run` stands above those that it runs."""
    room = "workflow" if name == "run" else "commands"
    function: Callable[..., dict[str, Any]] = getattr(importlib.import_module(f"recalign.{room}.{name}"), name)
    return function


class CommandSignature:
    """What a command takes.

    Attributes:
        name: the command's name.
        function: see `command_function`.
        keys: what a recipe may state, without what the recipe itself decides.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.function = command_function(name)
        app = typer.Typer(add_completion=False)
        app.command(name=name)(with_signature_of(self.function)(lambda **options: options))
        self._command = get_command(app)
        self._parameters = {key: parameter for parameter in self._command.params for key in _keys_of(parameter)}
        self.keys = [key for key in self._parameters if key not in DECIDED_BY_THE_RECIPE and key != "param"]
        if "param" in self._parameters:
            self.keys.append(PARAMS)

    def takes(self, key: str) -> bool:
        """Whether the command has an option of this name (any, also those that a recipe may not state)."""
        return key in self._parameters or key in self.keys

    @property
    def positional(self) -> list[str]:
        """Keys of what stands without a name on the command line, in order."""
        return [key for key, parameter in self._parameters.items() if parameter.param_type_name == "argument"]

    def is_list(self, key: str) -> bool:
        """Whether an option takes several values."""
        if key not in self._parameters:
            return False
        parameter = self._parameters[key]
        return bool(parameter.nargs == -1 if parameter.param_type_name == "argument" else parameter.multiple)

    def check_key(self, key: str, where: str) -> None:
        """Refuse what the command does not take.

        Raises:
            UserError: naming the key, with did-you-mean.
        """
        if key in DECIDED_BY_THE_RECIPE:
            raise UserError(f"{where}: '{key}' is decided by the recipe.", "Leave it out.")
        if key not in self.keys:
            raise UserError(f"{where}: {self.name} takes no '{key}'.", did_you_mean(key, self.keys))

    def arguments(self, values: Mapping[str, Any], where: str) -> list[str]:
        """Spell options as one would type them after `recalign NAME`.

        Args:
            values: key -> value as TOML has it; `params` is a table.
            where: what states them, for error texts.

        Raises:
            UserError: an unknown key, or a value that cannot be spelt.
        """
        options: list[str] = []
        positional: dict[str, list[str]] = {}
        for key, value in values.items():
            self.check_key(key, where)
            if key == PARAMS:
                options += _assignments(value)
                continue
            parameter: Any = self._parameters[key]  # click's Argument or Option
            if parameter.param_type_name == "argument":
                positional[key] = self._texts(key, value, where)
            elif parameter.is_flag:
                if not isinstance(value, bool):
                    raise UserError(f"{where}: {key} = {value!r} is no switch position.", "Write true or false.")
                options += _longest(parameter.opts if value else parameter.secondary_opts)
            else:
                option = _longest(parameter.opts)[0]
                for text in self._texts(key, value, where):
                    options += [f"{option}={text}"] if text.startswith("-") else [option, text]
        return [*self._in_order(positional, where), *options]

    def parse(self, arguments: Sequence[str], where: str) -> dict[str, Any]:
        """Parse what `arguments` spelt into the function's keyword arguments: types, bounds and choices are checked.

        Raises:
            UserError: whatever the command line would refuse.
        """
        try:
            parsed = self._command.main(args=list(arguments), standalone_mode=False, prog_name=f"recalign {self.name}")
        except UsageError as error:
            raise UserError(
                f"{where}: {usage_text(error, arguments)}", f"`recalign {self.name} --help` explains it."
            ) from None
        except UserError as error:
            raise UserError(f"{where}: {error.what}", error.hint) from None
        return dict(parsed)

    def _in_order(self, positional: Mapping[str, list[str]], where: str) -> list[str]:
        """What stands without a name, in order; `prepare PATH` is how a path without a source is typed."""
        ordered = [text for key in self.positional for text in positional.get(key, ())]
        dash = next((text for text in ordered if text.startswith("-")), None)
        if dash:
            raise UserError(f"{where}: {dash!r} starts with a dash.", "Write a path as ./-name.")
        return ordered

    def _texts(self, key: str, value: Any, where: str) -> list[str]:
        if isinstance(value, list):
            if not self.is_list(key):
                raise UserError(f"{where}: {key} takes one value, not {value!r}.", "Sweeps go under `matrix`.")
            return [text for each in value for text in self._texts(key, each, where)]
        if isinstance(value, dict | bool):
            raise UserError(f"{where}: {key} = {value!r} is neither text nor a number.")
        return [str(value)]


@functools.cache
def signature_of(command: str) -> CommandSignature:
    """Return a command's signature (its module is imported once)."""
    return CommandSignature(command)


def _keys_of(parameter: Any) -> list[str]:
    """Recipe keys of a Typer parameter: its long names, without dashes in front; an argument's own name."""
    if parameter.param_type_name == "argument":
        return [parameter.name.replace("_", "-")]
    return [name.lstrip("-") for name in parameter.opts if name.startswith("--")]


def _assignments(params: Mapping[str, Any]) -> list[str]:
    spelt = {name: str(value).lower() if isinstance(value, bool) else str(value) for name, value in params.items()}
    return [text for name, value in spelt.items() for text in ("-p", f"{name}={value}")]


def _longest(names: Sequence[str]) -> list[str]:
    return [max(names, key=len)] if names else []
