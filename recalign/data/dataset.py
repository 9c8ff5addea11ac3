"""The prepared dataset: `items.parquet`, `interactions.parquet`, `train|valid|test/data.arrow`, `dataset.json`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import Field

from recalign.data.catalogue import Catalogue
from recalign.data.columns import Columns
from recalign.data.questions import Question
from recalign.errors import UserError, did_you_mean
from recalign.reading import FileRecord, checked, read_object, read_parquet, reading

if TYPE_CHECKING:
    import polars as pl
    import pyarrow

SPLITS = ("train", "valid", "test")
FORMAT_VERSION = 1
AGAIN = "Prepare the dataset again."
ExcludeHistory = Literal["auto", "yes", "no"]


@dataclass(frozen=True)
class Row:
    """One prediction to make: a user's history, oldest first, and what came next.

    Args:
        index: position of the row in its split; random streams are seeded by (seed, epoch, index).
        user_id: raw user id.
        history: [H] item indices, oldest first.
        targets: [T] item indices after the cut, in time order.
        gains: [T] relevance of each target (0.0 = consumed, but not relevant).
        timestamp: time of the first target.
        candidates: [X] item indices to rank, or None for the whole catalogue.
        earlier: [E] item indices consumed before the history's window: too old for a prompt, yet not recommended again
            where the history is excluded.
        times: [H] seconds since 1970 of each item of the history, or None where prompts do not show them.
        ratings: [H] the user's ratings, NaN where there is none; None likewise.
        profile: what the source says of the user, in words; possibly nothing.
        question: the one candidate that is asked about, or None: the row asks for items.
    """

    index: int
    user_id: str
    history: np.ndarray
    targets: np.ndarray
    gains: np.ndarray
    timestamp: float
    candidates: np.ndarray | None = None
    earlier: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    times: np.ndarray | None = None
    ratings: np.ndarray | None = None
    profile: str = ""
    question: Question | None = None

    def recalling(self, kept: slice | np.ndarray) -> Row:
        """Return the row with a part of its history (a slice, bool [H] or indices), times and ratings with it."""
        times = None if self.times is None else self.times[kept]
        ratings = None if self.ratings is None else self.ratings[kept]
        return replace(self, history=self.history[kept], times=times, ratings=ratings)

    @property
    def consumed(self) -> np.ndarray:
        """[E + H] every item consumed before the cut."""
        return np.concatenate([self.earlier, self.history])

    @property
    def relevant(self) -> np.ndarray:
        """[R] the targets whose gain is above zero."""
        return self.targets[self.gains > 0]


class Rows(Sequence[Row]):
    """A split, read lazily; `rows[i]` is a Row, `rows[a:b]` a list of them.

    Args:
        table: as `recalign prepare` writes it, memory-mapped.
    """

    def __init__(self, table: pyarrow.Table) -> None:
        self.table = table
        self._columns = Columns(table)

    def __len__(self) -> int:
        return int(self.table.num_rows)

    def __getitem__(self, index):  # type: ignore[no-untyped-def]
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        index = int(index) % len(self)
        value = self._columns.value

        def array(name: str, kind: type) -> np.ndarray | None:
            found = value(name, index)
            return None if found is None else np.array(found, dtype=kind)

        def needed(name: str, kind: type) -> np.ndarray:
            found = array(name, kind)
            return np.zeros(0, dtype=kind) if found is None else found

        return Row(
            index=index,
            user_id=str(value("user_id", index)),
            history=needed("history", np.int64),
            targets=needed("targets", np.int64),
            gains=needed("gains", np.float64),
            timestamp=float(value("timestamp", index)),
            candidates=array("candidates", np.int64),
            earlier=needed("earlier", np.int64),
            times=array("times", np.float64),
            ratings=array("ratings", np.float64),
            profile=str(value("profile", index) or ""),
        )

    @property
    def users(self) -> list[str]:
        """[U] raw user id of each row."""
        return [str(user) for user in self.table["user_id"].to_pylist()]

    def of_user(self, user: str) -> list[int]:
        """Return the indices of a user's rows."""
        return [index for index, each in enumerate(self.users) if each == user]

    def __iter__(self) -> Iterator[Row]:
        for index in range(len(self)):
            yield self[index]


class DatasetOptions(FileRecord):
    """What is relied on of the options in dataset.json."""

    task: str
    identifier: str
    list_length: int = Field(ge=1)
    exclude_history: bool


class DatasetInfo(FileRecord):
    """What is relied on in dataset.json."""

    hash: str
    measured_hash: str = ""
    options: DatasetOptions


