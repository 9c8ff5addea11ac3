"""Small prepared datasets."""

import pytest

from tests.evaluation import prepared


@pytest.fixture
def write_dataset(tmp_path):
    """Write a dataset folder and open it."""
    return lambda *args, name="data", **options: prepared.write_dataset(tmp_path / name, *args, **options)


@pytest.fixture
def small(tmp_path):
    """Six items, three training users, four test rows; item 5 is in no training interaction."""
    return prepared.write_small(tmp_path / "small")
