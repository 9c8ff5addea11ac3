"""What every task answers: the shape of its rows and responses, its defaults, and how a policy answers its rows."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from recalign.api import AnswerFormat, Predictions, Row
from recalign.errors import UserError

if TYPE_CHECKING:
    from recalign.api import Engine


@dataclass(frozen=True)
class Shape:
    """The shape of a dataset's rows.

    Args:
        targets: m, items after the cut that are targets.
        stride: events between two training windows.
        list_length: K, titles that a response names.
    """

    targets: int
    stride: int
    list_length: int


@dataclass(frozen=True)
class Response:
    """What a model should answer to a row: free text, where a task has some, and then titles, or a decision.

    Args:
        items: the titles' items, in order.
        text: what stands before them; any tokens are valid there, while titles follow the trie.
        form: how a question about one candidate is answered; None: by titles.
        recommended: the decision of such an answer.
    """

    items: Sequence[int] | np.ndarray
    text: str = ""
    form: AnswerFormat | None = None
    recommended: bool = False


class Task(ABC):
    """What a row asks for and what a response to it is.

    Attributes:
        name: the name that users type and that datasets and models record.
        summary: one line for help texts.
        decoders: names of decoders that serve the task; the first is the default.
        prepare_defaults: defaults of `prepare` that the task has of its own.
        cutoffs: k of the ranking metrics that `eval` measures unless told otherwise.
        asks: whether rows ask about single candidates (see `questions`).
        shows_events: whether prompts show when an item was consumed and how it was rated.
        words: what its responses have besides titles, which a tokenizer made for the task can write.
        ranks_candidates: whether what is ranked are candidates that the row names, all of them.
        positives_only: whether a row without a relevant target asks for nothing.
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    decoders: ClassVar[tuple[str, ...]]
    prepare_defaults: ClassVar[dict[str, Any]] = {}
    cutoffs: ClassVar[tuple[int, ...]] = (3, 5, 10)
    asks: ClassVar[bool] = False
    shows_events: ClassVar[bool] = False
    words: ClassVar[tuple[str, ...]] = ()
    ranks_candidates: ClassVar[bool] = False
    positives_only: ClassVar[bool] = False

    def default_decoder(self, modules: Collection[str] = ()) -> str:
        """Return the decoder that `recalign decode` takes unless told otherwise.

        Args:
            modules: names of what was trained beside the model.
        """
        return self.decoders[0]

    @abstractmethod
    def shape(self, targets: int | None, stride: int | None, list_length: int | None, candidates: int = 0) -> Shape:
        """Fill in what `prepare` was not told (None) of the shape of rows.

        Args:
            targets: m.
            stride: events between two training windows.
            list_length: K.
            candidates: size of candidate sets; 0: there are none.

        Raises:
            UserError: the task has no rows of that shape.
        """

    def titles_of_targets(self, list_length: int) -> int:
        """Return how many titles of a response are a row's targets, so that it must have as many different ones."""
        return list_length

    def response_tokens(self, longest: int, limit: int) -> int:
        """Return how many tokens of a model's context prompts leave for the response.

        Args:
            longest: tokens of the longest K titles.
            limit: tokens of the context.
        """
        return longest

    def response(self, row: Row, list_length: int) -> Response:
        """Return what supervised training teaches: the row's first targets, without free text.

        Args:
            row: with one target or more.
            list_length: K, titles of a response.
        """
        return Response(row.targets[:list_length])

    @abstractmethod
    def list_size(self, list_length: int) -> int:
        """Return how many items a ranked list has unless the user says otherwise.

        Args:
            list_length: K, titles of a response, as the dataset says.
        """

    def checked_size(self, size: int | None, list_length: int, items: int) -> int:
        """Return how many items a ranked list has.

        Args:
            size: as the user says; None: `list_size`.
            list_length: K, titles of a response, as the dataset says.
            items: I, size of the catalogue.

        Raises:
            UserError: more items than there are; up to `list_size` of them, short lists end where the catalogue does.
        """
        usual = self.list_size(list_length)
        if size is not None and size > max(items, usual):
            raise UserError(f"--size {size} is asked for, and the catalogue has {items} items.", "Ask for fewer.")
        return size or usual

    @abstractmethod
    def writable_length(self, list_length: int, size: int, decoder: str) -> int:
        """Return how many titles a decoder that writes responses may ask the model for.

        Args:
            list_length: K, titles of the responses that the model was trained on.
            size: items that the user asks for.
            decoder: its name, for the error text.

        Raises:
            UserError: the model writes no such list.
        """

    @abstractmethod
    def decode(self, engine: Engine, rows: Sequence[Row]) -> Predictions:
        """Answer rows as validation and reports do: `list_size` items each, as far as there are so many."""

    def questions(self, rows: Sequence[Row], form: AnswerFormat, negatives: int, seed: int) -> Sequence[Row]:
        """Return the rows that training is answered by: these themselves, unless the task asks about candidates.

        Args:
            rows: of a split; those that ask about a candidate already are returned as they are.
            form: how questions about candidates are answered.
            negatives: negatives that are asked about beside each positive.
            seed: of their draw.
        """
        return rows

    def chance(self, rows: Sequence[Row], size: int) -> Sequence[Predictions]:
        """Return lists whose mean over metrics is what chance reaches, or none where the task has no such level."""
        return ()

    def default_metric(self, list_length: int, items: int) -> str:
        """Return the metric that picks checkpoints: ndcg over the whole list.

        Args:
            list_length: K, titles of a response.
            items: I, size of the catalogue.
        """
        return f"ndcg@{min(self.list_size(list_length), items)}"
