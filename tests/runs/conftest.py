"""Small prepared datasets."""

from tests.evaluation.conftest import small, write_dataset

__all__ = ["small", "write_dataset"]
