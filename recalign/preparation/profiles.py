"""What a source says of users, in the order of the log."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from recalign.errors import UserError

if TYPE_CHECKING:
    import polars as pl


def read_profiles(users: pl.LazyFrame, wanted: Sequence[str]) -> list[str]:
    """Return the profile of each user, empty where the source has none.

    Line breaks become spaces, so that a profile is one line of a prompt.

    Args:
        users: as `RawData.users`.
        wanted: [U] user ids.

    Raises:
        UserError: a user has several profiles.
    """
    import polars as pl

    frame = users.select(
        pl.col("user_id").cast(pl.String),
        pl.col("profile").fill_null("").str.replace_all(r"\s+", " ").str.strip_chars(),
    ).collect(engine="streaming")
    frame = frame.unique(maintain_order=True)
    twice = frame.filter(pl.col("user_id").is_duplicated())
    if twice.height:
        first = twice.row(0, named=True)
        raise UserError(
            f"User {first['user_id']!r} has several profiles, such as {first['profile']!r}.",
            "Leave one row per user in the source's user file.",
        )
    known = dict(frame.iter_rows())
    return [known.get(user, "") for user in wanted]