class PreparedDataset:
    """A folder written by `recalign prepare`.

    Attributes:
        path: the folder.
        info: `dataset.json`: format, source, options, counts, warnings, hashes.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        file = self.path / "dataset.json"
        if not file.is_file():
            why = "it has no dataset.json" if self.path.exists() else "it does not exist"
            raise UserError(
                f"{self.path} is not a prepared dataset ({why}).",
                "Make one with `recalign prepare SOURCE [PATH] --out FOLDER`.",
            )
        self.info: dict[str, Any] = read_object(file, AGAIN)
        if self.info.get("format") != FORMAT_VERSION:
            raise UserError(
                f"{self.path} has dataset format {self.info.get('format')!r}; this version reads {FORMAT_VERSION}.",
                AGAIN,
            )
        checked(self.info, DatasetInfo, file, AGAIN)

    @property
    def hash(self) -> str:
        """Content hash of the whole dataset."""
        return str(self.info["hash"])

    @property
    def measured_hash(self) -> str:
        """Hash of what models are measured by: the same for two datasets that write the same items differently."""
        return str(self.info.get("measured_hash", self.hash))

    def identity(self) -> dict[str, Any]:
        """What tells it from others, for the record of a run: path, hashes, options."""
        hashes = {"hash": self.hash, "measured_hash": self.measured_hash}
        return {"path": str(self.path), **hashes, "options": self.info["options"]}

    @property
    def task(self) -> str:
        """`next` (one target a row), `list` (several) or `rank` (one among candidates)."""
        return str(self.info["options"]["task"])

    @property
    def identifier(self) -> str:
        """`title`, `semantic` or `atomic`: how items are written as tokens."""
        return str(self.info["options"]["identifier"])

    @property
    def list_length(self) -> int:
        """How many titles a response of the list task names; 1 for the next task, all candidates for rank."""
        return int(self.info["options"]["list_length"])

    def excludes_history(self, choice: ExcludeHistory = "auto") -> bool:
        """Return whether items that the user had before are never recommended.

        Args:
            choice: `yes`, `no`, or `auto`: as the dataset was prepared (where no training target repeats such an item).
        """
        return bool(self.info["options"]["exclude_history"]) if choice == "auto" else choice == "yes"

    @cached_property
    def catalogue(self) -> Catalogue:
        """The items, with their training popularity.

        Raises:
            UserError: the file is missing or damaged.
        """
        import polars as pl

        text = pl.String
        known = {"item_id": text, "title": text, "genres": pl.List(text), "text": text, "popularity": pl.Int64}
        frame = self._table("items.parquet", known)
        return Catalogue(
            item_ids=frame["item_id"].to_list(),
            titles=frame["title"].to_list(),
            genres=[tuple(genres) for genres in frame["genres"].to_list()],
            texts=frame["text"].to_list(),
            popularity=frame["popularity"].to_numpy().astype(np.int64),
            codes=[np.asarray(code, dtype=np.int32) for code in frame["code"]] if "code" in frame.columns else None,
        )

    def interactions(self) -> pl.DataFrame:
        """All that models and baselines may see: user, item, timestamp, rating, gain of each training interaction.

        Raises:
            UserError: the file is missing or damaged.
        """
        import polars as pl

        return self._table("interactions.parquet", {"user_id": pl.String, "item": pl.Int64, "timestamp": pl.Float64})

    def _table(self, name: str, known: Mapping[str, Any]) -> pl.DataFrame:
        """Read a table that has these columns, all of them filled in."""
        file = self.path / name
        frame = read_parquet(file, AGAIN)
        for column, dtype in known.items():
            if column not in frame.columns:
                raise UserError(f"{file} has no column '{column}'.", AGAIN)
            with reading(file, AGAIN, f"has a column '{column}' of another type"):
                cast = frame[column].cast(dtype, strict=True)
            if cast.null_count():
                raise UserError(f"{file}: row {cast.is_null().arg_max()} has no '{column}'.", AGAIN)
        return frame

    def rows(self, split: str) -> Rows:
        """Open a split lazily.

        Raises:
            UserError: no such split, a damaged or an empty one.
        """
        import pyarrow as pa

        if split not in SPLITS:
            raise UserError(f"There is no split '{split}'.", did_you_mean(split, SPLITS))
        file = self.path / split / "data.arrow"
        if not file.is_file():
            raise UserError(f"{self.path} has no split '{split}'.", "Prepare the dataset again.")
        with reading(file, AGAIN):
            table = pa.ipc.open_stream(pa.memory_map(str(file))).read_all()
            table.validate(full=True)
        if not table.num_rows:
            raise UserError(f"The split '{split}' of {self.path} is empty.", "Prepare it with other split options.")
        with reading(file, AGAIN, "holds no rows of a prepared dataset"):
            check_rows(table, len(self.catalogue))
        return Rows(table)


def check_rows(table: pyarrow.Table, items: int) -> None:
    """Refuse what is no split of a dataset.

    Args:
        table: the rows.
        items: size of the catalogue.

    Raises:
        KeyError: a column is missing.
        ValueError: a row lacks a value, names an item that is not in the catalogue, or has not one gain a target.
    """
    import pyarrow.compute as pc

    for name in ("user_id", "history", "targets", "gains", "timestamp"):
        if table[name].null_count:
            raise ValueError(f"a row has no '{name}'")
    for name in {"history", "targets", "candidates", "earlier"} & set(table.column_names):
        named = pc.list_flatten(table[name])
        extremes = pc.min_max(named).as_py()
        if named.null_count or (len(named) and not 0 <= extremes["min"] <= extremes["max"] < items):
            raise ValueError(f"'{name}' names items that the catalogue does not have")
    lengths = [pc.list_value_length(table[name]) for name in ("targets", "gains")]
    if not lengths[0].equals(lengths[1]):
        raise ValueError("a row has not one gain a target")
    pc.cast(table["timestamp"], "float64")
    pc.cast(pc.list_flatten(table["gains"]), "float64")
