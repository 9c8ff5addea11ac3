"""Parameters: one declaration for checking, converting and describing."""

from typing import Literal

import pytest

from recalign.api import Field, NoParams, Params
from recalign.errors import UserError
from recalign.params import build_params, describe_params, parse_assignments


class Example(Params):
    """Parameters of nothing."""

    tau: float = Field(0.3, ge=0, description="weight")
    size: int = Field(16, ge=2, le=64, description="samples")
    scale: Literal["std", "none"] = Field("std", description="how")
    ratio: float | None = Field(None, gt=0, description="share")
    switch: bool = Field(True, description="on or off")


def test_text_from_the_command_line_becomes_what_is_declared():
    built = build_params(Example, parse_assignments(["tau=0.5", "size= 8", "switch=false", "scale=none"]), "thing 'x'")
    assert built == Example(tau=0.5, size=8, switch=False, scale="none")


def test_defaults_hold_where_nothing_is_said():
    assert build_params(Example, {}, "thing 'x'") == Example()


@pytest.mark.parametrize(
    ("values", "what", "hint"),
    [
        ({"tua": "1"}, "objective 'x' has no parameter 'tua'", "Did you mean 'tau'"),
        ({"tau": "-1"}, "tau = '-1' is refused: input should be greater than or equal to 0", "plugins show x"),
        ({"tau": "nan"}, "tau = 'nan' is refused", "plugins show x"),
        ({"tau": "inf"}, "tau = 'inf' is refused", "plugins show x"),
        ({"size": "8.5"}, "size = '8.5' is refused", "plugins show x"),
        ({"size": "65"}, "size = '65' is refused", "plugins show x"),
        ({"scale": "max"}, "scale = 'max' is refused: input should be 'std' or 'none'", "plugins show x"),
        ({"switch": "maybe"}, "switch = 'maybe' is refused", "plugins show x"),
    ],
)
def test_what_the_declaration_refuses_is_named_with_its_value(values, what, hint):
    with pytest.raises(UserError) as error:
        build_params(
            Example, values, "objective 'x'", "`recalign plugins show x` lists them." if "tua" not in values else ""
        )
    assert what in error.value.what
    assert hint in error.value.hint


def test_a_plugin_without_parameters_says_so():
    with pytest.raises(UserError) as error:
        build_params(NoParams, {"tau": 1}, "reward 'ndcg'")
    assert error.value.hint == "It takes no parameters."


@pytest.mark.parametrize(("text", "message"), [("tau", "not of the form"), ("=1", "not of the form")])
def test_an_assignment_without_key_or_sign_is_refused(text, message):
    with pytest.raises(UserError, match=message):
        parse_assignments([text])


def test_a_key_given_twice_is_refused():
    with pytest.raises(UserError, match="given twice"):
        parse_assignments(["tau=1", "tau=2"])


def test_a_value_may_hold_equals_signs():
    assert parse_assignments(["where=a=b"]) == {"where": "a=b"}


class Texts(Params):
    """Parameters that are text, and one that is not."""

    separator: str | None = Field(None, min_length=1, max_length=1, description="between columns")
    between: str = Field("|", description="between genres")
    size: int | None = Field(None, description="number")


@pytest.mark.parametrize("blank", ["\t", " ", ", "])
def test_blanks_of_text_survive(blank):
    built = build_params(Texts, parse_assignments([f"between={blank}", "size= 3 "]), "thing 'x'")
    assert built == Texts(between=blank, size=3)
    assert build_params(Texts, parse_assignments(["separator=\t"]), "thing 'x'").separator == "\t"


def test_description_is_read_off_the_declaration():
    rows = {row["name"]: row for row in describe_params(Example)}
    assert rows["tau"] == {"name": "tau", "type": "number", "bounds": ">= 0", "default": 0.3, "description": "weight"}
    assert rows["size"]["bounds"] == ">= 2, <= 64"
    assert rows["scale"]["type"] == "std|none"
    assert rows["ratio"]["type"] == "number|null"
    assert rows["ratio"]["bounds"] == "> 0"
    assert rows["switch"]["type"] == "boolean"


def test_parameters_cannot_be_changed_afterwards():
    with pytest.raises(ValueError, match="frozen"):
        Example().tau = 1.0
