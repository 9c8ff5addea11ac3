"""Fixtures for the tests of plugins: `pytest_plugins = ["recalign.testing.fixtures"]` in a test module or conftest.

They need no files, no network and no graphics card.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from recalign.api import Catalogue, ListBatch, Plugin, Row, TrainingData
from recalign.data.dataset import PreparedDataset

if TYPE_CHECKING:
    import polars as pl

    from recalign.decoding.engine import PolicyEngine


@pytest.fixture
def recalign_dataset() -> Callable[..., PreparedDataset]:
    """`recalign_dataset("next")`: the embedded dataset, prepared for a task: 60 users, 40 items in 4 genres."""
    from recalign.testing.example import example_dataset

    return example_dataset


@pytest.fixture
def recalign_engine() -> Callable[..., PolicyEngine]:
    """`recalign_engine("next")`: an engine over that dataset, with a tiny model of random weights."""
    from recalign.testing.example import example_engine

    return example_engine


@pytest.fixture
def recalign_rows() -> Callable[..., list[Row]]:
    """`recalign_rows("next")`: six rows of its test split; the last one has no history, but in the rank task."""
    from recalign.testing.example import example_rows

    return example_rows


@pytest.fixture
def recalign_training() -> TrainingData:
    """What a recommender is fitted on: the training interactions of the embedded dataset."""
    from recalign.testing.example import example_dataset

    return TrainingData.of(example_dataset("next"))


@pytest.fixture
def recalign_interactions() -> pl.DataFrame:
    """The raw interactions of the embedded dataset: user_id, item_id, timestamp, rating."""
    from recalign.testing.example import example_interactions

    return example_interactions()


@pytest.fixture
def recalign_lists() -> ListBatch:
    """Six lists of three for two rows over 8 items: full ones, a repeated item, text that is no item, an empty one."""
    from recalign.plugins.check import examples

    return examples.lists()


@pytest.fixture
def recalign_catalogue() -> Catalogue:
    """The catalogue of `recalign_lists`: 8 items, dramas and comedies, every fourth without a genre."""
    from recalign.plugins.check import examples

    return examples.catalogue()


@pytest.fixture
def recalign_problems() -> Callable[[Plugin], list[str]]:
    """`recalign_problems(plugin)`: what `recalign plugins check` finds wrong with a plugin, one line per problem."""
    from recalign.plugins.check.plugin import problems

    return problems
