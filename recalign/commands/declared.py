"""Options that a pydantic model declares, as options of a command: name, type, default and help are stated once."""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Callable
from typing import Annotated, Any, Literal, Union

import typer

from recalign.params import Params

Command = Callable[..., dict[str, Any]]


def takes(model: type[Params]) -> Callable[[Command], Command]:
    """Give a command with `**options` one option per field of a model, before its own.

    An option that is left out is None: what follows from that, the model's own module says. The values of choices are
    left to the model too, whose errors suggest what was meant.

    Args:
        model: every field has a description, which becomes the option's help.
    """

    def decorate(command: Command) -> Command:
        signature = inspect.signature(command, eval_str=True)
        own = [each for each in signature.parameters.values() if each.kind is not inspect.Parameter.VAR_KEYWORD]
        first = next(place for place, each in enumerate(own) if each.kind is inspect.Parameter.KEYWORD_ONLY)
        declared = [_option(name, field) for name, field in model.model_fields.items()]
        command.__signature__ = signature.replace(parameters=[*own[:first], *declared, *own[first:]])  # type: ignore[attr-defined]
        return command

    return decorate


def _option(name: str, field: Any) -> inspect.Parameter:
    """One field as a keyword-only parameter that Typer reads."""
    kind = _plain(field.annotation)
    flags = (f"--{name.replace('_', '-')}",) if kind is bool else ()
    shown = "" if field.default in (None, False) else f" (default: {field.default})"
    text = f"{field.description[:1].upper()}{field.description[1:]}{shown}."
    annotation = Annotated[kind | None, typer.Option(*flags, help=text)]  # type: ignore[valid-type]
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)


def _plain(annotation: Any) -> type:
    """The type that the command line parses: without None, and text for choices."""
    origin = typing.get_origin(annotation)
    if origin in (Union, types.UnionType):
        (annotation,) = [part for part in typing.get_args(annotation) if part is not type(None)]
        origin = typing.get_origin(annotation)
    return str if origin is Literal else annotation
