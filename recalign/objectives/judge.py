"""Yes-or-no judges: cross-entropy of the word that answers the question about one candidate (TALLRec, Prompt4NR)."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch.nn.functional import cross_entropy

from recalign.api import AnswerBatch, AnswerFormat, Field, Params, TokenNeeds, TokenObjective, hookimpl
from recalign.objectives.msl import choices


class JudgeParams(Params):
    """Parameters of `judge`."""

    over: Literal["vocabulary", "words"] = Field(
        "vocabulary",
        description="softmax of the answer's tokens: over the whole vocabulary (TALLRec), or of the deciding one over "
        "the two words (Prompt4NR)",
    )
    positive: str = Field("Yes", min_length=1, description="answer about a candidate that the user had next")
    negative: str = Field("No", min_length=1, description="answer about another candidate")
    negatives: int = Field(
        1, ge=1, description="negatives of the row's candidates that are asked about beside its positive"
    )


class Judge(TokenObjective):
    """Cross-entropy of the right word after the question about one candidate: summed by answer, mean over answers.

    - `over=vocabulary`: of all tokens of the answer, -log softmax(z)_y over the whole vocabulary.
    - `over=words`: of the token that decides, over the two words: -log sigmoid(z_right - z_wrong). This is logistic
      regression on the logit difference, whose gradient is p - label; forced tokens add nothing.

    Both are the same where all of the model's mass lies on the two words. The decoder `judge` ranks by it.

    Source: TALLRec (Bao et al., RecSys 2023), released code; Prompt4NR (Zhang and Wang, SIGIR 2023), released code.
    Differs from the papers: rows are those of the rank task, one positive and `negatives` negatives. TALLRec takes the
    mean over tokens, and its script learns the prompt too (`--loss-on all` does). Prompt4NR fills the mask of a masked
    model; here the word is the next token. Prompt4NR draws 4 negatives.
    """

    Params = JudgeParams
    paper = "Bao et al., RecSys 2023 (TALLRec); Zhang & Wang, SIGIR 2023 (Prompt4NR)"
    tasks: ClassVar[frozenset[str]] = frozenset({"rank"})

    @property
    def needs(self) -> TokenNeeds:
        """The questions about single candidates, and the two words where the softmax runs over them."""
        form = AnswerFormat((self.params.positive, self.params.negative), opening="", closing="", rationale=False)
        return TokenNeeds(valid_tokens=self.params.over == "words", form=form, negatives=self.params.negatives)

    def loss(self, answers: AnswerBatch) -> tuple[torch.Tensor, dict[str, float]]:
        """Return the loss, without figures."""
        if self.params.over == "words":
            total = choices(answers).cross_entropy().sum()
        else:
            total = cross_entropy(answers.logits, answers.labels, reduction="sum")
        return total / self.weight(answers), {}

    def weight(self, answers: AnswerBatch) -> int:
        """Return the number of answers."""
        return int(answers.rows.unique().numel())


@hookimpl
def recalign_objective() -> type[TokenObjective]:
    """Return the plugin class to recalign."""
    return Judge
