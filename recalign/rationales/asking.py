"""Asking a teacher about many candidates: several calls under way at a time, every reply noted as it comes."""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait

from recalign import console
from recalign.api import Case, Catalogue, Reply, Teacher
from recalign.data.questions import RATIONALE
from recalign.errors import UserError
from recalign.interrupts import on_signals
from recalign.plugins.registry import blamed, plugin_error
from recalign.rationales.budget import Budget
from recalign.rationales.journal import Journal
from recalign.rationales.records import AnswerRecord, Outcome

ATTEMPTS = 3
"""Times that a question is asked as long as no text comes back."""
STUCK = 10
"""Replies in a row without any text after which nothing more is asked."""


class _Waiting:
    """Cases that are still to be asked about, made when they come to the front; behind them those asked about again."""

    def __init__(self, cases: Sequence[Case]) -> None:
        self._cases, self._again = iter(cases), deque[Case]()
        self._left = len(cases)
        self._front: Case | None = None

    def __len__(self) -> int:
        return self._left + len(self._again)

    @property
    def first(self) -> Case:
        """The case at the front; there must be one."""
        if self._front is None:
            self._front = next(self._cases) if self._left else self._again[0]
        return self._front

    def pop(self) -> Case:
        """Take it away."""
        case, self._front = self.first, None
        if self._left:
            self._left -= 1
        else:
            self._again.popleft()
        return case

    def append(self, case: Case) -> None:
        """Put a case at the end."""
        self._again.append(case)


_Flying = dict[Future[Sequence[Reply]], list[Case]]


class Asking:
    """Asks about cases until all are answered, a limit is reached, or the teacher cannot answer at all.

    Args:
        teacher: it has begun.
        catalogue: the items.
        journal: takes every reply.
        budget: what may be spent.
    """

    def __init__(self, teacher: Teacher, catalogue: Catalogue, journal: Journal, budget: Budget) -> None:
        self.teacher, self.catalogue, self.journal, self.budget = teacher, catalogue, journal, budget
        self._attempts: dict[tuple[int, int], int] = {}
        self._failure: Exception | None = None
        self._empty_handed = 0

    def __call__(self, cases: Sequence[Case], advance: Callable[[int], None]) -> int:
        """Ask about cases, in their order.

        Args:
            cases: those that have no answer yet; they are looked at one after the other.
            advance: is told how many more are answered.

        Returns:
            How many are left because a limit is reached.

        Raises:
            UserError: the teacher cannot answer, or answers with nothing but unusable replies; what it answered before
                is noted.
            KeyboardInterrupt: what was under way is noted.
        """
        self._waiting, self._advance = _Waiting(cases), advance
        flying: _Flying = {}
        with (
            noting_the_first_interrupt(self.teacher.stop_waiting) as interrupted,
            ThreadPoolExecutor(self.teacher.concurrency) as pool,
        ):
            while True:
                if self._failure is None and not interrupted():
                    self._send(pool, flying)
                if not flying:
                    break
                self._land(flying)
            if interrupted():
                raise KeyboardInterrupt
        if self._failure is not None:
            raise self._failure
        return len(self._waiting)

    def _send(self, pool: ThreadPoolExecutor, flying: _Flying) -> None:
        """Ask as much as may be under way at a time."""
        while len(flying) < self.teacher.concurrency and (batch := self._next_batch()):
            flying[pool.submit(self._replies, batch)] = batch

    def _next_batch(self) -> list[Case]:
        batch: list[Case] = []
        size = self.teacher.batch_size
        while self._waiting and len(batch) < size and self.budget.allows(self._waiting.first):
            batch.append(self._waiting.pop())
            self.budget.set_aside(batch[-1])
        return batch

    def _replies(self, batch: list[Case]) -> Sequence[Reply]:
        """Call the teacher, in a thread of the pool."""
        with blamed("teacher", self.teacher, "reply"):
            replies = self.teacher.reply(batch)
            if len(replies) != len(batch):
                raise plugin_error("teacher", self.teacher, f"gave {len(replies)} replies to {len(batch)} questions")
            return replies

    def _land(self, flying: _Flying) -> None:
        """Wait for one call at least, and note its replies."""
        done, _ = wait(flying, return_when=FIRST_COMPLETED)
        for future in done:
            batch = flying.pop(future)
            try:
                replies: Sequence[Reply | None] = future.result()
            except Exception as error:
                self._failure = self._failure or error
                replies = [None] * len(batch)
            for case, reply in zip(batch, replies, strict=True):
                if reply is not None:
                    self._note(case, reply)
                self.budget.settle(case, reply)

    def _note(self, case: Case, reply: Reply) -> None:
        outcome, problem, positive = judge(case, reply)
        self.journal.add(
            AnswerRecord(
                row=case.row.index,
                item=case.item,
                user_id=case.row.user_id,
                title=self.catalogue.titles[case.item],
                positive=positive,
                outcome=outcome,
                text=reply.text.encode(errors="replace").decode(),
                problem=problem,
                prompt_tokens=reply.prompt_tokens,
                completion_tokens=reply.completion_tokens,
                teacher=self.teacher.name,
                model=self.teacher.model,
            )
        )
        key = (case.row.index, case.item)
        self._attempts[key] = self._attempts.get(key, 0) + 1
        self._empty_handed = self._empty_handed + 1 if outcome == "malformed" else 0
        if self._empty_handed >= STUCK and self._failure is None:
            self._failure = UserError(
                f"The last {STUCK} replies of the teacher '{self.teacher.name}' were no text; the last was {problem}.",
                "Check its parameters (`recalign plugins show`). What was answered is kept; --resume goes on.",
            )
        if outcome == "malformed" and self._attempts[key] < ATTEMPTS:
            self._waiting.append(case)
        else:
            self._advance(1)


def judge(case: Case, reply: Reply) -> tuple[Outcome, str, bool]:
    """Say what becomes of a reply: its outcome, the problem in words, and whether the candidate is a positive."""
    positive = bool((case.row.relevant == case.item).any())
    if reply.problem or not reply.text.strip():
        return "malformed", reply.problem or "an empty text", positive
    if not reply.text.isascii() and reply.text.encode(errors="ignore").decode() != reply.text:
        return "malformed", "half a character", positive
    try:
        answer = RATIONALE.read(reply.text)
    except UserError as error:
        return "off_format", error.what, positive
    if answer.recommended != positive:
        return "dropped", "the decision is wrong", positive
    return "kept", "", positive


@contextlib.contextmanager
def noting_the_first_interrupt(then: Callable[[], None]) -> Iterator[Callable[[], bool]]:
    """Let an interrupt be noted at first, so that what is paid for already is not lost; the second one interrupts.

    Args:
        then: called at the first.

    Yields:
        A function that says whether there was one. Outside the main thread, which alone hears of it, there is none.
    """
    heard = threading.Event()

    def note() -> None:
        heard.set()
        then()
        console.say("waiting for the answers that are under way; Ctrl-C again drops them.")

    with on_signals(note):
        yield heard.is_set
