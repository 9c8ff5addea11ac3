"""All that a plugin imports: the four kinds, their parameters, and the batches that they are handed.

Dimension letters, here and everywhere: I items, C genres, U users or rows, P prompts, G completions a prompt (group),
N completions (N = P*G, group by group), T completion tokens, V vocabulary, K titles a list, M reference lists a prompt,
S answer tokens of a batch laid end to end.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from recalign.data.catalogue import Catalogue
from recalign.data.dataset import Row
from recalign.errors import UserError
from recalign.hookspecs import hookimpl
from recalign.params import Params

if TYPE_CHECKING:
    import polars as pl
    import torch

    from recalign.generation.engine import Engine

__all__ = [
    "AnswerBatch",
    "Catalogue",
    "Credit",
    "Decoder",
    "Field",
    "Groups",
    "INVALID",
    "ListBatch",
    "NoParams",
    "Objective",
    "Params",
    "PolicyBatch",
    "Predictions",
    "PreferenceBatch",
    "PreferenceObjective",
    "PreferenceParams",
    "RawData",
    "Reward",
    "RolloutObjective",
    "RolloutParams",
    "Row",
    "SamplingParams",
    "Source",
    "TokenObjective",
    "UserError",
    "ValidTokens",
    "hookimpl",
]

AnyParams = Params  # inside a plugin class the name `Params` is the plugin's own declaration

INVALID = -1
"""Item index of a position whose text names no item of the catalogue."""


class NoParams(Params):
    """For plugins without parameters."""


class Plugin:
    """What the four kinds share.

    Attributes:
        Params: the declaration of the plugin's parameters.
        paper: where the method comes from (authors, venue, equation).
        name: the name that the user typed, which is the entry point's.
    """

    Params: ClassVar[type[Params]] = NoParams
    paper: ClassVar[str] = ""

    def __init__(self, params: AnyParams | None = None, *, name: str = "") -> None:
        self.params: Any = params if params is not None else self.Params()
        self.name = name or type(self).__name__.lower()


# ---------------------------------------------------------------- rewards


@dataclass(frozen=True)
class ListBatch:
    """N ranked lists, with what a reward may read of the rows that they answer.

    Args:
        items: [N, K] int64 item indices in rank order; INVALID where the text is no item. Positions at or after
            `lengths` are padding and INVALID too.
        lengths: [N] how many positions the list has.
        rows: [N] the row of each list (history, targets, gains).
        groups: [N] which prompt each list answers: a reward may look at the whole group.
        logps: [N] the list's total log-probability under the model, where a model made it.
    """

    items: np.ndarray
    lengths: np.ndarray
    rows: Sequence[Row]
    groups: np.ndarray
    logps: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.items)


Reads = Literal["targets", "history", "genres", "popularity", "logps"]


class Reward(Plugin, ABC):
    """One value per ranked list; the same code serves `align` and `eval`.

    Implement `score_one` (plain) or override `score` (vectorised). A reward reads only what it declares.

    Attributes:
        reads: what it reads; a dataset that lacks it is refused before the run, and a decoder whose reward reads
            `targets` is an oracle.
        higher_is_better: False for measures of harm such as mgu.
        takes_cutoff: whether `name@k` is meaningful; `self.cutoff` is k, or None for the whole list.
    """

    reads: ClassVar[frozenset[Reads]] = frozenset()
    higher_is_better: ClassVar[bool] = True
    takes_cutoff: ClassVar[bool] = True

    cutoff: int | None = None
    catalogue: Catalogue

    def bind(self, catalogue: Catalogue, cutoff: int | None = None) -> None:
        """Attach the catalogue and the `@k` of the expression; called once, before any score.

        Raises:
            UserError: the catalogue lacks what the reward reads.
        """
        if "genres" in self.reads and not catalogue.genre_names:
            raise UserError(
                f"The reward '{self.name}' reads genres, and no item of this dataset has any.",
                "Prepare the dataset from a source with genres, or choose another reward.",
            )
        self.catalogue, self.cutoff = catalogue, cutoff

    def score_one(self, items: np.ndarray, row: Row) -> float:
        """Value of one list.

        Args:
            items: [K] item indices, INVALID where the text is no item, cut at `@k` already.
            row: what it answers.
        """
        raise NotImplementedError(f"{type(self).__name__} implements neither score_one nor score")

    def score(self, lists: ListBatch) -> np.ndarray:
        """Values of N lists: float64 [N], finite. By default one call of `score_one` each."""
        ends = lists.lengths if self.cutoff is None else np.minimum(lists.lengths, self.cutoff)
        return np.array(
            [self.score_one(items[:end], row) for items, end, row in zip(lists.items, ends, lists.rows, strict=True)],
            dtype=np.float64,
        )

    def defined_for(self, row: Row) -> bool:
        """Whether the value means anything for a row; rows for which it does not are left out and counted."""
        return True


# ---------------------------------------------------------------- objectives


class Objective(Plugin, ABC):
    """What is optimised.

    Subclass `TokenObjective` (the answers of the data), `PreferenceObjective` (answers against rejected ones) or
    `RolloutObjective` (sampled groups).
    """

    tasks: ClassVar[frozenset[str]] = frozenset({"next", "list"})

    def state_dict(self) -> dict[str, Any]:
        """The objective's own state, saved with every checkpoint (JSON-serialisable)."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""


