"""What `recalign plugins new` writes: a package with one plugin, a test that passes, and a README."""

from __future__ import annotations

import keyword
import re
from pathlib import Path
from string import Template

from recalign import __version__
from recalign.errors import UserError, did_you_mean
from recalign.plugins.registry import KINDS, group_of

PYPROJECT = """\
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[project]
name = "recalign-$dashed"
version = "0.1.0"
description = "The $kind '$name' for recalign."
readme = "README.md"
requires-python = ">=3.10"
dependencies = ["recalign>=$version"]

[project.optional-dependencies]
test = ["pytest>=8"]

[project.entry-points."$group"]
$name = "recalign_$module"

[tool.hatch.build.targets.wheel]
only-include = ["recalign_$module.py"]

[tool.pytest.ini_options]
pythonpath = ["."]
testpaths = ["tests"]
"""

README = """\
# recalign-$dashed

The $kind `$name` for [recalign](https://pypi.org/project/recalign/).

    pip install -e ".[test]" && pytest
    recalign plugins check recalign-$dashed
    recalign plugins show $name

What it computes, and from which paper: say it in the docstring of `recalign_$module.py`.
"""

HEAD = '''\
"""$name: say in one line what this $kind does; `recalign plugins list` shows it."""

from __future__ import annotations

'''

TAIL = '''

@hookimpl
def recalign_$kind() -> type[$base]:
    """Hand over the class."""
    return $cls
'''

REWARD = '''\
import numpy as np

from recalign.api import INVALID, Field, Params, Metric, Row, hookimpl


class ${cls}Params(Params):
    """Parameters; `-p` does not reach rewards: write `$name(weight=2)` in the expression."""

    weight: float = Field(1.0, gt=0, description="multiplies the value")


class $cls(Metric):
    """Share of the list's positions that hold an item of the history (replace it by yours)."""

    Params = ${cls}Params
    paper = ""
    reads = frozenset({"history"})

    def score_one(self, items: np.ndarray, row: Row) -> float:
        """Value of one list: items [K], INVALID where the text is no item."""
        valid = items[items != INVALID]
        return self.params.weight * float(np.isin(valid, row.history).mean()) if len(valid) else 0.0
'''

REWARD_TEST = '''\
"""The reward on lists small enough to work out by hand."""

import numpy as np
from recalign_$module import $cls

from recalign.api import INVALID, Row

ROW = Row(0, "u", np.array([1, 2]), np.array([3]), np.array([1.0]), 0.0)


def test_counts_the_share_of_history_items():
    assert $cls().score_one(np.array([1, 9, INVALID]), ROW) == 0.5


def test_empty_list_is_worth_nothing():
    assert $cls().score_one(np.array([], dtype=np.int64), ROW) == 0.0
'''

OBJECTIVE = '''\
import torch

from recalign.api import Credit, Field, Groups, Objective, PolicyBatch, RolloutObjective, RolloutParams, hookimpl


class ${cls}Params(RolloutParams):
    """Parameters, beside those of every rollout objective."""

    power: float = Field(1.0, gt=0, description="advantages are raised to this power, their sign kept")


class $cls(RolloutObjective):
    """REINFORCE with the group's mean as baseline (replace it by yours)."""

    Params = ${cls}Params
    paper = ""

    def credit(self, groups: Groups) -> Credit:
        """Advantages [P, G]: reward minus the group's mean."""
        centred = groups.rewards - groups.rewards.mean(dim=1, keepdim=True)
        return Credit(centred.sign() * centred.abs() ** self.params.power)

    def loss(self, batch: PolicyBatch) -> tuple[torch.Tensor, dict[str, float]]:
        """Mean over completions of the summed -A log pi."""
        return -(batch.advantages * batch.logps * batch.mask).sum(dim=1).mean(), {}
'''

OBJECTIVE_TEST = '''\
"""Credit and loss on figures small enough to work out by hand."""

import torch
from recalign_$module import $cls

from recalign.api import Groups, PolicyBatch


def test_credit_is_the_distance_to_the_groups_mean():
    rewards = torch.tensor([[1.0, 0.0], [2.0, 2.0]], dtype=torch.float64)
    groups = Groups(rewards, None, torch.zeros(2, 2, 3, dtype=torch.int64), torch.zeros(2, 2))
    assert $cls().credit(groups).advantages.tolist() == [[0.5, -0.5], [0.0, 0.0]]


def test_loss_raises_the_probability_of_what_was_good():
    logps = torch.full((2, 1), -1.0, requires_grad=True)
    advantages, mask = torch.tensor([[1.0], [-1.0]]), torch.ones(2, 1, dtype=torch.bool)
    loss, _ = $cls().loss(PolicyBatch(logps, logps.detach(), None, advantages, mask))
    loss.backward()
    assert logps.grad[0, 0] < 0 < logps.grad[1, 0]
'''

