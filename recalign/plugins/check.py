"""What `recalign plugins check` looks at: that a plugin is documented, declared, and runs on a tiny made-up batch."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from recalign.api import (
    INVALID,
    Catalogue,
    ListBatch,
    Metric,
    Objective,
    Params,
    Plugin,
    PreferenceObjective,
    RolloutObjective,
    Row,
    TokenObjective,
)
from recalign.errors import UserError
from recalign.plugins.registry import PluginEntry, load

ITEMS, GROUPS, SAMPLES, REFERENCES, TOKENS, VOCABULARY = 8, 2, 4, 6, 5, 11


def check(entry: PluginEntry) -> list[str]:
    """Return what is wrong with one plugin, a line each; empty where nothing is.

    Args:
        entry: the plugin's entry point; its module is imported.
    """
    try:
        cls = load(entry)
    except UserError as error:
        return [error.what]
    problems = list(_declaration_problems(cls))
    try:
        plugin = cls(name=entry.name)
    except Exception as error:
        return [*problems, f"cannot be built from its defaults: {type(error).__name__}: {error}"]
    for base, run in _TRIALS.items():
        if isinstance(plugin, base):
            try:
                problems += run(plugin)
            except Exception as error:
                problems.append(f"fails on a tiny batch: {type(error).__name__}: {error}")
    return problems


def _declaration_problems(cls: type[Plugin]) -> Iterator[str]:
    if not inspect.getdoc(cls) or cls.__doc__ is None:
        yield f"the class {cls.__name__} has no docstring"
    if not inspect.getmodule(cls).__doc__:  # type: ignore[union-attr]
        yield f"the module {cls.__module__} has no docstring (its first line is the summary of `plugins list`)"
    if not (isinstance(cls.Params, type) and issubclass(cls.Params, Params)):
        yield f"{cls.__name__}.Params is no subclass of recalign.api.Params"
        return
    for name, declared in cls.Params.model_fields.items():
        if declared.is_required():
            yield f"the parameter {name} has no default"
        if not declared.description:
            yield f"the parameter {name} has no description"


def _catalogue() -> Catalogue:
    return Catalogue(
        item_ids=[str(item) for item in range(ITEMS)],
        titles=[f"Title {item}" for item in range(ITEMS)],
        genres=[("Drama",), ("Comedy",), ("Drama", "Comedy"), ()] * (ITEMS // 4),
        texts=[""] * ITEMS,
        popularity=np.arange(ITEMS)[::-1].astype(np.int64),
    )


def _lists() -> ListBatch:
    """Two groups: full lists, a repeated item, text that is no item, a short list, an empty one."""
    rows = [
        Row(0, "u0", np.array([0, 1]), np.array([2, 3]), np.array([1.0, 0.0]), 0.0),
        Row(1, "u1", np.array([4]), np.array([5, 6]), np.array([1.0, 3.0]), 1.0),
    ]
    items = [[2, 3, 4], [5, 5, 2], [INVALID, 2, 7], [6, INVALID, INVALID], [0, 6, 5], [INVALID] * 3]
    return ListBatch(
        items=np.array(items, dtype=np.int64),
        lengths=np.array([3, 3, 3, 1, 3, 0]),
        rows=[rows[0]] * 3 + [rows[1]] * 3,
        groups=np.array([0, 0, 0, 1, 1, 1]),
        logps=np.linspace(-6.0, -1.0, len(items)),
    )


def _beams() -> ListBatch:
    """The same rows' groups as the ranked titles of a beam search."""
    lists = _lists()
    items = np.array([[2], [4], [0], [7], [5], [6]], dtype=np.int64)
    ranks = np.array([0, 1, 2, 0, 1, 2])
    return replace(lists, items=items, lengths=np.ones(len(items), dtype=np.int64), ranks=ranks)


