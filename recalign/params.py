"""Plugin parameters: one typed, bounded, documented declaration that the CLI, recipes, docs and schema all read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, ValidationError

from recalign.errors import UserError, did_you_mean, shortened


class Params(BaseModel):
    """Base of every plugin's parameters.

    Declare fields with `pydantic.Field(default, ge=..., le=..., description=...)`: the description is what
    `recalign plugins show` prints. Unknown names are errors.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, protected_namespaces=())


LARGEST = 2**53
"""The largest whole number of a parameter: beyond it, arithmetic loses the last digit."""
AnyParams = TypeVar("AnyParams", bound=Params)


def parse_assignments(assignments: Iterable[str]) -> dict[str, str]:
    """Split `-p key=value` options; a value is kept as it is, for it may be blank characters.

    Raises:
        UserError: an assignment without `=`, or a key given twice.
    """
    values: dict[str, str] = {}
    for text in assignments:
        key, equals, value = text.partition("=")
        key = key.strip()
        if not equals or not key:
            raise UserError(f"-p {text!r} is not of the form key=value.", "Write it as -p tau=0.3.")
        if key in values:
            raise UserError(f"-p {key} is given twice ({values[key]!r} and {value!r}).", "Keep one of them.")
        values[key] = value
    return values


def build_params(model: type[AnyParams], values: Mapping[str, Any], owner: str, hint: str = "") -> AnyParams:
    """Check values (strings from the command line, or typed ones from TOML) against a declaration.

    Args:
        model: the plugin's declaration.
        values: name -> value.
        owner: what the parameters belong to, for the error text, such as "objective 'blade'".
        hint: what to do about a refused value; by default the parameter's meaning is told.

    Raises:
        UserError: an unknown name (with did-you-mean), a wrong type or a value out of bounds.
    """
    unknown = [name for name in values if name not in model.model_fields]
    if unknown:
        raise UserError(
            f"{owner} has no parameter '{unknown[0]}'.",
            did_you_mean(unknown[0], model.model_fields) if model.model_fields else "It takes no parameters.",
        )
    try:
        made = model(**{name: _trimmed(model, name, value) for name, value in values.items()})
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"]) or "parameters"
        field = model.model_fields.get(name)
        meaning = f"It means: {field.description}." if field is not None and field.description else ""
        raise UserError(
            f"{owner}: {name} = {shortened(repr(first.get('input')), 200)} is refused: {first['msg'].lower()}.",
            hint or meaning,
        ) from None
    large = next((name for name, value in made if isinstance(value, int) and abs(value) > LARGEST), None)
    if large is not None:
        raise UserError(f"{owner}: {large} = {shortened(str(getattr(made, large)), 40)} is too large.", hint)
    return made


def _trimmed(model: type[Params], name: str, value: Any) -> Any:
    """Text without blanks around it, but of a parameter that is itself text."""
    declared = model.model_fields[name].annotation
    return value.strip() if isinstance(value, str) and str not in (declared, *get_args(declared)) else value


def describe_params(model: type[Params]) -> list[dict[str, Any]]:
    """Return one row a parameter: name, type, bounds, default, description, read from the declaration."""
    properties = model.model_json_schema().get("properties", {})
    rows = []
    for name, field in model.model_fields.items():
        schema = properties.get(name, {})
        options = schema.get("anyOf", [schema])
        kinds = [str(option.get("type") or "|".join(map(str, option.get("enum", ["any"])))) for option in options]
        symbols = {"minimum": ">=", "exclusiveMinimum": ">", "maximum": "<=", "exclusiveMaximum": "<"}
        bounds = [f"{symbol} {option[key]:g}" for option in options for key, symbol in symbols.items() if key in option]
        choices = next(("|".join(map(str, option["enum"])) for option in options if "enum" in option), "")
        rows.append(
            {
                "name": name,
                "type": choices or "|".join(kinds),
                "bounds": ", ".join(bounds),
                "default": "required" if field.is_required() else field.get_default(call_default_factory=True),
                "description": field.description or "",
            }
        )
    return rows