@dataclass(frozen=True)
class ValidTokens:
    """The valid next tokens of the R positions of a batch that have several; everywhere else the token is forced.

    Ragged, because a [S, V] mask would be a thousand times larger: few of a title's tokens are a choice.

    Args:
        positions: [R] int64, which of the S positions they are, in any order.
        starts: [R + 1] int64; those of `positions[r]` are `tokens[starts[r] : starts[r + 1]]`, two or more.
        tokens: [E] int64 token ids, without repeats at a position.
    """

    positions: torch.Tensor
    starts: torch.Tensor
    tokens: torch.Tensor

    @property
    def counts(self) -> torch.Tensor:
        """[R] how many tokens are valid."""
        return self.starts.diff()

    def padded(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return [R, C] token ids (0 in the padding) and [R, C] bool, False in the padding."""
        import torch

        counts = self.counts
        column = torch.arange(int(counts.max()) if len(counts) else 0, device=counts.device)
        present = column < counts[:, None]  # [R, C]
        tokens = self.tokens.new_zeros(present.shape)
        tokens[present] = self.tokens
        return tokens, present


@dataclass(frozen=True)
class AnswerBatch:
    """The S answer tokens of a batch of rows, laid end to end.

    Args:
        logits: [S, V] float32, at the position before each answer token; gradients flow.
        labels: [S] int64 token ids.
        rows: [S] which row of the batch each token belongs to.
        allowed: the trie's valid next tokens, or None where the objective does not ask for them.
        logits_without_history: [S, V] float32, as `logits`, for the same answers after prompts with an empty history;
            None where the objective does not ask for them. Gradients flow.
    """

    logits: torch.Tensor
    labels: torch.Tensor
    rows: torch.Tensor
    allowed: ValidTokens | None = None
    logits_without_history: torch.Tensor | None = None


class TokenObjective(Objective):
    """A loss on the answer's tokens.

    Attributes:
        reads_allowed: set it to be handed the trie's valid next tokens (`AnswerBatch.allowed`).
        reads_without_history: set it to be handed `AnswerBatch.logits_without_history`, for a second forward pass.
    """

    reads_allowed: ClassVar[bool] = False
    reads_without_history: ClassVar[bool] = False

    @property
    def responses_only(self) -> bool:
        """Whether the loss means something on responses only, not on the tokens of prompts."""
        return self.reads_allowed or self.reads_without_history

    @abstractmethod
    def loss(self, answers: AnswerBatch) -> tuple[torch.Tensor, dict[str, float]]:
        """Return the scalar loss and figures to log."""


class PreferenceParams(Params):
    """Parameters of every preference objective."""

    beta: float = Field(0.1, gt=0, description="scale of the log-ratios to the reference policy")
    negatives: int = Field(1, ge=1, le=64, description="rejected titles a row, D")
    source: Literal["uniform", "popularity", "batch", "self"] = Field(
        "uniform",
        description="where rejected titles come from: any item, items by training popularity, the targets of the "
        "batch's other rows, or the policy's own beam search",
    )
    constrained: bool = Field(
        False, description="probabilities over the catalogue's valid tokens (false: all tokens, as in the papers)"
    )


@dataclass(frozen=True)
class PreferenceBatch:
    """Log-probabilities of B rows' titles: the chosen one in column 0, then D rejected ones.

    T counts the tokens of the longest title, its end token included.

    Args:
        logps: [B, 1 + D] of whole titles under the policy; gradients flow.
        reference_logps: [B, 1 + D] under the reference policy.
        present: [B, 1 + D] bool; False where a row has fewer rejected titles. Column 0 is always present.
        token_logps: [B, 1 + D, T] under the policy; gradients flow; 0 at tokens that do not count.
        thresholds: [B, 1 + D, T] log-probability of the `threshold_rank`-th best token, a constant to the gradient;
            None where the rank is 0.
        choices: [B, 1 + D, T] bool, the tokens that count: with constrained probabilities those with several valid
            tokens, else all tokens of the title.
    """

    logps: torch.Tensor
    reference_logps: torch.Tensor
    present: torch.Tensor
    token_logps: torch.Tensor
    thresholds: torch.Tensor | None
    choices: torch.Tensor

    @property
    def log_ratios(self) -> torch.Tensor:
        """[B, 1 + D] log pi - log pi_ref of each title."""
        return self.logps - self.reference_logps


class PreferenceObjective(Objective):
    """A loss that prefers each row's target to rejected titles, as far as a reference policy allows.

    Attributes:
        Params: a PreferenceParams.
    """

    Params: ClassVar[type[Params]] = PreferenceParams
    tasks = frozenset({"next"})

    @property
    def threshold_rank(self) -> int:
        """Rank of the next-token probability handed over as `PreferenceBatch.thresholds`; 0: none."""
        return 0

    @abstractmethod
    def loss(self, batch: PreferenceBatch) -> tuple[torch.Tensor, dict[str, float]]:
        """Return the scalar loss and figures to log."""


class SamplingParams(Params):
    """How every rollout objective samples."""

    group_size: int = Field(16, ge=2, description="completions sampled per prompt, G")
    temperature: float = Field(0.8, gt=0, description="sampling temperature")
    repetition_penalty: float = Field(
        1.0,
        ge=1.0,
        description="as in transformers; the paper samples with 1.05, but a list here repeats no item anyway",
    )


class RolloutParams(SamplingParams):
    """Parameters of the policy-gradient objectives (GRPO, BLADE Eq. 2-3)."""

    clip_epsilon: float = Field(0.2, gt=0, lt=1, description="ratios are clipped to [1-eps, 1+eps]")
    kl_beta: float = Field(0.0, ge=0, description="weight of the KL to the reference policy (k3 estimator)")
    scale: Literal["std", "none"] = Field("std", description="divide advantages by the group's std (none: Dr.GRPO)")
    length_normalise: bool = Field(True, description="divide each completion's loss by its length (false: Dr.GRPO)")


@dataclass(frozen=True)
class Groups:
    """The rewards of P groups of G completions, with what a credit may look at.

    Args:
        rewards: [P, G] float64.
        reference_rewards: [P, M] float64, rewards of the reference lists, or None where none were asked for.
        items: [P, G, K] int64 item indices.
        scores: [P, G] log-probability of each completion under the policy that sampled it.
        ranked: True where the completions come from a beam search, best first, and are no samples.
    """

    rewards: torch.Tensor
    reference_rewards: torch.Tensor | None
    items: torch.Tensor
    scores: torch.Tensor
    ranked: bool = False


@dataclass(frozen=True)
class Credit:
    """What each completion is worth.

    Args:
        advantages: [P, G], or [P, G, K] for one value a title (spread over the title's tokens and its separator).
        metrics: figures to log.
    """

    advantages: torch.Tensor
    metrics: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class PolicyBatch:
    """Log-probabilities of N sampled completions, on exactly the distribution that was sampled from.

    Args:
        logps: [N, T] under the policy; gradients flow.
        old_logps: [N, T] under the policy that sampled.
        reference_logps: [N, T] under the reference policy; may be None where the objective does not read them.
        advantages: [N, T].
        mask: [N, T] bool, True on completion tokens (forced ones included).
        groups: [N] int64, which prompt each completion answers, ascending; all of a group's completions are there only
            where the objective sets `whole_groups`.
    """

    logps: torch.Tensor
    old_logps: torch.Tensor
    reference_logps: torch.Tensor | None
    advantages: torch.Tensor
    mask: torch.Tensor
    groups: torch.Tensor | None = None


class RolloutObjective(Objective):
    """Credit for sampled groups, and a policy loss.

    Attributes:
        Params: a SamplingParams, or RolloutParams with what policy gradients need besides.
        whole_groups: set it where the loss compares the completions of a group: no group is then cut to save memory.
    """

    Params: ClassVar[type[Params]] = RolloutParams
    whole_groups: ClassVar[bool] = False

    @property
    def reads_reference(self) -> bool:
        """Whether the loss needs `PolicyBatch.reference_logps`; by default where there is a `kl_beta` above 0."""
        return isinstance(self.params, RolloutParams) and self.params.kl_beta > 0

    @property
    def reference_lists(self) -> int:
        """M: how many lists to sample once per prompt from the reference policy (0: none)."""
        return 0

    @abstractmethod
    def credit(self, groups: Groups) -> Credit:
        """Turn rewards into advantages. Groups of all ranks are gathered before this is called."""

    @abstractmethod
    def loss(self, batch: PolicyBatch) -> tuple[torch.Tensor, dict[str, float]]:
        """Return the scalar loss and figures to log."""


# ---------------------------------------------------------------- decoders


@dataclass(frozen=True)
class Predictions:
    """Ranked lists for U rows.

    Args:
        items: [U, K] int64; INVALID where text names no item, and beyond a short list's end.
        scores: [U, K] float64, the decoder's score of each position (higher is better).
        lengths: [U] how many positions each list has.
    """

    items: np.ndarray
    scores: np.ndarray
    lengths: np.ndarray


class Decoder(Plugin, ABC):
    """Turns a model into ranked lists.

    Attributes:
        tasks: the tasks that it serves.
        progress: what the command wants to be told: called with the number of rows just finished.
    """

    tasks: ClassVar[frozenset[str]] = frozenset({"next", "list"})

    @property
    def oracle(self) -> bool:
        """Whether the decoder reads the targets; such results are labelled as oracles in every table."""
        return False

    @abstractmethod
    def decode(self, engine: Engine, rows: Sequence[Row], size: int) -> Predictions:
        """Recommend `size` items for each row.

        Args:
            engine: the model bound to the catalogue: `engine.sample`, `engine.greedy`, `engine.beam`.
            rows: one batch.
            size: K.
        """


# ---------------------------------------------------------------- sources


@dataclass(frozen=True)
class RawData:
    """Raw interactions, as polars lazy frames.

    Args:
        events: user_id (str), item_id (str), timestamp (float64), rating (float64, null where there is none).
        items: item_id (str), title (str), genres (list[str]), text (str); optionally suffix (str, such as a year),
            which tells apart items of the same title.
        windows: ready-made windows by split, where the source brings its own: user_id (str), item_ids (list[str],
            oldest first, the last `targets` are what is predicted), timestamp (float64). `events` is then None.
    """

    items: pl.LazyFrame
    events: pl.LazyFrame | None = None
    windows: dict[str, pl.LazyFrame] | None = None


class Source(Plugin, ABC):
    """Reads raw interactions.

    Attributes:
        needs_path: whether `prepare SOURCE PATH` must name a path.
        suggests: options of `prepare` that fit this source; what the user gives goes first.
    """

    needs_path: ClassVar[bool] = True
    suggests: ClassVar[dict[str, Any]] = {}

    def files(self, path: Path) -> list[Path]:
        """Files that `read` reads: their content decides whether a finished run still fits.

        Raises:
            UserError: the path or a file is missing.
        """
        return [path]

    @abstractmethod
    def read(self, path: Path | None, seed: int) -> RawData:
        """Read (or make) the raw data.

        Raises:
            UserError: missing files or columns, unparseable rows (file and row number named).
        """
