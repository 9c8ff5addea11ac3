"""Sources: from files to raw interactions."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from recalign.api.base import Plugin

if TYPE_CHECKING:
    import polars as pl


@dataclass(frozen=True)
class Refused:
    """Records of a file that were refused for one reason.

    Args:
        count: how many.
        first: place and complaint of the first ones, such as "row 3: rating = 'x' is not a number".
        hint: what to do about them.
        harmless: whether nothing is lost with them, so that they are told and stop nothing.
    """

    count: int
    first: tuple[str, ...]
    hint: str = ""
    harmless: bool = False


@dataclass(frozen=True)
class FileAccount:
    """What became of every record of a file.

    Args:
        file: that was read.
        read: how many of its records were read.
        refused: the others by reason, such as "a wrong number of fields".
    """

    file: Path
    read: int
    refused: Mapping[str, Refused] = field(default_factory=dict)

    @property
    def records(self) -> int:
        """How many records the file has."""
        return self.read + sum(refused.count for refused in self.refused.values())


@dataclass(frozen=True)
class RawData:
    """Raw interactions, as polars lazy frames.

    Args:
        events: user_id and item_id (str, or categories), timestamp (float64), rating (float64, null where there is
            none), and optionally split (str: train, valid or test), where the files say it: `--split provided` follows
            it.
        items: item_id (str), title (str); optionally genres (list[str], or text that `preparation.genres` reads),
            text (str) and suffix (str, such as a year), which tells apart items of the same title.
        windows: ready-made windows by split, where the source brings its own: user_id (str), item_ids (list[str],
            oldest first, the last `targets` are what is predicted), timestamp (float64), and optionally candidates
            (list[str], the items that a row ranks; null where it has none that fits). `events` is then None.
        accounts: of the files that were read; `prepare` refuses a dataset whose files have refused records, unless
            it was told to leave them out, and reports the counts.
        items_per_event: `items` has a row an interaction, not one an item: values that differ within an item are told,
            not refused.
        genre_separator: between genres in text; found over all items where None.
        partial: the table of items is known to have gaps, as those of dumps have: items without a usable title, and
            interactions with items that it lacks, are left out and told, and of contradicting rows the first counts.
        codes: item_id -> numbers of its semantic identifier, all of one length, where the source brings identifiers.
        users: user_id (str) and profile (str, what is known of a user in words), where the source has profiles.
    """

    items: pl.LazyFrame
    events: pl.LazyFrame | None = None
    windows: dict[str, pl.LazyFrame] | None = None
    accounts: Sequence[FileAccount] = ()
    items_per_event: bool = False
    genre_separator: str | None = None
    partial: bool = False
    codes: Mapping[str, Sequence[int]] | None = None
    users: pl.LazyFrame | None = None


class Source(Plugin, ABC):
    """Reads raw interactions.

    Attributes:
        needs_path: whether `prepare SOURCE PATH` must name a path.
        suggests: options of `prepare` that fit this source; what the user gives goes first.
        reads_names: whether PATH may be a name, such as one of the Hugging Face hub, that is no path; it is then handed
            over as it was written.
        general: whether other sources read some of what this one reads, and know more of it; where the user names no
            source, it is taken only if none of those recognises the path.
    """

    needs_path: ClassVar[bool] = True
    suggests: ClassVar[dict[str, Any]] = {}
    general: ClassVar[bool] = False
    reads_names: ClassVar[bool] = False

    @classmethod
    def recognises(cls, path: Path) -> str:
        """Say what shows that this source reads a path, such as "u.data and u.item"; empty where nothing does.

        Args:
            path: a file or folder that exists; names and first lines are looked at, no more.
        """
        return ""

    def suggestions(self, path: Path | None) -> Mapping[str, Any]:
        """Return `suggests`, or what fits the files of a path better.

        Raises:
            UserError: as `files`.
        """
        return self.suggests

    def files(self, path: Path) -> list[Path]:
        """Files that `read` reads: their content decides whether a finished run still fits.

        Raises:
            UserError: the path or a file is missing.
        """
        return [path]

    def write_example(self, folder: Path, interactions: pl.DataFrame, items: pl.DataFrame) -> Path | None:
        """Write interactions and items in the files that this source reads, so that `plugins check` can try it.

        Args:
            folder: an empty one.
            interactions: user_id, item_id (str), timestamp (float64, whole seconds), rating (float64, 1 to 5).
            items: item_id, title (str), genres (list[str]).

        Returns:
            The path that `read` takes; None where the source does not say, and only its declarations can be checked.
        """
        return None

    @abstractmethod
    def read(self, path: Path | None, seed: int) -> RawData:
        """Read (or make) the raw data.

        Raises:
            UserError: missing files or columns, or a file that cannot be read at all. Single records that cannot be
                read are counted in the account of their file.
        """
