"""What a source says of users, in the order of the log."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from recalign.errors import UserError
from recalign.preparation.forms import ID_KEYS, SameId

if TYPE_CHECKING:
    import polars as pl


def read_profiles(users: pl.LazyFrame, wanted: Sequence[str], same_ids: SameId = "exact") -> list[str]:
    """Return the profile of each user, empty where the source has none.

    Line breaks become spaces, so that a profile is one line of a prompt.

    Args:
        users: as `RawData.users`.
        wanted: [U] user ids.
        same_ids: which other ids of the source name these users.

    Raises:
        UserError: a user has several profiles.
    """
    import polars as pl

    frame = users.select(
        ID_KEYS[same_ids](pl.col("user_id").cast(pl.String)),
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
    keys = pl.DataFrame({"user_id": wanted}, schema={"user_id": pl.String}).select(ID_KEYS[same_ids](pl.col("user_id")))
    return [known.get(user, "") for user in keys["user_id"]]
