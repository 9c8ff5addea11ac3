"""The engine as plugins see it: a model bound to a catalogue, which samples, decodes greedily and searches titles.

`recalign.decoding.engine.PolicyEngine` is the one that the commands make; whatever has these methods may replace it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np

from recalign.data.catalogue import Catalogue
from recalign.data.dataset import Row
from recalign.data.questions import AnswerFormat, StateAt

if TYPE_CHECKING:
    import torch

    from recalign.api.decoders import Rescorer

Scoring = Literal["renormalised", "full"]
"""Log-probabilities of titles: renormalised over the valid tokens, or over the full vocabulary."""


@dataclass(frozen=True)
class Completions:
    """N = P * G completions, group by group, on the CPU.

    Args:
        tokens: [N, T] int64, padded with the end token.
        lengths: [N] int64, the end token included.
        items: [N, K] int64 item indices; INVALID where free text names no item.
        logps: [N, T] float32 log-probability of each token under the distribution that was sampled from (after
            repetition penalty, temperature and the constraint, renormalised); 0 at forced tokens and padding.
        mask: [N, T] bool, True on the completion's tokens, forced ones included.
    """

    tokens: torch.Tensor
    lengths: torch.Tensor
    items: torch.Tensor
    logps: torch.Tensor
    mask: torch.Tensor


@dataclass(frozen=True)
class Rationales:
    """N answers to questions about candidates, in the order row, candidate, set; on the CPU but for `states`.

    An answer is free text (where the format has a rationale), what opens the decision, its word, what closes it, and
    the end token. The word is constrained to two; what opens it is forced where the text does not get there in time.

    Args:
        rows: [N] int64, which of the rows handed over each answers.
        items: [N] int64, the candidate that each is about.
        tokens: [N, T] int64, padded with the end token.
        lengths: [N] int64, the end token included.
        logps: [N, T] float32 log-probability of each chosen token under the distribution that it was sampled from: the
            whole vocabulary for free text, the two words for the decision; 0 elsewhere.
        chosen: [N, T] bool, the tokens that were chosen rather than forced: free text, and one of the decision.
        recommended: [N] bool, the decision.
        log_odds: [N] float32, log P(recommended) - log P(not) at the decision, at temperature 1.
        opened: [N] int64, place of the last token before the decision, which opens it; -1 where that is the prompt's.
        decided: [N] int64, place of the last token of the decision's word.
        well_formed: [N] bool, False where what opens the decision had to be forced though free text came before it.
        texts: [N] the answers' text.
        states: [N, H] last hidden states where they were asked for, on the model's device, else None.
    """

    rows: torch.Tensor
    items: torch.Tensor
    tokens: torch.Tensor
    lengths: torch.Tensor
    logps: torch.Tensor
    chosen: torch.Tensor
    recommended: torch.Tensor
    log_odds: torch.Tensor
    opened: torch.Tensor
    decided: torch.Tensor
    well_formed: torch.Tensor
    texts: list[str]
    states: torch.Tensor | None = None

    def __len__(self) -> int:
        return len(self.lengths)

    def take(self, index: np.ndarray) -> Rationales:
        """Return some of the answers, by their numbers."""
        kept = {each.name: getattr(self, each.name) for each in fields(self) if each.name not in ("texts", "states")}
        states = None if self.states is None else self.states[index]
        tensors: dict[str, Any] = {name: part[index] for name, part in kept.items()}
        return Rationales(**tensors, texts=[self.texts[place] for place in index], states=states)


class Questions(Protocol):
    """Questions about single candidates of rows: each is answered after a prompt of its own, without the others.

    What the prompts of a row begin with (instruction, profile, history) is encoded once for all of its candidates,
    where the model allows it, in decoding and in training alike. `items` names the candidates of each row that are
    asked about; None: all of `row.candidates`, in ascending order. N counts them row by row.
    """

    def rationales(
        self,
        rows: Sequence[Row],
        items: Sequence[np.ndarray] | None = None,
        *,
        form: AnswerFormat,
        group_size: int = 1,
        max_tokens: int = 256,
        temperature: float | None = 1.0,
        seed: int = 0,
        epoch: int = 0,
        states: StateAt | None = None,
    ) -> Rationales:
        """Answer each question G times, reproducibly whatever else is in the batch.

        The random numbers of an answer are keyed by (seed, epoch, row.index, item, place in the group).

        Args:
            rows: U rows.
            items: [U] the candidates asked about.
            form: of the answers.
            group_size: G, answers per question.
            max_tokens: tokens of free text; after so many the decision is forced.
            temperature: divides the logits; None takes the most probable token.
            seed: of the random numbers.
            epoch: another epoch samples anew.
            states: return the last hidden states at the decision, or at what opens it. No pass is made for them but
                the one over the decision's word.
        """

    def logps(
        self,
        rows: Sequence[Row],
        answers: Rationales,
        *,
        form: AnswerFormat,
        max_tokens: int = 256,
        temperature: float = 1.0,
        states: StateAt | None = None,
        gradients: bool = True,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Compute the log-probabilities of answers' chosen tokens again, on the distribution they were sampled from.

        Args:
            rows: U rows, the ones that were answered.
            answers: N answers, all or some of what `rationales` returned.
            form: as in `rationales`.
            max_tokens: as in `rationales`: what prompts leave for an answer depends on it.
            temperature: as in `rationales`.
            states: return the last hidden states too, from the same pass.
            gradients: let them flow, through log-probabilities and states.

        Returns:
            [N, T] float32, 0 where no token was chosen, and [N, H] or None, on the model's device.
        """

    def word_logits(
        self,
        rows: Sequence[Row],
        items: Sequence[np.ndarray] | None = None,
        *,
        form: AnswerFormat,
        gradients: bool = False,
    ) -> torch.Tensor:
        """Return the logits [N, 2] of the two words' first different tokens, answers without a rationale."""

    def head_scores(self, states: torch.Tensor) -> torch.Tensor:
        """Return the ranking head's scores [N] of hidden states [N, H], without gradients."""

    def answers(
        self, rows: Sequence[Row], items: Sequence[np.ndarray] | None = None
    ) -> tuple[np.ndarray, list[str] | None]:
        """Score candidates as the model was trained to.

        A model with a ranking head scores the hidden state of greedy answers; another by the log-odds of its two words.

        Returns:
            Scores float64 [N], and the texts [N] of answers with a rationale, or None.
        """


