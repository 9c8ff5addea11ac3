"""Limits on what teachers may spend, kept by setting aside what questions under way may still take."""

from __future__ import annotations

from dataclasses import dataclass

from recalign.api import Case, Reply, Teacher


@dataclass
class Budget:
    """Tokens and money, spent and set aside.

    Args:
        teacher: states what a question may take and what tokens cost.
        max_tokens: most prompt and completion tokens together; None: no limit.
        max_spend: most money, in that of the teacher's prices; None: no limit.
        prompt_tokens: spent so far.
        completion_tokens: spent so far.
    """

    teacher: Teacher
    max_tokens: int | None = None
    max_spend: float | None = None
    prompt_tokens: int = 0
    completion_tokens: int = 0

    def __post_init__(self) -> None:
        self._aside = (0, 0)

    def allows(self, case: Case) -> bool:
        """Whether a question may be asked: with what is under way and what it may take, no limit is exceeded."""
        prompt, completion = self.teacher.most_tokens(case)
        prompt += self.prompt_tokens + self._aside[0]
        completion += self.completion_tokens + self._aside[1]
        if self.max_tokens is not None and prompt + completion > self.max_tokens:
            return False
        return self.max_spend is None or (self.teacher.price(prompt, completion) or 0.0) <= self.max_spend

    def set_aside(self, case: Case) -> None:
        """Count what a question that is asked now may take."""
        prompt, completion = self.teacher.most_tokens(case)
        self._aside = (self._aside[0] + prompt, self._aside[1] + completion)

    def settle(self, case: Case, reply: Reply | None) -> None:
        """Count what a question has taken in place of what it might; None: it was never answered."""
        prompt, completion = self.teacher.most_tokens(case)
        self._aside = (self._aside[0] - prompt, self._aside[1] - completion)
        if reply is not None:
            self.prompt_tokens += reply.prompt_tokens
            self.completion_tokens += reply.completion_tokens

    @property
    def tokens(self) -> int:
        """Prompt and completion tokens spent."""
        return self.prompt_tokens + self.completion_tokens

    @property
    def spent(self) -> float | None:
        """Money spent; None where the teacher's prices are not known."""
        return self.teacher.price(self.prompt_tokens, self.completion_tokens)

    def describe(self) -> str:
        """Say what was spent, of what: `12,345 of 20,000 tokens`."""
        tokens = f"{self.tokens:,}" + (f" of {self.max_tokens:,}" if self.max_tokens is not None else "") + " tokens"
        if self.spent is None:
            return tokens
        return f"{tokens}, {self.spent:.4g}" + (f" of {self.max_spend:.4g}" if self.max_spend is not None else "")
