"""The report of `prepare` as a table for people."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.table import Table

REPEATS = (
    ("exact duplicates, of those read", "exact_duplicates", "interactions_read"),
    ("other repeats of an item, of those read", "repeated_items", "interactions_read"),
    ("interactions tied in time", "tied_interactions", "interactions"),
    ("duplicate windows, of those read", "duplicate_windows", "windows_read"),
)
"""Rows of the table: label, count, what it is a share of."""


def table(counts: dict[str, Any], name: str, unit: str) -> Table:
    """Lay the counts out for people."""
    from rich.table import Table

    grid = Table("", "all", "train", "valid", "test", title=f"Prepared dataset: {name}")
    for column in grid.columns[1:]:
        column.justify = "right"
    rows = counts["rows"]
    _add_files(grid, counts)

    def per_split(label: str, value: Callable[[dict[str, Any]], str], whole: str = "") -> None:
        grid.add_row(label, whole, *(value(rows[split]) for split in ("train", "valid", "test")))

    def share(key: str) -> Callable[[dict[str, Any]], str]:
        total = "targets" if key == "cold_targets" else "rows"
        return lambda part: f"{part[key]:,} ({part[key] / max(1, part[total]):.1%})"

    per_split("users", lambda part: f"{part['users']:,}", f"{counts['users']:,}")
    grid.add_row("items", f"{counts['items']:,}", "", "", "")
    grid.add_row("interactions", f"{counts['interactions']:,}", f"{counts['training_interactions']:,}", "", "")
    grid.add_row("density", f"{counts['density']:.3%}", "", "", "")
    per_split("rows", lambda part: f"{part['rows']:,}")
    per_split("items of history, mean", lambda part: f"{part['history_mean']:.1f}")
    per_split("cold targets", share("cold_targets"))
    per_split("rows without relevant target", share("rows_without_relevant_target"))
    per_split("rows with a target in their history", share("rows_with_target_in_history"))
    if "tied_interactions" in counts:
        per_split("rows whose targets depend on a tie in time", share("rows_cut_in_tie"))
    _add_events(grid, counts)
    grid.add_row("users dropped", f"{counts['dropped_users']:,}", "", "", "")
    _add_items(grid, counts)
    _add_genres(grid, counts)
    length = counts["title_length"]
    grid.add_row(f"{unit} a title, mean / max", f"{length['mean']:.1f} / {length['max']}", "", "", "")
    return grid


def _add_files(grid: Table, counts: dict[str, Any]) -> None:
    """Add the records of each file, and what each rule leaves out of its interactions."""
    for file in counts["files"]:
        grid.add_row(f"records of {file['file']}", f"{file['records']:,}", "", "", "")
        grid.add_row("  read", f"{file['read']:,}", "", "", "")
        for reason, refused in file["refused"].items():
            grid.add_row(f"  refused: {reason}", f"{refused['count']:,}", "", "", "")
    for step in counts.get("rules", ()):
        label = "left out: of unknown items" if step["rule"] == "read" else f"left out: {step['rule']}"
        if step["left_out"] or step["rule"] != "read":
            left = f"{step['interactions']:,} of {step['users']:,} users and {step['items']:,} items stay"
            grid.add_row(label, f"{step['left_out']:,} ({left})", "", "", "")


def _add_events(grid: Table, counts: dict[str, Any]) -> None:
    """Add repeats, ties and times of the interactions."""
    for label, key, of in REPEATS:
        if key in counts:
            grid.add_row(label, f"{counts[key]:,} ({counts[key] / max(1, counts[of]):.1%})", "", "", "")
    times = counts["times"]
    span = f"{times['earliest']} to {times['latest']}" if times["dates"] else "numbers, no dates"
    grid.add_row("times", span, "", "", "")
    if times["dates"]:
        units = [name for name in times["units"] if name != "small"]
        grid.add_row("unit of times, by their size", " and ".join(units), "", "", "")
        grid.add_row(
            "times before 1990 / in the future", f"{times['before_1990']:,} / {times['in_future']:,}", "", "", ""
        )
    if counts.get("times_mended"):
        grid.add_row("times brought to seconds", f"{counts['times_mended']:,}", "", "", "")
    if "row_order" in counts:
        grid.add_row("order of the rows in the file", counts["row_order"]["order"], "", "", "")


def _add_items(grid: Table, counts: dict[str, Any]) -> None:
    """Add what was found in titles and ids; what there is none of has no line, but for collisions."""
    grid.add_row("title collisions", f"{counts['collisions']:,}", "", "", "")
    lines = {
        "titles that look like another one": counts["lookalike_titles"]["count"],
        "items without a usable title, left out": counts["dropped_items"],
        "rows that repeat an item": counts["item_rows_repeated"],
    }
    for name, told in counts["items_differing"].items():
        lines[f"items whose {name} differs among their rows"] = told["items"]
    for name, count in counts["items_completed"].items():
        lines[f"items whose first row lacks the {name}"] = count
    for kind in ("item", "user"):
        lines[f"{kind} ids that look like another one"] = counts[f"lookalike_{kind}_ids"]["count"]
        lines[f"{kind} ids taken for another one"] = counts[f"{kind}_ids_joined"]
    for label, count in lines.items():
        if count:
            grid.add_row(label, f"{count:,}", "", "", "")


def _add_genres(grid: Table, counts: dict[str, Any]) -> None:
    """Add what there is to say of genres, where there are any or placeholders stand in their place."""
    genres, separator = counts["genres"], counts["genre_separator"]
    if genres["names"]:
        grid.add_row("genres", f"{genres['names']:,}", "", "", "")
        grid.add_row("genres an item, mean / max", f"{genres['mean']:.1f} / {genres['max']}", "", "", "")
        if separator is not None:
            how = "found in the column" if counts["genre_separator_found"] else "given"
            grid.add_row("genre separator", f"{separator!r} ({how})", "", "", "")
    if genres["names"] or counts["genre_placeholders"]:
        without = f"{genres['items_without']:,} ({genres['items_without'] / counts['items']:.1%})"
        grid.add_row("items without genres", without, "", "", "")
        grid.add_row("placeholders of genres", f"{counts['genre_placeholders']:,}", "", "", "")
