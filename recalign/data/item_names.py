"""Finding items of a catalogue by what people write: titles and ids."""

from __future__ import annotations

import unicodedata
from collections import defaultdict
from collections.abc import Sequence

import numpy as np
from rapidfuzz import fuzz, process, utils

from recalign.data.catalogue import Catalogue
from recalign.errors import COMPARED, UserError

ID, TITLE = "id:", "title:"
"""What may stand before a name, to say which of the two it is."""
SUGGESTED = 3
LIKENESS = 50
"""Least likeness of a suggested title, in percent: letters in common after words are sorted ("Godfather, The")."""
TELLING = 3
"""Characters by which titles are found that contain them; fewer are in too many."""
ONCE = "Name it once."


class ItemNames:
    """Finds items by title or id.

    A name is a title or an id as the catalogue has it, `id:` and an id, `title:` and a title, or a title in other case,
    blanks or forms of its characters (Unicode's NFKC) where one item alone is so called.

    Args:
        catalogue: the items.
    """

    def __init__(self, catalogue: Catalogue) -> None:
        self.catalogue = catalogue
        self._folded: dict[str, list[int]] = defaultdict(list)
        for item, title in enumerate(catalogue.titles):
            self._folded[folded(title)].append(item)

    def find(self, name: str) -> int:
        """Return the index of the item that a name means.

        Raises:
            UserError: it means none (titles that are like it are suggested) or several.
        """
        catalogue = self.catalogue
        by_title, by_id = catalogue.index_of_title.get(name), catalogue.index_of_id.get(name)
        if by_title is not None and by_id is not None and by_title != by_id:
            raise UserError(
                f"{name!r} is the id of {catalogue.titles[by_id]!r} and the title of another item, "
                f"{catalogue.item_ids[by_title]!r}.",
                f"Write '{ID}{name}' or '{TITLE}{name}'.",
            )
        stated = catalogue.index_of_id.get(name[len(ID) :]) if name.startswith(ID) else None
        stated = catalogue.index_of_title.get(name[len(TITLE) :]) if name.startswith(TITLE) else stated
        exact = next((item for item in (by_title, by_id, stated) if item is not None), None)
        if exact is not None:
            return exact
        written = folded(name.removeprefix(TITLE))
        alike = self._folded.get(written, [])
        if len(alike) > 1:
            titles = " or ".join(repr(catalogue.titles[item]) for item in alike[:SUGGESTED])
            raise UserError(f"{name!r} may mean {len(alike)} items.", f"Write {titles}, letter by letter, or an id.")
        if not alike:
            raise UserError(f"No item of the catalogue has the title or id {name!r}.", self._suggestion(written))
        return alike[0]

    def find_all(self, names: Sequence[str], what: str, *, repeats: bool = False, hint: str = ONCE) -> np.ndarray:
        """Return the indices [N] of the items that names mean, in their order.

        Args:
            names: [N].
            what: they are, for error texts, such as "The history".
            repeats: whether an item may come more than once.
            hint: what to do about one that does.

        Raises:
            UserError: see `find`; an item comes twice.
        """
        items = [self.find(name) for name in names]
        places: dict[int, int] = {}
        for place, item in enumerate(items, 1):
            first = places.setdefault(item, place)
            if first < place and not repeats:
                title = self.catalogue.titles[item]
                raise UserError(f"{what} names {title!r} twice, at places {first} and {place}.", hint)
        return np.asarray(items, dtype=np.int64)

    def _suggestion(self, written: str) -> str:
        """Suggest the most popular titles that contain what was written, else those whose letters are most like it."""
        near: list[str] = []
        if len(written) <= COMPARED:
            near = [title for title in self._folded if written in title and len(written) >= TELLING]
            near.sort(key=lambda title: -max(self.catalogue.popularity[item] for item in self._folded[title]))
            near = near[:SUGGESTED] or [title for title, _, _ in self._alike(written)]
        titles = [self.catalogue.titles[self._folded[title][0]] for title in near]
        if not titles:
            return f"Titles read like {self.catalogue.titles[int(self.catalogue.popularity.argmax())]!r}."
        return "Did you mean " + " or ".join(repr(title) for title in titles) + "?"

    def _alike(self, written: str) -> list[tuple[str, float, int]]:
        """Return the titles that are most like what was written, whatever the order of their words."""
        return process.extract(
            written,
            list(self._folded),
            scorer=fuzz.token_sort_ratio,
            processor=utils.default_process,
            limit=SUGGESTED,
            score_cutoff=LIKENESS,
        )


def folded(title: str) -> str:
    """Return what titles have in common that differ in case, blanks or forms of characters only."""
    return " ".join(unicodedata.normalize("NFKC", title).casefold().split())