class TitleTree(Protocol):
    """The catalogue's titles as a prefix tree of token ids; node 0 is the root.

    Attributes:
        nodes: how many nodes there are.
        item_at: [nodes] the item whose title ends at a node, or -1.
        path_start: [I + 1] where each item's path begins in `path_node`.
        path_node: [tokens of all titles] the nodes that a title passes, its last one included, the root not.
    """

    @property
    def nodes(self) -> int:
        """How many nodes there are."""

    @property
    def item_at(self) -> torch.Tensor:
        """[nodes] the item whose title ends at a node, or -1."""

    @property
    def path_start(self) -> torch.Tensor:
        """[I + 1] where each item's path begins in `path_node`."""

    @property
    def path_node(self) -> torch.Tensor:
        """The nodes that each title passes, title by title."""

    def sums(self, values: torch.Tensor) -> torch.Tensor:
        """Add up a value per item, [..., I], over the items below every node: [..., nodes]."""

    def log_sums(self, values: torch.Tensor) -> torch.Tensor:
        """The same for logarithms of values: logsumexp over the items below every node."""


class Engine(Protocol):
    """A model bound to a catalogue.

    Attributes:
        catalogue: the items.
        task: name of the task that the model was trained for.
        list_length: titles of a response that it was trained to write.
        seed: what decoders sample with.
        policy: the model with its tokenizer, title tokens and prompter.
        cost: counters of what was spent.
        trie: the catalogue's titles as a tree.
        questions: what is asked about single candidates.
    """

    catalogue: Catalogue
    task: str
    list_length: int
    seed: int
    policy: Any
    cost: Any

    @property
    def trie(self) -> TitleTree:
        """The catalogue's titles as a tree."""

    @property
    def questions(self) -> Questions:
        """What is asked about single candidates."""

    def excluded(self, row: Row) -> np.ndarray:
        """Return the items that a row must not be recommended: what its user had, and all but its candidates."""

    def excluded_by(self, rows: Sequence[Row]) -> list[np.ndarray]:
        """Return `excluded` of each row."""

    def sample(
        self,
        rows: Sequence[Row],
        *,
        group_size: int,
        list_length: int,
        temperature: float = 1.0,
        repetition_penalty: float = 1.0,
        seed: int = 0,
        epoch: int = 0,
        constrained: bool = True,
    ) -> Completions:
        """Sample G lists of K titles for each of P rows, reproducibly whatever else is in the batch."""

    def greedy(
        self, rows: Sequence[Row], *, list_length: int, repetition_penalty: float = 1.0, constrained: bool = True
    ) -> Completions:
        """Take the most probable token at every step; one list per row."""

    def beam(
        self,
        rows: Sequence[Row],
        *,
        width: int,
        size: int,
        scoring: Scoring = "renormalised",
        length_penalty: float = 0.0,
        rescorer: Rescorer | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Search the best single titles of each of U rows with B beams: items [U, K] and scores [U, K], best first."""

    def exact(
        self,
        rows: Sequence[Row],
        *,
        size: int,
        scoring: Scoring = "renormalised",
        breadth: int | None = None,
        rescorer: Rescorer | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Find the true top K titles of each of U rows: items and scores [U, K], and nodes opened [U]."""

    def hidden(
        self,
        rows: Sequence[Row],
        responses: Sequence[np.ndarray] | None = None,
        *,
        owners: Sequence[int] | np.ndarray | None = None,
        positions: Sequence[np.ndarray] | None = None,
        gradients: bool = False,
    ) -> torch.Tensor:
        """Return the model's last hidden states after the prompts of U rows, or at tokens of responses that follow.

        Prompts are encoded once however many responses follow, where the model allows it.

        Args:
            rows: U rows.
            responses: [N] token ids, one or more each; None: nothing follows.
            owners: [N] which row's prompt each response follows; None: one response per row, in their order.
            positions: [N] places in each response, E in all; None: each response's last token.
            gradients: let them flow; dropout is then as the model's mode says.

        Returns:
            [U, H] at the prompts' last tokens, or [E, H] response by response, on the model's device.
        """
