"""Jinja templates that end: a template is a program of the user's or of a model's author, and has its bounds counted.

The bounds are numbers of steps and sizes, not seconds: a template is refused on every machine or on none.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextvars import ContextVar
from functools import wraps
from typing import Any

import jinja2
import jinja2.nodes
import jinja2.sandbox

MAX_STEPS = 1_000_000
"""Of one rendering: rounds of loops, and calls and filters."""
CALL = 10
"""Steps that a call or a filter counts as: it takes about as long as ten rounds of a loop."""
MAX_SIZE = 4_000_000
"""Characters of a text, items of a list, and the value of a number that asks for so many."""
MAX_SOURCE = 1_000_000
"""Characters of a template."""
_STEPS: ContextVar[list[int]] = ContextVar("steps")
_ROUNDS, _SIZED = "recalign_rounds", "recalign_sized"  # filters, which no template can name by chance


class TooMuch(jinja2.TemplateRuntimeError):
    """A template computes more than any prompt needs."""


class BoundedEnvironment(jinja2.sandbox.ImmutableSandboxedEnvironment):
    """A sandbox in which loops, calls and filters are counted, and sizes are bounded before they are computed.

    Templates cannot draw at random either.

    Args:
        **options: as jinja2's.
    """

    intercepted_binops = frozenset(("*", "**", "+", "%", "//"))

    def __init__(self, **options: Any) -> None:
        super().__init__(**options, finalize=_sized)
        self._bound(self.filters, self.globals)

    @classmethod
    def like(cls, other: jinja2.Environment) -> BoundedEnvironment:
        """Return an environment with the extensions, filters, globals and treatment of blanks of another."""
        made = cls(
            trim_blocks=other.trim_blocks,
            lstrip_blocks=other.lstrip_blocks,
            undefined=other.undefined,
            extensions=[type(extension) for extension in other.extensions.values()],
        )
        made._bound(other.filters, other.globals)
        return made

    def _bound(self, filters: Mapping[str, Callable[..., Any]], names: Mapping[str, Any]) -> None:
        self.filters = {name: _counted(name, function) for name, function in filters.items()}
        self.filters |= {"random": _refuse, _ROUNDS: _rounds, _SIZED: _sized}
        self.globals = {**names, "lipsum": _refuse}

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """Compute an operation whose result has a bounded size."""
        if operator == "*":
            _check_product(left, right)
        elif operator == "**" and _size(right) * math.log2(max(_size(left), 1.0)) > 1000:
            raise TooMuch(f"{left} ** {right} is too large a number")
        elif operator == "%" and isinstance(left, str):
            _check_widths(left)
        return _sized(super().call_binop(context, operator, left, right))

    def call(__self, __context: Any, __obj: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: N805
        """Call what a template calls, as a step, with arguments of bounded size."""
        owner = getattr(getattr(__obj, "__wrapped__", __obj), "__self__", None)  # jinja2 wraps str.format
        _check_arguments(getattr(__obj, "__name__", "a call"), [owner, *args, *kwargs.values()])
        return _sized(super().call(__context, __obj, *args, **kwargs))

    def _generate(self, source: jinja2.nodes.Template, *arguments: Any, **options: Any) -> Any:
        """Have the rounds of loops counted, and what is put together measured, in the program of a template."""
        for node in [*source.find_all(jinja2.nodes.For)]:
            node.iter = _filtered(node.iter, _ROUNDS)
        for parent in [*source.find_all(jinja2.nodes.Node)]:
            _measure_inside(parent)
        return super()._generate(source, *arguments, **options)

    def _parse(self, source: str, *arguments: Any) -> jinja2.nodes.Template:
        if len(source) > MAX_SOURCE:
            raise jinja2.TemplateSyntaxError(f"it has {len(source):,} characters; at most {MAX_SOURCE:,} are read", 1)
        try:
            return super()._parse(source, *arguments)
        except RecursionError:
            raise jinja2.TemplateSyntaxError("it is nested too deeply", 1) from None


def render(program: jinja2.Template, variables: Mapping[str, Any]) -> str:
    """Render a template of a `BoundedEnvironment`.

    Args:
        program: the template.
        variables: name -> value.

    Raises:
        Exception: whatever the template raises; `TooMuch` where it computes too much.
    """
    token, size, parts = _STEPS.set([0]), 0, []
    try:
        for part in program.generate(variables):
            size += len(part)
            if size > MAX_SIZE:
                raise TooMuch(f"the prompt has more than {MAX_SIZE:,} characters")
            parts.append(part)
    except RecursionError:
        raise TooMuch("it calls itself too deeply") from None
    finally:
        _STEPS.reset(token)
    return "".join(parts)


def _step(count: int = 1) -> None:
    steps = _STEPS.get([0])
    steps[0] += count
    if steps[0] > MAX_STEPS:
        raise TooMuch(f"it takes more than {MAX_STEPS:,} steps, and may never end")


def _rounds(values: Iterable[Any]) -> Iterable[Any]:
    """The values of a loop, each a step; a list stays one, for loops ask for its length."""
    if isinstance(values, list | tuple | str | dict | range):
        _step(len(values))
        return values
    return _one_by_one(values)


def _one_by_one(values: Iterable[Any]) -> Iterator[Any]:
    for value in values:
        _step()
        yield value


def _counted(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """A filter that counts as a step, with arguments and a result of bounded size."""

    @wraps(function)  # which carries over what Jinja is to pass it, such as the environment
    def bounded(*arguments: Any, **options: Any) -> Any:
        _check_arguments(name, [*arguments, *options.values()])
        return _sized(function(*arguments, **options))

    return bounded


def _check_arguments(name: str, arguments: list[Any]) -> None:
    """Refuse a call whose result could be larger than the product of what it is handed."""
    _step(CALL)
    large = next((each for each in arguments if isinstance(each, int) and abs(each) > MAX_SIZE), None)
    if large is not None:
        raise TooMuch(f"{name} is asked for {large}, which is too many")
    if name in ("replace", "join", "translate", "indent", "wordwrap", "center", "ljust", "rjust", "zfill", "format"):
        *_, second, first = sorted([0.0, 0.0, *map(_size, arguments)])
        if (first + 1) * second > MAX_SIZE * 10:
            raise TooMuch(f"{name} makes a text that is too long")
        for text in arguments:
            if name == "format" and isinstance(text, str):
                _check_widths(text)


def _check_product(left: Any, right: Any) -> None:
    """Refuse a repetition that is too long, or a product with too many digits."""
    repeated = any(isinstance(each, str | list | tuple) for each in (left, right))
    if repeated and _size(left) * _size(right) > MAX_SIZE:
        raise TooMuch(f"a repetition has more than {MAX_SIZE:,} parts")
    if not repeated and _size(left) * _size(right) > 2.0**1023:
        raise TooMuch("a product is too large a number")


def _check_widths(form: str) -> None:
    """Refuse a format that pads to a length beyond all bounds, or to one that is not written in it."""
    digits = "".join(each if each.isdigit() else " " for each in form).split()
    if "*" in form or any(len(each) > 6 for each in digits):
        raise TooMuch("a format pads to too many characters")


def _size(value: Any) -> float:
    if isinstance(value, str | list | tuple | dict):
        return float(len(value))
    if isinstance(value, int):
        return float(abs(value)) if value.bit_length() < 1024 else float("inf")
    return abs(value) if isinstance(value, float) else 1.0


def _sized(value: Any) -> Any:
    """Return a value of bounded size: what it holds counts as often as it is held, as it does where it is written."""
    waiting, size = [value], 0
    while waiting:
        each = waiting.pop()
        if isinstance(each, str):
            size += len(each)
        elif isinstance(each, dict):
            waiting += [*each.keys(), *each.values()]
        elif isinstance(each, list | tuple):
            waiting += each
        size += 1
        if size > MAX_SIZE:
            raise TooMuch(f"a value has more than {MAX_SIZE:,} parts")
        if waiting:
            _step()
    return value


def _filtered(node: jinja2.nodes.Expr, name: str) -> jinja2.nodes.Filter:
    made = jinja2.nodes.Filter(node, name, [], [], None, None, lineno=node.lineno)
    made.set_environment(node.environment)
    return made


def _measure_inside(parent: jinja2.nodes.Node) -> None:
    """Measure what a node's expressions put together: texts by `~`, lists, tuples and tables."""
    for name, value in [*parent.iter_fields()]:
        if isinstance(value, list):
            setattr(parent, name, [_measured(each) for each in value])
        else:
            setattr(parent, name, _measured(value))


def _measured(node: Any) -> Any:
    made = isinstance(node, jinja2.nodes.Concat | jinja2.nodes.List | jinja2.nodes.Dict)
    made = made or (isinstance(node, jinja2.nodes.Tuple) and node.ctx == "load")
    return _filtered(node, _SIZED) if made else node


def _refuse(*_: Any, **__: Any) -> str:
    raise jinja2.TemplateRuntimeError("it draws at random, so that no prompt could be made twice")
