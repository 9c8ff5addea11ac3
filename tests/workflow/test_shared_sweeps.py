"""Sweeps that a step takes over from an earlier one: `matrix.system = "@beam"`."""

from pathlib import Path

import pytest

from recalign.errors import UserError
from recalign.workflow.plan import plan
from recalign.workflow.recipe import load_recipe

SWEEP = 'matrix.system = [{ name = "A", model = "one" }, { name = "B", model = "@sft" }]'

RECIPE = f"""
[[step]]
command = "sft"

[[step]]
name = "beam"
command = "decode"
decoder = "beam"
{SWEEP}

[[step]]
name = "exact"
command = "decode"
decoder = "exact"
matrix.system = "@beam"

[[step]]
name = "again"
command = "decode"
decoder = "exact"
matrix.system = "@exact"
"""

PAIRED = """
[[step]]
command = "eval"
predictions = "@beam"
exact = "@exact"
"""


def steps(text, *overrides):
    Path("x.toml").write_text(text)
    return {step.id: step for step in plan(load_recipe("x.toml", overrides), Path("runs/x"))}


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def swept(text, *overrides):
    return [step.id for step in steps(text, *overrides).values() if step.axes]


def test_its_places_are_those_of_the_step_that_states_it():
    found = steps(RECIPE + PAIRED)
    assert found["exact/system=A"].options["model"] == "one"
    assert found["again/system=B"].options["model"] == "runs/x/sft"
    assert found["again/system=B"].needs == ("sft",)
    assert found["eval/system=B"].needs == ("beam/system=B", "exact/system=B")


def test_it_asks_for_what_the_sweep_spelt_out_asks_for():
    spelt_out = RECIPE.replace('matrix.system = "@beam"', SWEEP).replace('matrix.system = "@exact"', SWEEP)
    assert spelt_out != RECIPE
    assert {id: step.key for id, step in steps(spelt_out).items()} == {id: s.key for id, s in steps(RECIPE).items()}


@pytest.mark.parametrize("assignment", ["system=B", "beam.matrix.system=B"])
def test_an_assignment_reaches_all_who_share_it(assignment):
    assert swept(RECIPE + PAIRED, assignment) == [f"{step}/system=B" for step in ("beam", "exact", "again", "eval")]


def test_one_who_shares_it_may_keep_some_of_its_places():
    assert swept(RECIPE, "again.matrix.system=B") == [
        "beam/system=A",
        "beam/system=B",
        "exact/system=A",
        "exact/system=B",
        "again/system=B",
    ]
    with pytest.raises(UserError, match="no such place") as error:
        steps(RECIPE, "again.matrix.system=b")
    assert "A, B" in error.value.hint


@pytest.mark.parametrize(
    ("axis", "sweep", "what", "hint"),
    [
        ("system", "@beem", "there is no earlier step 'beem'", "'beam'"),
        ("sistem", "@beam", "step 'beam' states no such sweep", "'system'"),
        ("system", "@beam/x", "step 'beam' states no such sweep", ""),
        ("system", "@sft", "step 'sft' states no such sweep", ""),
        ("system", "beam", "is no list of values", ""),
    ],
)
def test_what_names_no_sweep_is_refused(axis, sweep, what, hint):
    with pytest.raises(UserError) as error:
        steps(RECIPE + f'[[step]]\nname = "last"\ncommand = "decode"\nmatrix.{axis} = "{sweep}"\n')
    assert what in error.value.what
    assert hint in error.value.hint
