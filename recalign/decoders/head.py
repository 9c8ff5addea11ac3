"""Ranks a row's candidates by the scores that the trained ranking head gives the model's answers about them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar, Literal

from recalign.api import RANKING_HEAD, Decoder, Engine, Field, Params, Predictions, Row, UserError, hookimpl
from recalign.tasks.rank import candidates_of, ranked


class HeadParams(Params):
    """Parameters of `head`."""

    rationale: bool | None = Field(
        None, description="write a rationale before each decision (default: as the model was trained)"
    )
    max_tokens: int | None = Field(
        None, ge=1, description="maximum number of tokens of a rationale (default: as the model was trained)"
    )
    temperature: float | None = Field(None, ge=0.01, description="sample answers at it (default: greedy ones)")
    state: Literal["decision", "open"] | None = Field(
        None, description="hidden state that is scored: of the decision, or of what opens it (default: as trained)"
    )


class Head(Decoder):
    """Lets the model answer the question about each candidate, and scores a hidden state of the answer.

    Answers and scores are kept in the predictions. An answer whose text comes to no decision is counted as a format
    failure; its decision is forced, and it is scored like the others.

    Source: "Reasoning to Rank" (R2Rank), Sec. 3.2, test time: sort by the head's score.
    Differs from the paper: whether its answers are greedy or sampled it does not say; ours are greedy. Ties are broken
    by an order that is drawn for each row.
    """

    Params = HeadParams
    paper = "Zheng et al., Reasoning to Rank (R2Rank)"
    tasks: ClassVar[frozenset[str]] = frozenset({"rank"})

    def decode(self, engine: Engine, rows: Sequence[Row], size: int) -> Predictions:
        """Rank the candidates of each row, the best `size` of them.

        Raises:
            UserError: the model has no ranking head.
        """
        if not engine.policy.has_module(RANKING_HEAD):
            raise UserError(
                "The model has no trained ranking head.",
                "Train one with recalign align --objective r2rank, or decode with --decoder judge.",
            )
        own, p = engine.policy.answering, self.params
        form = own.form if p.rationale is None else replace(own.form, rationale=p.rationale)
        found = engine.questions.rationales(
            rows,
            form=form,
            max_tokens=p.max_tokens or own.max_tokens,
            temperature=p.temperature,
            seed=engine.seed,
            states=p.state or own.state,
        )
        assert found.states is not None, "they were asked for"
        scores = engine.questions.head_scores(found.states).cpu().numpy()
        texts = found.texts if form.rationale else None
        return ranked(rows, candidates_of(rows), scores, seed=engine.seed, size=size, rationales=texts)


@hookimpl
def recalign_decoder() -> type[Decoder]:
    """Return the plugin class to recalign."""
    return Head
