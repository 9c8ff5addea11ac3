"""Writing Parquet files so that a full disk is told as such."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import polars as pl


def write_parquet(file: Path, frame: pl.DataFrame) -> None:
    """Write through pyarrow: on a full disk it raises OSError, which polars' own writer hides in another error.

    The file is opened here: handed a path, pyarrow deletes what stands there when it fails.
    """
    import pyarrow.parquet

    with file.open("wb") as sink:
        pyarrow.parquet.write_table(frame.to_arrow(), sink)
