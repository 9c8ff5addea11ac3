"""rules: no model; a template filled in from genres, co-occurrence and popularity, the same text every time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from recalign.api import PARTS, RATIONALE, Case, Field, Params, Reply, Row, Teacher, TeacherContext, hookimpl
from recalign.recommenders.histories import history_weights

if TYPE_CHECKING:
    from scipy.sparse import csr_array

NAMED = 3
"""Most items and genres that a sentence names."""


class RulesParams(Params):
    """Parameters of `rules`."""

    threshold: float = Field(
        0.7, gt=0, le=1, description="recommends what has more evidence than this share of the items new to the user"
    )
    genres: float = Field(1.0, ge=0, description="weight of shared genres")
    cooccurrence: float = Field(1.0, ge=0, description="weight of other users who had the item and the history's items")
    popularity: float = Field(0.5, ge=0, description="weight of popularity")
    brief: bool = Field(
        False, description="give each kind of evidence as tenths, some 40 tokens in all: for models made from scratch"
    )


@dataclass(frozen=True)
class _Evidence:
    """What speaks for every item of the catalogue, for one row; other users' interactions only.

    Args:
        others: [I] other users who had each item.
        genres: [I] share of the items new to the user that have fewer genres in common with it, halves for ties.
        together: [I] the same for co-occurrence.
        popular: [I] the same for popularity.
        share: [I] the same for all evidence together.
    """

    others: np.ndarray
    genres: np.ndarray
    together: np.ndarray
    popular: np.ndarray
    share: np.ndarray


class Rules(Teacher):
    """Fills in R2Rank's three parts from counts; no model is asked, so these are no rationales that somebody thought.

    Every kind of evidence ranks the items that are new to the user: shared genres (items of the history weigh 0.8^age),
    co-occurrence (cosine of users' sets of items) and popularity. The mean of the ranks, weighed by the parameters,
    ranks them again, and what stands above `threshold` is recommended. The user's own interactions count for nothing:
    in training rows they hold the answer.
    """

    Params = RulesParams
    paper = 'None: a stand-in for a teacher. The three parts are those of "Reasoning to Rank" (R2Rank).'

    def begin(self, context: TeacherContext) -> None:
        """Count who had what."""
        from scipy.sparse import csr_array

        super().begin(context)
        training, items = context.training(), len(context.catalogue)
        self.number = {name: number for number, name in enumerate(training.user_ids)}
        pairs = (training.users, training.items)
        size = (len(training.user_ids), items)
        self.had: csr_array = csr_array((np.ones(len(training.items)), pairs), shape=size)  # [users, I]
        self.had.data[:] = 1.0
        matrix = context.catalogue.genre_matrix
        lengths = np.linalg.norm(matrix, axis=1, keepdims=True)
        self.genre_vectors = matrix / np.where(lengths > 0, lengths, 1.0)  # [I, C]
        self._last: tuple[tuple[str, bytes], _Evidence] | None = None

    def reply(self, cases: Sequence[Case]) -> Sequence[Reply]:
        """Fill in the template."""
        return [Reply(self._text(case.row, case.item)) for case in cases]

    def _text(self, row: Row, item: int) -> str:
        evidence = self._evidence(row)
        recommended = bool(evidence.share[item] > self.params.threshold)
        parts = self._tenths(item, evidence) if self.params.brief else self._sentences(row, item, evidence, recommended)
        rationale = "\n".join(f"{heading}\n{text}" for heading, text in zip(PARTS, parts, strict=True))
        return RATIONALE.text(recommended, rationale)

    def _tenths(self, item: int, evidence: _Evidence) -> tuple[str, str, str]:
        """The three parts as figures: how much of each kind of evidence there is, from 0 to 10."""
        genres, together, popular, share = (
            round(10 * float(each[item]))
            for each in (evidence.genres, evidence.together, evidence.popular, evidence.share)
        )
        return f"Genres {genres}, co-occurrence {together}.", f"Popularity {popular}.", f"Together {share}."

    def _sentences(self, row: Row, item: int, evidence: _Evidence, recommended: bool) -> tuple[str, str, str]:
        """The three parts in words, with the items that they rest on."""
        verdict = "" if recommended else ", which is not enough"
        return (
            self._reasoning(row, item, evidence),
            self._self_check(row, item, evidence),
            f"By genres, co-occurrence and popularity together it stands above {evidence.share[item]:.0%} of the items "
            f"that are new to the user{verdict}.",
        )

    def _reasoning(self, row: Row, item: int, evidence: _Evidence) -> str:
        """What speaks for it: genres, and other users."""
        catalogue, title = self.context.catalogue, self.context.catalogue.titles[item]
        recent = _listed([catalogue.titles[each] for each in row.history[::-1][:NAMED]])
        begins = f"Most recently the user had {recent}. " if len(row.history) else "The user has no history. "
        own = set(catalogue.genres[item])
        sharing = [each for each in row.history if own & set(catalogue.genres[each])]
        if own:
            kinds, history = _listed(sorted(own)[:NAMED]), len(row.history)
            genres = f"{title} is {kinds}; {len(sharing)} of the {history} items of the history share a genre with it. "
        else:
            genres = f"No genre of {title} is known. "
        counts = self._together(row, item)  # [H]
        best = int(counts.argmax()) if len(counts) else 0
        if not len(counts) or not counts[best]:
            return begins + genres + f"No other user had {title} together with an item of the history."
        others = int(evidence.others[item])
        named = catalogue.titles[row.history[best]]
        return begins + genres + f"Of the {others} other users who had {title}, {int(counts[best])} had {named} too."

    def _self_check(self, row: Row, item: int, evidence: _Evidence) -> str:
        """What may be over-weighted, and what is missing."""
        catalogue = self.context.catalogue
        more = float((evidence.others < evidence.others[item]).mean())
        popular = f"It is more popular than {more:.0%} of the items, "
        popular += "so that popularity alone may explain this. " if more >= 0.5 else "so that little is known of it. "
        if not len(row.history):
            return popular + "There is nothing to compare it with."
        last = row.history[-1]
        shared = sorted(set(catalogue.genres[item]) & set(catalogue.genres[last]))
        if shared:
            return popular + f"The last item, {catalogue.titles[last]}, is {_listed(shared[:NAMED])} as well."
        return popular + f"With the last item, {catalogue.titles[last]}, it shares no genre."

    def _together(self, row: Row, item: int) -> np.ndarray:
        """[H] other users who had the item and each item of the history."""
        both = self.had.T @ (self.had[:, [item]].toarray().ravel() * self._not(row))
        return np.asarray(both)[row.history]

    def _evidence(self, row: Row) -> _Evidence:
        """Compute the evidence of a row, or take that of the last one."""
        key = (row.user_id, row.consumed.tobytes())
        if self._last is None or self._last[0] != key:
            self._last = (key, self._computed(row))
        return self._last[1]

    def _computed(self, row: Row) -> _Evidence:
        items = len(self.context.catalogue)
        weights = history_weights([row], items).toarray().ravel()  # [I]
        others = np.asarray(self.had.T @ self._not(row))
        scale = 1.0 / np.sqrt(np.maximum(others, 1.0))
        near = np.asarray(self.had @ (weights * scale)) * self._not(row)  # [users]
        with_others = np.asarray(self.had.T @ near) * scale
        genres = self.genre_vectors @ (weights @ self.genre_vectors)
        new = np.ones(items, dtype=bool)
        new[row.consumed] = False
        kinds = [_shares(values, new) for values in (genres, with_others, others)]
        weights_of_kinds = (self.params.genres, self.params.cooccurrence, self.params.popularity)
        means = sum(weight * ranks for weight, ranks in zip(weights_of_kinds, kinds, strict=True))
        alike, together, popular = kinds
        return _Evidence(others, alike, together, popular, _shares(np.asarray(means), new))

    def _not(self, row: Row) -> np.ndarray:
        """[users] 0 for the row's own user, 1 for all others."""
        rest = np.ones(len(self.number))
        if row.user_id in self.number:
            rest[self.number[row.user_id]] = 0.0
        return rest


def _shares(values: np.ndarray, among: np.ndarray) -> np.ndarray:
    """[I] share of the values among some that are below each; equal ones count half."""
    ordered = np.sort(values[among])
    low, high = np.searchsorted(ordered, values, "left"), np.searchsorted(ordered, values, "right")
    return (low + high) / (2 * max(len(ordered), 1))


def _listed(names: Sequence[str]) -> str:
    """Join names as a sentence does: a, b and c."""
    return " and ".join(part for part in (", ".join(names[:-1]), *names[-1:]) if part)


@hookimpl
def recalign_teacher() -> type[Teacher]:
    """Return the plugin class to recalign."""
    return Rules
