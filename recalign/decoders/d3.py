"""D3: titles without length normalisation, and with a conventional recommender's opinion (next task)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch

from recalign.api import (
    Catalogue,
    Decoder,
    Engine,
    Field,
    Predictions,
    Rescorer,
    Row,
    UserError,
    ValidContinuations,
    hookimpl,
)
from recalign.api import Params as AnyParams
from recalign.decoders.rescored import SearchParams, search_titles

if TYPE_CHECKING:
    from recalign.recommenders.assistants import Assistant

ALPHA = 0.7
IMPOSSIBLE = 1e100  # a score so far below the others' that its item is as good as impossible
CELLS = 2**26  # shares of rows and nodes held at a time (512 MB)


class Assisted(Rescorer):
    """alpha * log p_LM + (1 - alpha) * log p_assist.

    p_assist(token | prefix) is the share of the assistant's softmax mass that lies below the token, among the prefix's
    valid tokens. Items that a row must not be recommended have no mass, so that a title's tokens multiply to the
    softmax of its item over those that it may. What lies far below the best item keeps its order. A forced token has a
    share of 1, so that its score is alpha * log p_LM.

    Args:
        engine: titles and exclusions.
        assistant: scores all items of a row.
        alpha: weight of the language model.
        temperature: the assistant's scores divided by it are its logits.
    """

    def __init__(self, engine: Engine, assistant: Assistant, alpha: float, temperature: float = 1.0) -> None:
        self.engine, self.assistant, self.alpha, self.temperature = engine, assistant, alpha, temperature
        self.forced_weight = alpha

    def begin(self, rows: Sequence[Row]) -> Callable[[ValidContinuations], torch.Tensor]:
        """Add up the assistant's mass of each row, in logarithms [P, nodes + I]."""
        trie = self.engine.trie
        device = trie.item_at.device
        scores = torch.from_numpy(self.assistant.scores(rows)) / self.temperature
        scores = scores.clamp(-IMPOSSIBLE, IMPOSSIBLE)  # the assistant may rule items out; only exclusions forbid them
        for place, excluded in enumerate(self.engine.excluded_by(rows)):
            scores[place, torch.from_numpy(excluded)] = -torch.inf
        items = scores.to(device)
        masses = torch.cat([trie.log_sums(items), items], dim=1)  # [P, nodes + I]

        def rescore(choices: ValidContinuations) -> torch.Tensor:
            mass = masses[choices.rows[:, None], choices.children].masked_fill(~choices.valid, -torch.inf)
            return self.alpha * choices.logps + (1 - self.alpha) * mass.log_softmax(dim=1)

        return rescore


class D3Params(SearchParams):
    """Parameters of `d3`."""

    assistant: str | None = Field(
        None, description="run folder of `recalign baseline`, such as of sasrec (default: none)"
    )
    alpha: float | None = Field(
        None, ge=0, le=1, description=f"weight of the language model (default: {ALPHA}, without an assistant 1)"
    )
    temperature: float = Field(
        1.0, gt=0, description="divides the assistant's scores; 1 fits sasrec and bert4rec, which score by logits"
    )


class D3(Decoder):
    """D3: no length normalisation, and alpha * log p_LM + (1 - alpha) * log p_assist at every token that is a choice.

    Forced (ghost) tokens add nothing. Without an assistant alpha is 1, and D3 is `beam` with the same scoring.

    Source: Bao et al., "Decoding Matters" (D3), EMNLP 2024.
    Differs from the paper: items that may not be recommended have no share of the assistant's mass.
    Differs from the official code: log p_LM is renormalised over the valid tokens, where the code adds up log p over
    the whole vocabulary, forced tokens included (`scoring=full`); p_assist adds up the shares of the items below a
    token, where the code takes the largest of them.
    """

    paper = "D3 (Bao et al., EMNLP 2024)"
    tasks: ClassVar[frozenset[str]] = frozenset({"next"})

    Params = D3Params

    def __init__(self, params: AnyParams | None = None, *, name: str = "") -> None:
        super().__init__(params, name=name)
        self._loaded: tuple[Catalogue, Assistant] | None = None
        if self.params.assistant is None and self.params.alpha not in (None, 1):
            raise UserError(
                f"alpha = {self.params.alpha} leaves {1 - self.params.alpha:g} to an assistant, and there is none.",
                "Pass -p assistant=FOLDER, a run of `recalign baseline sasrec`, or leave alpha out.",
            )

    @property
    def files(self) -> list[Path]:
        """The assistant's run."""
        return [] if self.params.assistant is None else [Path(self.params.assistant)]

    def decode(self, engine: Engine, rows: Sequence[Row], size: int) -> Predictions:
        """Search `size` titles per row; fewer where the beam finds no more."""
        if self.params.assistant is None:
            return search_titles(engine, rows, size, self.params, None)
        alpha = ALPHA if self.params.alpha is None else self.params.alpha
        rescorer = Assisted(engine, self._assistant(engine), alpha, self.params.temperature)
        step = max(1, CELLS // engine.trie.nodes)
        parts = [
            search_titles(engine, rows[start : start + step], size, self.params, rescorer)
            for start in range(0, len(rows), step)
        ]
        return Predictions(
            items=np.concatenate([part.items for part in parts]),
            scores=np.concatenate([part.scores for part in parts]),
            lengths=np.concatenate([part.lengths for part in parts]),
        )

    def _assistant(self, engine: Engine) -> Assistant:
        """Load the assistant on first use; another catalogue asks for it anew."""
        from recalign.recommenders.assistants import load_assistant

        if self._loaded is None or self._loaded[0] is not engine.catalogue:
            self._loaded = (engine.catalogue, load_assistant(Path(self.params.assistant), engine.catalogue))
        return self._loaded[1]


@hookimpl
def recalign_decoder() -> type[Decoder]:
    """Return the plugin class to recalign."""
    return D3
