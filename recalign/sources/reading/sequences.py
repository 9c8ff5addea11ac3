"""Lines that hold a user and, after it, the items of that user: `user item item item`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from recalign.errors import UserError
from recalign.sources.reading.files import whole_lines
from recalign.sources.reading.records import NAMED, Batch, Reason, Records, Refusal

if TYPE_CHECKING:
    pass

LONELY = Reason("no item after the user", "Mend or delete the line, or name another separator with -p separator=TEXT.")


class Sequences(Records):
    """A column of users and one of lists of items.

    Args:
        file: the file.
        columns: names of the two columns.
        separator: between a line's ids; several in a row count once.
        encoding: of the text, where it has no byte order mark.

    Raises:
        UserError: there are not two names of columns.
    """

    place = "line"

    def __init__(self, file: Path, columns: Sequence[str], separator: str, encoding: str) -> None:
        import polars as pl

        if len(columns) != 2:  # noqa: PLR2004
            raise UserError(
                f"A line with a user and its items has two columns, not {', '.join(columns)}.",
                "Pass -p columns=user_id,item_id.",
            )
        self.file, self.separator, self.encoding = file, separator, encoding
        self.schema = {columns[0]: pl.String(), columns[1]: pl.List(pl.String)}

    def batches(self, columns: Sequence[str]) -> Iterator[Batch]:
        """Read the file. Arguments and errors: as the base's."""
        import polars as pl

        done = 0
        for data, _ in whole_lines(self.file, self.encoding):
            lines = data.decode("utf-8", "replace").split("\n")
            filled = np.array([index for index, line in enumerate(lines) if line.strip()], np.int64)
            number = done + 1 + filled
            done += len(lines) - 1
            text = pl.Series([lines[index].strip() for index in filled], dtype=pl.String)
            ids = text.str.split(self.separator).list.eval(pl.element().filter(pl.element() != ""))
            users, items = self.schema
            frame = pl.DataFrame({users: ids.list.first(), items: ids.list.slice(1)})
            lonely = (ids.list.len() < 2).to_numpy()  # noqa: PLR2004
            said = [(int(number[i]), f"one id alone: {text[int(i)][:60]!r}") for i in np.flatnonzero(lonely)[:NAMED]]
            refused = [Refusal(LONELY, int(lonely.sum()), said)] if said else []
            yield Batch(frame.select(columns).filter(~lonely), number[~lonely], refused)
