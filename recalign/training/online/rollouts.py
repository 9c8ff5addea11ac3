"""One step's rollouts: groups of completions, their rewards, the credit that an objective gives, spread over tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import distributed
from torch.nn.utils.rnn import pad_sequence

from recalign.api import Completions, Credit, Groups, ListBatch, Row, UserError
from recalign.plugins.registry import blamed, plugin_error
from recalign.training.availability import fewest_available
from recalign.training.logprobs.completions import Sampled

if TYPE_CHECKING:
    from recalign.api import RolloutObjective
    from recalign.data.dataset import Rows
    from recalign.decoding.engine import PolicyEngine
    from recalign.metrics.expression import MetricExpression
    from recalign.text.item_tokens import TitleTokens


@dataclass(frozen=True)
class Rollout:
    """P prompts with G lists each, on one process.

    Args:
        rows: [P] what was asked.
        completions: N = P * G, group by group.
        sampled: the completions as `completion_logps` reads them.
        groups: rewards and references of these P groups.
        advantages: [N, T] float32.
        all_groups: the same of every process, as the objective saw them.
        credit: of every process's groups.
    """

    rows: Sequence[Row]
    completions: Completions
    sampled: Sampled
    groups: Groups
    advantages: torch.Tensor
    all_groups: Groups
    credit: Credit

    def gap(self, logps: torch.Tensor) -> float:
        """Largest difference of log-probabilities [N, T] to those of generation: of a token; of a title for beams."""
        if self.groups.ranked:
            return float((logps.sum(dim=1) - self.groups.scores.flatten()).abs().max())
        return float((logps - self.completions.logps).abs().max())


def score_groups(
    expression: MetricExpression,
    items: np.ndarray,
    rows: Sequence[Row],
    *,
    scores: np.ndarray | None = None,
    ranked: bool = False,
    lengths: np.ndarray | None = None,
) -> np.ndarray:
    """Score G lists of each of P rows at once.

    Args:
        expression: bound to the catalogue.
        items: [P, G, K] item indices.
        rows: [P].
        scores: [P, G] log-probabilities of the lists, where they are known.
        ranked: the lists of a group are the titles of a beam search, best first.
        lengths: [P] positions of each row's lists; None: K.

    Returns:
        float64 [P, G].

    Raises:
        UserError: a reward that raises, or returns another shape or a value that is not finite.
    """
    prompts, group_size, length = items.shape
    groups = np.repeat(np.arange(prompts), group_size)
    lists = ListBatch(
        items=items.reshape(-1, length).astype(np.int64, copy=False),
        lengths=np.full(len(groups), length) if lengths is None else lengths[groups],
        rows=[rows[group] for group in groups],
        groups=groups,
        logps=None if scores is None else scores.ravel().astype(np.float64),
        ranks=np.tile(np.arange(group_size), prompts) if ranked else None,
    )
    return expression.score(lists).reshape(prompts, group_size)


def check_groups(engine: PolicyEngine, objective: RolloutObjective, rows: Rows, indices: np.ndarray) -> None:
    """Look whether a beam search finds a whole group for every row that will be asked.

    Raises:
        UserError: a row has fewer items left than a beam is wide.
    """
    needs, everything = objective.needs, np.ones(len(engine.catalogue), dtype=bool)
    width = needs.group_size
    found = fewest_available(rows, width, everything, engine.excluded, indices) if needs.ranked else None
    if found is not None:
        row, left = found
        raise UserError(
            f"A group of {width} titles is asked for, and only {left} items may be recommended to user "
            f"'{row.user_id}'.",
            f"Pass -p group_size={left} or less."
            if left > 1
            else "Leave such users out, or do not exclude the history.",
        )


def make_rollout(
    engine: PolicyEngine,
    rows: Sequence[Row],
    objective: RolloutObjective,
    expression: MetricExpression,
    references: np.ndarray | None,
    *,
    list_length: int,
    seed: int,
    step: int,
) -> Rollout:
    """Generate, score and credit one step's groups.

    Args:
        engine: the current policy.
        rows: [P] this process's prompts.
        objective: gives the credit; it says whether groups are sampled or searched, its parameters say how.
        expression: the reward, bound to the catalogue.
        references: [P, M, K] reference lists, or None.
        list_length: K.
        seed: of the sampling.
        step: another step samples anew.

    Raises:
        UserError: the reward or the objective misbehaves (the plugin and its package are named).
    """
    ranked = objective.needs.ranked
    make = _searched if ranked else _sampled
    completions, sampled, scores = make(engine, rows, objective, list_length=list_length, seed=seed, step=step)
    items = completions.items.view(len(rows), -1, list_length)
    reference_rewards = None
    if references is not None:
        reference_rewards = torch.from_numpy(score_groups(expression, references, rows))
    rewards = score_groups(expression, items.numpy(), rows, scores=scores.numpy(), ranked=ranked)
    groups = Groups(torch.from_numpy(rewards), reference_rewards, items, scores, ranked)
    all_groups, mine = gather_groups(groups)
    credit = checked_credit(objective, all_groups)
    advantages = token_advantages(credit.advantages[mine], completions, engine.policy.titles).float()
    return Rollout(rows, completions, sampled, groups, advantages, all_groups, credit)


def _sampled(
    engine: PolicyEngine, rows: Sequence[Row], objective: RolloutObjective, *, list_length: int, seed: int, step: int
) -> tuple[Completions, Sampled, torch.Tensor]:
    """Sample G lists a row: completions, the same for `completion_logps`, and scores [P, G]."""
    needs = objective.needs
    completions = engine.sample(
        rows,
        group_size=needs.group_size,
        list_length=list_length,
        temperature=needs.temperature,
        repetition_penalty=needs.repetition_penalty,
        seed=seed,
        epoch=step,
    )
    sampled = as_sampled(engine, rows, completions, needs.temperature, needs.repetition_penalty)
    return completions, sampled, completions.logps.sum(dim=1).view(len(rows), -1)


def _searched(
    engine: PolicyEngine, rows: Sequence[Row], objective: RolloutObjective, **_: int
) -> tuple[Completions, Sampled, torch.Tensor]:
    """Search the best G titles of each row, as `_sampled`; the log-probabilities of their tokens are left at 0."""
    width = objective.needs.group_size
    items, scores = engine.beam(rows, width=width, size=width)
    titles = engine.policy.titles
    responses = [torch.from_numpy(titles.response([item])) for item in items.flatten().tolist()]
    lengths = torch.tensor([len(response) for response in responses])
    tokens = pad_sequence(responses, batch_first=True, padding_value=titles.end)
    mask = torch.arange(tokens.shape[1]) < lengths[:, None]
    completions = Completions(tokens, lengths, items.view(-1, 1), torch.zeros(tokens.shape), mask)
    return completions, as_sampled(engine, rows, completions, 1.0, 1.0), scores


def gather_groups(groups: Groups) -> tuple[Groups, slice]:
    """Bring the groups of all processes together, in the order of their ranks.

    Returns:
        All groups, and where this process's are among them.
    """
    if not (distributed.is_available() and distributed.is_initialized()):
        return groups, slice(0, len(groups.rewards))
    mine = (groups.rewards, groups.reference_rewards, groups.items, groups.scores)
    parts: list[tuple[torch.Tensor | None, ...]] = [()] * distributed.get_world_size()
    distributed.all_gather_object(parts, mine)
    joined = (None if column[0] is None else torch.cat(column) for column in zip(*parts, strict=True))
    start = sum(len(part[0]) for part in parts[: distributed.get_rank()])
    return Groups(*joined, ranked=groups.ranked), slice(start, start + len(groups.rewards))


def checked_credit(objective: RolloutObjective, groups: Groups) -> Credit:
    """Ask the objective for its credit; whatever it does wrong names the plugin and its package.

    Raises:
        UserError: it raises, or its advantages have another shape or are not finite.
    """
    with blamed("objective", objective, "credit"):
        credit = objective.credit(groups)
    prompts, group_size, length = groups.items.shape
    if tuple(credit.advantages.shape) not in {(prompts, group_size), (prompts, group_size, length)}:
        raise plugin_error(
            "objective",
            objective,
            f"returned advantages of shape {list(credit.advantages.shape)} in credit, for {prompts} groups of "
            f"{group_size} lists",
        )
    if not torch.isfinite(credit.advantages).all():
        raise plugin_error("objective", objective, "returned advantages in credit that are not finite")
    return credit


def token_advantages(advantages: torch.Tensor, completions: Completions, titles: TitleTokens) -> torch.Tensor:
    """Spread credit over tokens.

    Args:
        advantages: [P, G], the same for every token of a completion; or [P, G, K], one value a title: its tokens and
            the separator (or end token) after it.
        completions: N = P * G lists of K catalogue items.
        titles: how many tokens each title has.

    Returns:
        [N, T]; 0 on padding.
    """
    tokens = completions.tokens.shape[1]
    if advantages.dim() == 2:
        return advantages.reshape(-1, 1) * completions.mask.to(advantages.dtype)
    sizes = torch.tensor([len(path) for path in titles.paths])[completions.items] + len(titles.separator)  # [N, K]
    ends = sizes.cumsum(dim=1)
    title = torch.searchsorted(ends, torch.arange(tokens).expand(len(ends), -1).contiguous(), right=True)  # [N, T]
    title = title.clamp(max=ends.shape[1] - 1)
    return advantages.reshape(len(ends), -1).gather(1, title) * completions.mask.to(advantages.dtype)


def as_sampled(
    engine: PolicyEngine, rows: Sequence[Row], completions: Completions, temperature: float, repetition_penalty: float
) -> Sampled:
    """Replay the constraint over completions, so that their log-probabilities can be computed again."""
    group_size = len(completions.tokens) // len(rows)
    excluded = [items for items in engine.excluded_by(rows) for _ in range(group_size)]
    list_length = completions.items.shape[1]
    decisions = engine.replay(completions.tokens, completions.lengths, excluded, list_length=list_length)
    return Sampled(
        prompts=[engine.policy.prompter.encode(row) for row in rows],
        tokens=completions.tokens.numpy(),
        lengths=completions.lengths.numpy(),
        groups=np.repeat(np.arange(len(rows)), group_size),
        decisions=decisions,
        temperature=temperature,
        repetition_penalty=repetition_penalty,
    )
