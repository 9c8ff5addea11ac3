"""Ranks a row's candidates by how much likelier the model's answer to each is one word than the other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from recalign.api import AnswerFormat, Decoder, Engine, Field, Params, Predictions, Row, UserError, hookimpl
from recalign.tasks.rank import candidates_of, ranked


class JudgeParams(Params):
    """Parameters of `judge`."""

    positive: str | None = Field(None, description="word of a candidate that is recommended (default: the model's own)")
    negative: str | None = Field(None, description="word of another candidate (default: the model's own)")


class Judge(Decoder):
    """Asks about each candidate alone; the score is the difference of two logits, where the answer's word begins.

    The order is that of P(word) = softmax over the two logits. Nothing else of the vocabulary matters. A model that was
    trained to write rationales writes one before, greedily; the texts are kept in the predictions.

    Source: TALLRec (Bao et al., RecSys 2023), released evaluation; Prompt4NR (Zhang and Wang, SIGIR 2023).
    Differs from the papers: both report probabilities, TALLRec's evaluation after a second softmax; orders are equal.
    """

    Params = JudgeParams
    paper = "Bao et al., RecSys 2023 (TALLRec); Zhang & Wang, SIGIR 2023 (Prompt4NR)"
    tasks: ClassVar[frozenset[str]] = frozenset({"rank"})

    def decode(self, engine: Engine, rows: Sequence[Row], size: int) -> Predictions:
        """Rank the candidates of each row, the best `size` of them."""
        form = self._form(engine)
        if form.rationale:
            room = engine.policy.answering.max_tokens
            found = engine.questions.rationales(rows, form=form, max_tokens=room, temperature=None, seed=engine.seed)
            scores = found.log_odds.cpu().numpy().astype(np.float64)
            return ranked(rows, candidates_of(rows), scores, seed=engine.seed, size=size, rationales=found.texts)
        logits = engine.questions.word_logits(rows, form=form).cpu().numpy().astype(np.float64)
        return ranked(rows, candidates_of(rows), logits[:, 0] - logits[:, 1], seed=engine.seed, size=size)

    def _form(self, engine: Engine) -> AnswerFormat:
        words = self.params.positive, self.params.negative
        if words == (None, None):
            return engine.policy.answering.form
        if None in words:
            raise UserError(
                "The decoder 'judge' compares two words, and only one is given.",
                "Give both: -p positive=Yes -p negative=No.",
            )
        return AnswerFormat(words, opening="", closing="", rationale=False)


@hookimpl
def recalign_decoder() -> type[Decoder]:
    """Return the plugin class to recalign."""
    return Judge
