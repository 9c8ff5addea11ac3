"""Warnings about what was read: the items' titles, genres and ids, and repeated or tied interactions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

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
            f"{told['example']['item_id']!r}: {_short(one)} in row {row}, {_short(other)} in row {place}; the first "
            f"counts. If it belongs to an interaction, such as a review's headline or text, {SOURCE_OF_TITLES[name]}."
        )
    alike = counts["lookalike_titles"]
    if alike["count"]:
        found.append(
            f"{alike['count']} titles differ from another one only by case, blanks or Unicode form, such as "
            f"{_pair(alike['example'])}; they count as collisions (--collisions)."
        )
    for kind in ("item", "user"):
        alike = counts.get(f"lookalike_{kind}_ids", {"count": 0})
        if alike["count"]:
            found.append(
                f"{alike['count']} {kind} ids differ from another one only by case, blanks or Unicode form, such as "
                f"{_pair(alike['example'])}; each counts as a {kind} of its own."
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
        counts: as `report.count`, with the facts of `read_events` where the source gave interactions.
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
    for name in ("valid", "test"):
        part = counts["rows"][name]
        again, cut = part["rows_with_target_in_past"], part["rows_cut_in_tie"]
        if again:
            found.append(
                f"{again} {name} rows ({again / part['rows']:.1%}) have a target that their user had before: repeating "
                "the history finds what it holds of them"
                + (
                    "."
                    if options.split == "provided"
                    else "; --duplicates first or last leaves one interaction with an item to each user."
                )
            )
        if cut:
            found.append(
                f"The targets of {cut} {name} rows ({cut / part['rows']:.1%}) depend on the order of the rows in the "
                f"file, which orders the interactions of one time: {counts['tied_interactions']} "
                f"({counts['tied_interactions'] / counts['interactions']:.1%}) have the time of another one of their "
                "user."
            )
    return found


def _short(value: Any) -> str:
    """A value as it is shown: no longer than a line has room for."""
    text = repr(value)
    return text if len(text) <= 50 else text[:47] + "..." + text[0]


def _pair(example: list[str]) -> str:
    """Two texts that look alike, written so that one sees the difference."""
    return " and ".join(map(ascii, example))
