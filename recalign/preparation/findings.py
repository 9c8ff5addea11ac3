"""Warnings about what was read: the items' titles, genres and ids, and repeated or tied interactions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from recalign.preparation.interactions import ORDERS

if TYPE_CHECKING:
    from recalign.preparation.prepare_options import PrepareOptions

SEPARATED_LIMIT = 0.1
"""Share of the genres that still hold a separator, above which a warning is due."""

FREE_TEXT_LIMIT = 0.5
"""Genres per item with genres, above which the column hardly holds genres (from `FEW_GENRES` genres on)."""

FEW_GENRES = 50

SOURCE_OF_TITLES = {
    "title": "name the column of the title with -p title=COLUMN, or give a table of items (-p items=FILE)",
    "genres": "name the column of the genres with -p genres=COLUMN",
    "text": "name the column of the item's text with -p text=COLUMN",
    "suffix": "name the column that tells apart items of one title with -p suffix=COLUMN",
}


def of_items(counts: dict[str, Any]) -> list[str]:
    """Say what is suspicious in titles, genres and ids, one sentence each.

    Args:
        counts: as `report.count`, with the facts of `clean_items`.
    """
    found = []
    for name, told in counts["items_differing"].items():
        (one, row), (other, place) = told["example"]["values"]
        found.append(
            f"The {name} differs among the rows of {told['items']} items ({told['share']:.1%} of all), such as "
            f"{told['example']['item_id']!r}: {_short(one)} in row {row}, {_short(other)} in row {place}; "
            f"{told['counts']} counts. If it belongs to an interaction, such as a review's headline or text, "
            f"{SOURCE_OF_TITLES[name]}."
        )
    alike = counts["lookalike_titles"]
    if alike["count"]:
        found.append(
            f"{alike['count']} titles differ from another one only by case, blanks or Unicode form, such as "
            f"{_pair(alike['example'])}; they count as collisions (--collisions)."
        )
    for kind in ("item", "user"):
        alike = counts[f"lookalike_{kind}_ids"]
        if alike["count"]:
            others = alike["count"] - alike["by_case"]
            options = " and ".join(
                told
                for told, some in (
                    (f"--same-ids blanks joins {others} of them", others),
                    ("--same-ids case joins all", alike["by_case"]),
                )
                if some
            )
            found.append(
                f"{alike['count']} {kind} ids differ from another one only by case, blanks or Unicode form, such as "
                f"{_pair(alike['example'])}; each counts as a {kind} of its own. {options}."
            )
    return found + _of_genres(counts)


def _of_genres(counts: dict[str, Any]) -> list[str]:
    """Say what is suspicious in the genres."""
    found, genres = [], counts["genres"]
    if counts["genre_forms"]["count"]:
        form, chosen = counts["genre_forms"]["example"]
        found.append(
            f"{counts['genre_forms']['count']} genres differ from another one only by case, blanks or Unicode form and "
            f"were taken for it, such as {form!r} for {chosen!r}."
        )
    held = counts["genres_with_separators"]
    if held["count"] > SEPARATED_LIMIT * max(1, genres["names"]):
        found.append(
            f"{held['count']} of {genres['names']} genres may hold a separator, such as {held['example'][0]!r}; "
            "name the separator with -p genre_separator=TEXT if they are several in one."
        )
    with_genres = counts["items"] - genres["items_without"]
    if genres["names"] >= FEW_GENRES and genres["names"] > FREE_TEXT_LIMIT * with_genres:
        found.append(
            f"{with_genres} items have {genres['names']} different genres, so that they hardly share any; mgu and ild "
            "mean little then. Check the column and the separator (-p genres=COLUMN, -p genre_separator=TEXT)."
        )
    if genres["names"] and genres["items_without"] > counts["items"] / 2:
        found.append(
            f"{genres['items_without']} of {counts['items']} items have no genre; mgu and ild say little of them."
        )
    return found


def of_events(counts: dict[str, Any], options: PrepareOptions) -> list[str]:
    """Say what is suspicious in the order and the repeats of interactions, one sentence each.

    Args:
        counts: as `report.count`, with the facts of `read_events` or `read_windows`.
        options: of `prepare`.
    """
    found = []
    exact, left_out = counts.get("exact_duplicates", 0), counts.get("duplicates_left_out", 0)
    if left_out:
        found.append(f"{left_out} repeated interactions were left out (--duplicates {options.duplicates}).")
    elif exact:
        found.append(
            f"{exact} interactions ({exact / counts['interactions_read']:.1%}) are exact duplicates of another one "
            "(user, item, time and rating); --duplicates drop keeps each once."
        )
    same = counts.get("duplicate_windows", 0)
    if same:
        found.append(f"{same} windows ({same / counts['windows_read']:.1%}) repeat another one of their split.")
    ties = ORDERS[options.ties]
    for name in ("valid", "test"):
        part = counts["rows"][name]
        again, cut = part["rows_with_target_in_past"], part["rows_cut_in_tie"]
        if again:
            found.append(
                f"{again} {name} rows ({again / part['rows']:.1%}) have a target that their user had before: repeating "
                "the history finds what it holds of them"
                + (
                    "."
                    if "windows_read" in counts
                    else "; --duplicates first or last leaves one interaction with an item to each user."
                )
            )
        if cut:
            found.append(
                f"The targets of {cut} {name} rows ({cut / part['rows']:.1%}) depend on {ties.name}, "
                f"which orders the interactions of one time: {counts['tied_interactions']} "
                f"({counts['tied_interactions'] / counts['interactions']:.1%}) have the time of another one of their "
                "user"
                + ("; --ties random or item orders them whatever the order of the rows." if ties.of_rows else ".")
            )
    return found + _of_times(counts, options)


def _of_times(counts: dict[str, Any], options: PrepareOptions) -> list[str]:
    """Say what is suspicious in the times of interactions."""
    found, times = _of_row_order(counts, options), counts["times"]
    if not times["dates"]:
        return found
    total = sum(times["units"].values())
    mends = "windows_read" not in counts  # ready-made windows stay as they are
    units = {name: count for name, count in times["units"].items() if name != "small"}
    if len(units) > 1:
        told = ", ".join(f"{count} in {name}" for name, count in units.items())
        found.append(
            f"The times are of different units ({told}, by their size), so that they do not order"
            + ("; --mend-times brings all to seconds." if mends else ".")
        )
    if times["before_1990"]:
        found.append(
            f"{times['before_1990']} times ({times['before_1990'] / total:.1%}) are before 1990, the earliest "
            f"{times['earliest']}: hardly when someone consumed something"
            + ("; --since 1990-01-01 leaves them out." if mends else ".")
        )
    if times["in_future"]:
        found.append(
            f"{times['in_future']} times ({times['in_future'] / total:.1%}) are in the future, the latest "
            f"{times['latest']}" + ("; --until DATE leaves them out." if mends else ".")
        )
    return found


def _of_row_order(counts: dict[str, Any], options: PrepareOptions) -> list[str]:
    """Say that ties are turned round in a file that is newest first."""
    order, ties = counts.get("row_order", {}), ORDERS[options.ties]
    if order.get("order") != "newest first" or not counts["tied_interactions"]:
        return []
    if ties.newest_first or not ties.of_rows:
        return []
    return [
        f"The file is newest first ({order['earlier_next']:.0%} of the rows are followed by an earlier one), and its "
        f"{counts['tied_interactions']} interactions of tied times stay in its order; --ties reversed turns them round."
    ]


def _short(value: Any) -> str:
    """A value as it is shown: no longer than a line has room for."""
    text = repr(value)
    return text if len(text) <= 50 else text[:47] + "..." + text[0]


def _pair(example: list[str]) -> str:
    """Two texts that look alike, written so that one sees the difference."""
    return " and ".join(map(ascii, example))