DECODER = '''\
from collections.abc import Sequence
from typing import TYPE_CHECKING

from recalign.api import Decoder, Field, Params, Predictions, Row, hookimpl

if TYPE_CHECKING:
    from recalign.decoding.engine import Engine


class ${cls}Params(Params):
    """Parameters."""

    shift: int = Field(0, ge=0, description="how many of the best items to pass over")


class $cls(Decoder):
    """Recommends the most popular items to everybody (replace it by yours: `engine` samples and searches)."""

    Params = ${cls}Params
    paper = ""

    def decode(self, engine: Engine, rows: Sequence[Row], size: int) -> Predictions:
        """Recommend `size` items for each row."""
        import numpy as np

        popularity = engine.catalogue.popularity
        best = np.argsort(-popularity, kind="stable")[self.params.shift : self.params.shift + size]
        items = np.tile(best, (len(rows), 1))  # [U, K]
        return Predictions(items, popularity[items].astype(float), np.full(len(rows), len(best)))
'''

DECODER_TEST = '''\
"""The decoder with a stand-in for the engine."""

from types import SimpleNamespace

import numpy as np
from recalign_$module import $cls


def test_recommends_the_most_popular():
    engine = SimpleNamespace(catalogue=SimpleNamespace(popularity=np.array([1, 5, 3])))
    predictions = $cls().decode(engine, [None, None], 2)
    assert predictions.items.tolist() == [[1, 2], [1, 2]]
    assert predictions.lengths.tolist() == [2, 2]
'''

SOURCE = '''\
from pathlib import Path

from recalign.api import Field, Params, RawData, Source, hookimpl


class ${cls}Params(Params):
    """Parameters."""

    users: int = Field(3, ge=1, description="how many users to make up")


class $cls(Source):
    """A few made-up interactions (replace it by yours: return lazy frames, so that nothing is loaded at once)."""

    Params = ${cls}Params
    paper = ""
    needs_path = False

    def read(self, path: Path | None, seed: int) -> RawData:
        """Read the raw data."""
        import polars as pl

        users = self.params.users
        events = pl.LazyFrame(
            {
                "user_id": [str(user) for user in range(users) for _ in range(2)],
                "item_id": ["a", "b"] * users,
                "timestamp": [float(event) for event in range(2 * users)],
                "rating": [5.0, 1.0] * users,
            }
        )
        items = pl.LazyFrame(
            {"item_id": ["a", "b"], "title": ["A", "B"], "genres": [["Drama"], ["Comedy"]], "text": ["", ""]}
        )
        return RawData(items=items, events=events)
'''

SOURCE_TEST = '''\
"""The source's frames."""

from recalign_$module import $cls


def test_every_event_names_an_item_of_the_catalogue():
    data = $cls().read(None, seed=0)
    items, events = data.items.collect(), data.events.collect()
    assert set(events["item_id"]) <= set(items["item_id"])
    assert len(events) == 6
'''

TEMPLATES = {
    "objective": ("Objective", OBJECTIVE, OBJECTIVE_TEST),
    "metric": ("Metric", REWARD, REWARD_TEST),
    "decoder": ("Decoder", DECODER, DECODER_TEST),
    "source": ("Source", SOURCE, SOURCE_TEST),
}


def write_package(kind: str, name: str, folder: Path) -> list[Path]:
    """Write a package with one plugin.

    Args:
        kind: objective, reward, decoder or source.
        name: what users will type.
        folder: where to write; must be new or empty.

    Returns:
        The files written.

    Raises:
        UserError: an unknown kind, a name that cannot be typed, or a folder with something in it.
    """
    if kind not in KINDS:
        raise UserError(f"There is no kind of plugin '{kind}'.", did_you_mean(kind, KINDS))
    if not re.fullmatch(r"[a-z][a-z0-9]*([_-][a-z0-9]+)*", name) or keyword.iskeyword(name):
        raise UserError(
            f"'{name}' cannot be the name of a plugin.",
            "Use lower-case letters and digits, joined by single hyphens or underscores.",
        )
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} is not empty.", "Choose another --out.")
    base, code, test = TEMPLATES[kind]
    module = name.replace("-", "_")
    values = {
        "kind": kind,
        "name": name,
        "module": module,
        "dashed": name.replace("_", "-"),
        "cls": "".join(part.capitalize() for part in module.split("_")),
        "base": base,
        "group": group_of(kind),
        "version": __version__,
    }
    files = {
        "pyproject.toml": PYPROJECT,
        "README.md": README,
        f"recalign_{module}.py": HEAD + code + TAIL,
        f"tests/test_{module}.py": test,
    }
    written = []
    for path, text in files.items():
        file = folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(Template(text).substitute(values), encoding="utf-8")
        written.append(file)
    return written
