"""Accounts of the files that a source read: what is refused stops `prepare`, or is left out, counted and named."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from recalign.errors import UserError

if TYPE_CHECKING:
    from recalign.api import FileAccount

LEAVE_OUT = "--drop-invalid leaves such records out."


def check_accounts(accounts: Sequence[FileAccount], drop_invalid: bool) -> None:
    """Stop where records were refused.

    Args:
        accounts: of all files.
        drop_invalid: refused records may be left out, unless no other is there.

    Raises:
        UserError: names the first refused record of a file, and how many there are.
    """
    for account in accounts:
        reason, refused = next(((r, each) for r, each in account.refused.items() if not each.harmless), ("", None))
        if refused is None or (drop_invalid and account.read):
            continue
        total = account.records - account.read
        more = f"; {total} of {account.records} records are refused" if total > 1 else ""
        raise UserError(
            f"{account.file}, {refused.first[0] if refused.first else reason}{more}.",
            " ".join(filter(None, [refused.hint, LEAVE_OUT if account.read else ""])),
        )


def counted(accounts: Sequence[FileAccount]) -> list[dict[str, Any]]:
    """Return the accounts as `dataset.json` and `--json` show them: records = read + refused, by file."""
    return [
        {
            "file": account.file.name,
            "records": account.records,
            "read": account.read,
            "refused": {
                reason: {"count": refused.count, "first": list(refused.first)}
                for reason, refused in account.refused.items()
            },
        }
        for account in accounts
    ]


def left_out(accounts: Sequence[FileAccount]) -> list[str]:
    """Say what was left out of which file, one sentence a reason."""
    return [
        f"{refused.count} of {account.records} records of {account.file.name} were left out ({reason}), such as "
        f"{'; '.join(refused.first)}."
        for account in accounts
        for reason, refused in account.refused.items()
    ]