def _try_reward(reward: Metric) -> Iterator[str]:
    for make, cutoff in [(_lists, None), (_lists, 2), (_beams, None)]:
        if cutoff and not reward.takes_cutoff:
            continue
        lists, again = make(), make()
        try:
            reward.bind(_catalogue(), cutoff)
        except UserError:  # it wants something that no default can name, such as a file
            return
        values = np.asarray(reward.score(lists))
        where = f"score (@{cutoff})" if cutoff else "score"
        if values.shape != (len(lists),):
            yield f"{where} returns shape {values.shape} for {len(lists)} lists"
        elif not np.isfinite(values).all():
            yield f"{where} returns NaN or infinity for list {make().items[~np.isfinite(values)][0].tolist()}"
        elif not np.array_equal(values, np.asarray(reward.score(again))):
            yield f"{where} gives two values for the same list"
        if not np.array_equal(lists.items, make().items):
            yield f"{where} changes the lists that it is handed"


def _try_objective(objective: Objective) -> Iterator[str]:
    state = objective.state_dict()
    objective.load_state_dict(json.loads(json.dumps(state)))
    return iter(())


def _try_rollout(objective: RolloutObjective) -> Iterator[str]:
    import torch

    from recalign.api import Groups, PolicyBatch

    if objective.needs.rollouts == "beam" and objective.tasks != {"next"}:
        yield f"{type(objective).__name__}.tasks must be {{'next'}}: a beam search finds single titles"
    random = torch.Generator().manual_seed(0)
    rewards = torch.rand(GROUPS, SAMPLES, generator=random, dtype=torch.float64)
    rewards[1] = 0.0  # a group without variance
    length = 1 if objective.needs.rollouts == "beam" else 3
    groups = Groups(
        rewards=rewards,
        reference_rewards=torch.rand(GROUPS, REFERENCES, generator=random, dtype=torch.float64)
        if objective.needs.reference_lists
        else None,
        items=torch.randint(ITEMS, (GROUPS, SAMPLES, length), generator=random),
        scores=-torch.rand(GROUPS, SAMPLES, generator=random, dtype=torch.float64).sort(descending=True).values,
        ranked=objective.needs.rollouts == "beam",
    )
    advantages = objective.credit(groups).advantages
    if tuple(advantages.shape) not in {(GROUPS, SAMPLES), (GROUPS, SAMPLES, length)}:
        yield f"credit returns advantages of shape {tuple(advantages.shape)} for {GROUPS} groups of {SAMPLES}"
    elif not advantages.isfinite().all():
        yield "credit returns NaN or infinity (one of the two groups has equal rewards)"

    logps = (-torch.rand(GROUPS * SAMPLES, TOKENS, generator=random)).requires_grad_()
    batch = PolicyBatch(
        logps=logps,
        old_logps=logps.detach().clone(),
        reference_logps=logps.detach() - 0.1,
        advantages=torch.linspace(-1, 1, GROUPS * SAMPLES)[:, None].expand(-1, TOKENS),
        mask=torch.arange(TOKENS)[None] < torch.tensor([TOKENS, 2] * (GROUPS * SAMPLES // 2))[:, None],
        groups=torch.arange(GROUPS).repeat_interleave(SAMPLES),
    )

    def part(rows: slice) -> PolicyBatch:
        named = {name: None if value is None else value[rows] for name, value in vars(batch).items()}
        return PolicyBatch(**{**named, "groups": named["groups"] - named["groups"][0]})

    cut = SAMPLES if objective.needs.whole_groups else SAMPLES - 1
    yield from _loss_problems(objective, batch, [part(slice(cut)), part(slice(cut, None))], logps)


def _try_tokens(objective: TokenObjective) -> Iterator[str]:
    import torch

    from recalign.api import AnswerBatch, ValidTokens

    random = torch.Generator().manual_seed(0)
    logits = torch.randn(TOKENS, VOCABULARY, generator=random).requires_grad_()
    labels, rows = torch.tensor([1, 3, 5, 4, 0]), torch.tensor([0, 0, 0, 1, 1])
    bare = torch.randn(TOKENS, VOCABULARY, generator=random)
    thresholds = torch.tensor([-1.0, -2.0, -torch.inf, -1.5, -torch.inf])

    def part(tokens: slice, valid_tokens: ValidTokens) -> AnswerBatch:
        return AnswerBatch(
            logits=logits[tokens],
            labels=labels[tokens],
            rows=rows[tokens] - rows[tokens][0],
            valid_tokens=valid_tokens if objective.needs.valid_tokens or objective.needs.beam_width else None,
            logits_without_history=bare[tokens] if objective.needs.without_history else None,
            beam_thresholds=thresholds[tokens] if objective.needs.beam_width else None,
        )

    first, second = torch.tensor([1, 2]), torch.tensor([0, 4, 7])  # valid tokens at the beginnings of both answers
    whole = ValidTokens(torch.tensor([0, 3]), torch.tensor([0, 2, 5]), torch.cat([first, second]))
    alone = [ValidTokens(torch.tensor([0]), torch.tensor([0, len(each)]), each) for each in (first, second)]
    parts = [part(slice(3), alone[0]), part(slice(3, None), alone[1])]
    yield from _loss_problems(objective, part(slice(None), whole), parts, logits)


def _try_preferences(objective: PreferenceObjective) -> Iterator[str]:
    import torch

    from recalign.api import PreferenceBatch

    random = torch.Generator().manual_seed(0)
    shape = (GROUPS + 1, 1 + SAMPLES, TOKENS)
    choices = torch.rand(shape, generator=random) > 0.3
    token_logps = -torch.rand(shape, generator=random).masked_fill(~choices, 0.0)
    token_logps.requires_grad_()
    present = torch.ones(shape[:2], dtype=torch.bool)
    present[1, 2:] = present[2, 1:] = False  # a row with fewer rejected titles, and one without any
    batch = PreferenceBatch(
        logps=token_logps.sum(dim=2),
        reference_logps=token_logps.detach().sum(dim=2) + 0.1 * torch.randn(shape[:2], generator=random),
        present=present,
        token_logps=token_logps,
        thresholds=-torch.rand(shape, generator=random) if objective.needs.threshold_rank else None,
        choices=choices,
    )

    def part(rows: slice) -> PreferenceBatch:
        return PreferenceBatch(**{name: None if value is None else value[rows] for name, value in vars(batch).items()})

    yield from _loss_problems(objective, batch, [part(slice(1)), part(slice(1, None))], token_logps)


def _loss_problems(objective: Any, batch: Any, parts: list[Any], inputs: Any) -> Iterator[str]:
    state = objective.state_dict()
    _survey(objective, [batch])
    loss, metrics = objective.loss(batch)
    if loss.shape != ():
        yield f"loss returns shape {tuple(loss.shape)}; it must be a scalar"
        return
    loss.backward(retain_graph=True)
    if not loss.isfinite():
        yield "loss is NaN or infinite"
    elif inputs.grad is None or not inputs.grad.isfinite().all():
        yield "loss has no gradient with respect to the policy, or one that is not finite"
    else:
        objective.load_state_dict(state)
        yield from _cut_problems(objective, parts, inputs)
    if not all(np.isfinite(value) for value in metrics.values()):
        yield "loss returns a figure to log that is NaN or infinite"


def _cut_problems(objective: Any, parts: list[Any], inputs: Any) -> Iterator[str]:
    """Look whether the gradient of a batch, in `inputs`, is the mean of those of its parts, by their weights."""
    import torch

    _survey(objective, parts)
    weights = [float(objective.weight(part)) for part in parts]
    if not all(np.isfinite(weight) and weight >= 0 for weight in weights):
        yield f"weight returns {weights}; it must be a finite number from 0 on"
        return
    expected = inputs.grad.clone()
    inputs.grad = None
    for part, weight in zip(parts, weights, strict=True):
        (objective.loss(part)[0] * weight / (sum(weights) or 1.0)).backward(retain_graph=True)
    if not torch.allclose(inputs.grad, expected, rtol=1e-3, atol=1e-5):
        yield (
            "the loss of a batch is not the mean of its parts' losses by their weights: weight must return what loss "
            "divides by"
        )


def _survey(objective: Any, batches: list[Any]) -> None:
    import torch

    if isinstance(objective, TokenObjective) and objective.needs.survey:
        with torch.no_grad():
            objective.survey(batches)


_TRIALS: dict[type[Plugin], Callable[[Any], Iterator[str]]] = {
    Metric: _try_reward,
    Objective: _try_objective,
    RolloutObjective: _try_rollout,
    TokenObjective: _try_tokens,
    PreferenceObjective: _try_preferences,
}
