"""The task `rank`: a row has one positive among K candidates, each is asked about alone, and scores order them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from recalign.api import (
    PARTS,
    RANKING_HEAD,
    RATIONALE,
    AnswerFormat,
    Predictions,
    Question,
    Row,
    UserError,
    seeded_order,
)
from recalign.tasks.task import Response, Shape, Task

if TYPE_CHECKING:
    from recalign.api import Engine

CANDIDATES = 20
HISTORY = 20
"""R2Rank's setting: 1 positive and 19 negatives, the 20 most recent items of the history."""
RATIONALE_ROOM = 512
"""Tokens that prompts leave for a rationale, where the model's context has four times as many."""


class RankTask(Task):
    """One positive among K candidates; the question about each is answered without a look at the others.

    Source: "Reasoning to Rank" (R2Rank), Sec. 3: NDCG@{1,5,10} over 1 positive and 19 negatives, users split 8:1:1.
    """

    name = "rank"
    summary = "one positive among candidates"
    decoders = ("judge", "head", "list")
    prepare_defaults: ClassVar[dict[str, Any]] = {
        "history": HISTORY,
        "candidates": CANDIDATES,
        "split": "user",
        "valid_share": 0.1,
        "test_share": 0.1,
        "relevance": "all",  # every interaction is an implicit positive
        "exclude_history": "no",  # what is ranked are the candidates, all of them
    }
    cutoffs = (1, 5, 10)
    asks = True
    shows_events = True
    ranks_candidates = True
    words = (*PARTS, RATIONALE.opening, *RATIONALE.words, RATIONALE.closing, "Yes", "No", "yes", "no", "\n")
    positives_only = True

    def default_decoder(self, modules: Collection[str] = ()) -> str:
        """Return `head` where the model was trained with a ranking head, else `judge`."""
        return "head" if RANKING_HEAD in modules else "judge"

    def shape(
        self, targets: int | None, stride: int | None, list_length: int | None, candidates: int = CANDIDATES
    ) -> Shape:
        """One target; a ranked list is an order of all candidates.

        Raises:
            UserError: several targets, a list of another length, or too few candidates to rank.
        """
        if (targets or 1) != 1:
            raise UserError(f"The rank task has one positive per row, not {targets} targets.", "Leave --targets out.")
        if candidates < 2:
            raise UserError(
                f"--candidates {candidates} leaves nothing to rank: a row has one positive and its negatives.",
                f"Ask for 2 or more; the default is {CANDIDATES}.",
            )
        if list_length not in (None, candidates):
            raise UserError(
                f"--list-length {list_length}: a list of the rank task orders all {candidates} candidates.",
                "Leave --list-length out.",
            )
        return Shape(targets=1, stride=stride or 1, list_length=candidates)

    def titles_of_targets(self, list_length: int) -> int:
        """Return 1: the positive; the other titles of a list are negatives."""
        return 1

    def response_tokens(self, longest: int, limit: int) -> int:
        """Return the room for a rationale, or for a list where that takes more; half of the context at most."""
        return max(min(longest, limit // 2), min(RATIONALE_ROOM, limit // 4))

    def response(self, row: Row, list_length: int) -> Response:
        """Return the right answer to the row's question, with the rationale that it has."""
        assert row.question is not None, "a row of the rank task is answered question by question"
        form = row.question.form
        recommended = row.question.item in row.relevant
        return Response((), row.question.rationale if form.rationale else "", form, recommended)

    def list_size(self, list_length: int) -> int:
        """Return K: all candidates are ranked."""
        return list_length

    def writable_length(self, list_length: int, size: int, decoder: str) -> int:
        """Return K, whatever the size asked for: all candidates are written."""
        return list_length

    def default_metric(self, list_length: int, items: int) -> str:
        """Return ndcg@10, which R2Rank is rewarded by, or ndcg over fewer candidates."""
        return f"ndcg@{min(10, list_length, items)}"

    def questions(self, rows: Sequence[Row], form: AnswerFormat, negatives: int, seed: int) -> Sequence[Row]:
        """Return the questions about each row's positive and some of its negatives; rows that ask one already stay."""
        if rows and rows[0].question is not None:
            return rows
        return PointwiseRows(rows, form, negatives, seed)

    def chance(self, rows: Sequence[Row], size: int) -> Sequence[Predictions]:
        """Return the K rotations of every row's candidates: each candidate stands at each place once.

        The mean of NDCG, hit rate or MRR over them is their expectation under a uniformly random order.
        """
        items = candidates_of(rows)
        return [
            _laid_out([np.roll(each, turn % len(each)) for each in items], size) for turn in range(max(map(len, items)))
        ]

    def decode(self, engine: Engine, rows: Sequence[Row]) -> Predictions:
        """Rank every row's candidates as the model was trained to: by its ranking head, else by its answers' words."""
        scores, texts = engine.questions.answers(rows)
        return ranked(rows, candidates_of(rows), scores, seed=engine.seed, rationales=texts)


class PointwiseRows(Sequence[Row]):
    """The questions that rows ask: about each positive, and about `negatives` of its other candidates.

    Args:
        rows: with candidates.
        form: how the questions are answered.
        negatives: per positive; all that there are where a row has fewer.
        seed: of the draw, which depends on the row alone.
    """

    def __init__(self, rows: Sequence[Row], form: AnswerFormat, negatives: int, seed: int) -> None:
        self.rows, self.form, self.negatives, self.seed = rows, form, negatives, seed
        self.per_row = 1 + negatives

    def __len__(self) -> int:
        return len(self.rows) * self.per_row

    def __getitem__(self, index):  # type: ignore[no-untyped-def]
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if not 0 <= index < len(self):
            raise IndexError(index)
        place, turn = divmod(index, self.per_row)
        row = self.rows[place]
        positives = row.relevant
        others = np.setdiff1d(_candidates(row), positives)
        random = np.random.default_rng([self.seed, 21, row.index])
        drawn = random.permutation(others)
        item = positives[0] if turn == 0 else drawn[(turn - 1) % len(drawn)]
        return replace(row, question=Question(int(item), self.form))


def ranked(
    rows: Sequence[Row],
    items: Sequence[np.ndarray],
    scores: np.ndarray,
    *,
    seed: int,
    size: int | None = None,
    rationales: Sequence[str] | None = None,
) -> Predictions:
    """Order the candidates of U rows by score; equal scores by an order that is drawn for the row.

    Args:
        rows: U rows.
        items: [U] candidates of each row, N in all.
        scores: [N], row by row.
        seed: of the order of equal scores, which no order of storage enters.
        size: K, how many are kept; None: all.
        rationales: [N] the text behind each score, or None.
    """
    ends = np.cumsum([len(each) for each in items])
    lists, values, texts = [], [], []
    for row, each, end in zip(rows, items, ends, strict=True):
        mine = np.asarray(scores[end - len(each) : end], dtype=np.float64)
        order = np.lexsort((seeded_order(seed, row, each), -mine))
        lists.append(each[order])
        values.append(mine[order])
        if rationales is not None:
            texts.append([rationales[end - len(each) + place] for place in order])
    found = _laid_out(lists, size or max(map(len, lists)))
    kept = found.items.shape[1]
    return replace(
        found,
        scores=_padded(values, kept, 0.0),
        rationales=None if rationales is None else _padded([np.asarray(each, dtype=str) for each in texts], kept, ""),
    )


def candidates_of(rows: Sequence[Row]) -> list[np.ndarray]:
    """Return the candidates of each row in ascending order, so that no order of storage enters what is computed.

    Raises:
        UserError: a row has none.
    """
    return [_candidates(row) for row in rows]


def _candidates(row: Row) -> np.ndarray:
    if row.candidates is None:
        raise UserError(f"User {row.user_id}'s row has no candidates to rank.", "Prepare the dataset with --task rank.")
    return np.sort(row.candidates)


def _laid_out(lists: Sequence[np.ndarray], size: int) -> Predictions:
    """Lay lists of items out as predictions of at most `size` positions, whose scores are minus the ranks."""
    width = min(size, max(map(len, lists)))
    items = _padded(lists, width, -1).astype(np.int64)
    ranks = np.broadcast_to(-np.arange(1.0, width + 1), items.shape)
    return Predictions(items, ranks, np.array([min(len(each), width) for each in lists]))


def _padded(lists: Sequence[np.ndarray], width: int, fill: Any) -> np.ndarray:
    """Cut or pad U lists to [U, width]."""
    return np.stack([np.concatenate([each[:width], np.full(max(0, width - len(each)), fill)]) for each in lists])
