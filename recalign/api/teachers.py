"""Teachers: what writes rationales, the texts that argue whether an item suits a user and end in a decision."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from recalign.api.base import Plugin
from recalign.api.recommenders import TrainingData
from recalign.data.catalogue import Catalogue
from recalign.data.dataset import Row

if TYPE_CHECKING:
    from recalign.api.engine import Engine


@dataclass(frozen=True)
class Case:
    """One candidate of one row, about which a teacher is asked.

    Args:
        row: the user's; its targets may not be read.
        item: index of the candidate.
        prompt: what a model is asked about them, as text: instruction, history, candidate, format of the answer.
    """

    row: Row
    item: int
    prompt: str


@dataclass(frozen=True)
class Reply:
    """What a teacher answered.

    Args:
        text: a rationale and its decision, in the format that the prompt asks for.
        prompt_tokens: that the prompt took; 0 where tokens mean nothing to the teacher.
        completion_tokens: that the text took.
        problem: why what came back is no text at all, such as "a page of HTML"; empty where it is one. Such a
            case is asked about again a few times.
    """

    text: str = ""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    problem: str = ""


@dataclass(frozen=True)
class TeacherContext:
    """What a teacher may use.

    Args:
        catalogue: the items.
        training: reads the training interactions.
        load_engine: loads a model by the names that `--model` takes and returns its engine.
        seed: of everything that is drawn.
    """

    catalogue: Catalogue
    training: Callable[[], TrainingData]
    load_engine: Callable[[str], Engine]
    seed: int = 0


class Teacher(Plugin, ABC):
    """Writes rationales for candidates of rows; `recalign rationales` keeps those whose decision is right.

    `begin` comes first, then `reply` any number of times, in any order of cases. Import heavy packages inside
    functions: listing plugins must not wait for them.

    Attributes:
        remote: whether prompts leave this machine; `plugins check` does not try such a teacher.
        context: what `begin` was handed.
    """

    remote: ClassVar[bool] = False
    context: TeacherContext

    @property
    def model(self) -> str:
        """Name of the model that writes the texts, for the record; empty where there is none."""
        return ""

    @property
    def identity(self) -> dict[str, Any]:
        """What decides the replies: a run goes on only where it is the same. By default all parameters."""
        return dict(self.params.model_dump())

    @property
    def files(self) -> list[Path]:
        """Files and folders that it reads: their content decides whether a finished run still fits."""
        return []

    @property
    def batch_size(self) -> int:
        """How many cases `reply` takes at once, at most; those of a row stand together."""
        return 1

    @property
    def concurrency(self) -> int:
        """How many calls of `reply` may be under way at the same time, each in a thread."""
        return 1

    def begin(self, context: TeacherContext) -> None:
        """Get ready: load, look for keys, count.

        Args:
            context: what the teacher may use.

        Raises:
            UserError: something that the teacher needs is missing.
        """
        self.context = context

    def most_tokens(self, case: Case) -> tuple[int, int]:
        """Return the most prompt and completion tokens that a reply may take, by which limits are kept; 0: not known.

        Args:
            case: that is about to be asked about.
        """
        return 0, 0

    def price(self, prompt_tokens: int, completion_tokens: int) -> float | None:
        """Return what so many tokens cost, in whatever money the prices are stated; None: prices are not known.

        Args:
            prompt_tokens: of prompts.
            completion_tokens: of replies.
        """
        return None

    def stop_waiting(self) -> None:
        """Be told, in another thread than `reply`, that the user wants to stop: what would only wait gives up."""
        return

    @abstractmethod
    def reply(self, cases: Sequence[Case]) -> Sequence[Reply]:
        """Answer whether candidates suit their users.

        Args:
            cases: [N], `batch_size` at most.

        Returns:
            [N] replies, in the order of the cases.

        Raises:
            UserError: nothing can be answered now (a key that is refused, a server that is down); what was
                answered before is kept.
        """
