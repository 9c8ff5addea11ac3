"""Questions about one candidate: shall it be recommended? How they are answered, and how an answer is read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from recalign.errors import UserError

REASONING = "#Initial reasoning"
SELF_CHECK = "#Self-check"
CONCLUSION = "#Final conclusion and suggestion"
PARTS = (REASONING, SELF_CHECK, CONCLUSION)
"""Headings of a rationale, in their order."""


class Answer(NamedTuple):
    """An answer that was read.

    Args:
        rationale: the text before the decision, without blanks at its ends.
        recommended: whether the candidate is recommended.
    """

    rationale: str
    recommended: bool


@dataclass(frozen=True)
class AnswerFormat:
    """How the question about one candidate is answered: free text, where there is some, and one of two words.

    Args:
        words: what is written of a candidate that is recommended, and of another.
        opening: what stands before the word.
        closing: what stands after it.
        rationale: whether free text in three headed parts comes before all that.

    Source: "Reasoning to Rank", Sec. 3.1 (the self-check template; `<answer>Recommend</answer>`).
    """

    words: tuple[str, str] = ("Recommend", "Not Recommend")
    opening: str = "<answer>"
    closing: str = "</answer>"
    rationale: bool = True

    def __post_init__(self) -> None:
        assert self.opening or not self.rationale, "free text ends where the decision opens"
        first, second = (word.strip() for word in self.words)
        if not first or not second or first == second:
            raise UserError(
                f"The answers {self.words[0]!r} and {self.words[1]!r} cannot be told apart.",
                "Name two different words, such as yes and no.",
            )

    def line(self, recommended: bool) -> str:
        """Return the decision as it is written: `<answer>Recommend</answer>`."""
        return f"{self.opening}{self.words[0 if recommended else 1]}{self.closing}"

    def text(self, recommended: bool, rationale: str = "") -> str:
        """Return a whole answer: the rationale, where there is one, and the decision on a line of its own."""
        return f"{rationale.strip()}\n{self.line(recommended)}" if rationale.strip() else self.line(recommended)

    def read(self, text: str) -> Answer:
        """Read an answer, the inverse of `text`.

        Raises:
            UserError: no decision, more than one, or another word.
        """
        assert self.opening and self.closing, "what no tag marks is not looked for in free text"
        count = text.count(self.opening)
        if count != 1:
            raise UserError(
                f"The answer has {count or 'no'} decision{'s' * (count > 1)} ({self.opening}...{self.closing}): "
                f"{_end_of(text)!r}.",
                f"It must end in {self.line(True)} or {self.line(False)}.",
            )
        rationale, _, rest = text.partition(self.opening)
        word, closed, after = rest.partition(self.closing)
        if not closed or after.strip() or word.strip() not in self.words:
            raise UserError(
                f"The decision reads {self.opening + rest[:60]!r}.",
                f"It must be {self.line(True)} or {self.line(False)}, with nothing after it.",
            )
        return Answer(rationale.strip(), word.strip() == self.words[0])


RATIONALE = AnswerFormat()
"""R2Rank's: a rationale, and the decision between tags."""
DECISION = AnswerFormat(rationale=False)
"""The same without a rationale."""


StateAt = Literal["decision", "open"]
"""Where the hidden state is taken that a ranking head scores: at the last token of the decision's word, or at that of
what opens it, where the score depends on the rationale only."""


@dataclass(frozen=True)
class Answering:
    """How a model answers questions about candidates; its `recalign.json` records it.

    Args:
        form: of its answers.
        max_tokens: of a rationale; one that goes on longer is cut, and the decision forced.
        state: where a ranking head reads.
    """

    form: AnswerFormat = DECISION
    max_tokens: int = 256
    state: StateAt = "decision"

    @classmethod
    def of(cls, recorded: dict[str, Any] | None) -> Answering:
        """Read what `dataclasses.asdict` wrote; None: the default."""
        if recorded is None:
            return cls()
        form = {**recorded["form"], "words": tuple(recorded["form"]["words"])}
        return cls(**{**recorded, "form": AnswerFormat(**form)})


@dataclass(frozen=True)
class Question:
    """What a row asks, where it asks about one of its candidates alone.

    Args:
        item: the candidate's index.
        form: how it is answered.
        rationale: the free text of the answer that training teaches; empty where none is known.
    """

    item: int
    form: AnswerFormat
    rationale: str = ""


def _end_of(text: str) -> str:
    return text if len(text) <= 60 else "..." + text[-57:]
