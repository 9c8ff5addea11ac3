"""A training update on K rationales a row: passes that share the user's prompt against plain padded ones."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch

from recalign.api import PolicyBatch, RankBatch, Row
from recalign.decoding.engine import PolicyEngine
from recalign.metrics.expression import parse_expression
from recalign.models.policy import reference_policy
from recalign.plugins import registry
from recalign.training.accumulation import Accumulation
from recalign.training.online.prompt_order import PromptOrder
from recalign.training.online.rank_rollouts import RankRollout, make_rankings
from recalign.training.online.rank_step import RankStep
from setting import Setting
from timing import Pairs, alternate

NEVER = 10**9


def ranking_rows(setting: Setting, count: int, candidates: int, history: int, seed: int = 0) -> list[Row]:
    """Rows of so many items of history and candidates, of which one is a target."""
    generator, rows = np.random.default_rng(seed), []
    for index in range(count):
        drawn = generator.choice(len(setting.catalogue), history + candidates, replace=False)
        target = drawn[history : history + 1]
        shown = generator.permutation(drawn[history:])
        rows.append(Row(index, str(index), drawn[:history], target, np.ones(1), 0.0, candidates=shown))
    return rows


def step_against_padded(setting: Setting, rows: list[Row], *, length: int, repeats: int, seconds: float) -> Pairs:
    """Time an update's passes on the same rationales and the same loss; loss and gradient are compared before.

    Args:
        setting: of the rank task.
        rows: of an update, with K candidates each.
        length: tokens of free text of each rationale.
        repeats: pairs.
        seconds: begin no further pair after this time.

    Raises:
        AssertionError: the two losses or gradients differ by more than float32 explains.
    """
    policy = replace(setting.policy, model=copy.deepcopy(setting.policy.model))
    engine = PolicyEngine(policy, setting.catalogue, exclude_history=False)
    objective = registry.create("objective", "r2rank", {"max_tokens": length})
    objective.modules = policy.attach(objective.module_makers)
    with torch.no_grad():  # a new head scores everything alike, and passes no gradient on
        for parameter in objective.modules["ranking_head"].parameters():
            noise = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0))
            parameter.add_(noise.to(parameter.device), alpha=0.05)
    expression = parse_expression("ndcg@10" if len(rows[0].candidates) >= 10 else "ndcg").bind(setting.catalogue)
    order = PromptOrder(np.arange(len(rows)), len(rows), seed=0)
    step = RankStep(
        engine, objective, expression, rows, order, reference_policy(policy), updates_per_rollout=NEVER, kl_every=NEVER
    )
    step.rollout = make_rankings(engine, rows, objective, expression, seed=0, step=0)

    def ours() -> float:
        update = Accumulation(policy.model)
        step.accumulate(policy.model, [1], update)
        return float(update.finish())

    peer = padded_update(engine, objective, step.rollout)
    results = [(work(), _gradient(policy.model)) for work in (ours, peer)]
    (loss, gradient), (peer_loss, peer_gradient) = results
    difference = float((gradient - peer_gradient).abs().max() / peer_gradient.abs().max())
    if abs(loss - peer_loss) > 1e-4 * max(1.0, abs(peer_loss)) or difference > 1e-4:
        raise AssertionError(f"losses {loss:.7f}, {peer_loss:.7f}; gradients differ by {difference:.2g}")
    return alternate(*(_forgetting(policy.model, work) for work in (ours, peer)), repeats, seconds)


def padded_update(engine: PolicyEngine, objective: object, rollout: RankRollout) -> Callable[[], float]:
    """Return the same update as one writes it plainly: a padded row for each rationale, set by set.

    The model's head is run over the rationales only.
    """
    policy, sets, answers = engine.policy, rollout.sets, rollout.answers
    form, model = objective.needs.answering.form, policy.model
    choice = torch.tensor(policy.prompter.questions.decision(form).choice)
    device = model.device
    prompts = []
    for row in sets.rows:
        shared, questions = policy.prompter.questions.encode(row, np.sort(row.candidates), form)
        prompts += [np.concatenate([shared, question]) for question in questions]

    def update() -> float:
        total = 0.0
        for number in range(len(sets)):
            mine = torch.nonzero(sets.set_of == number)[:, 0]  # one set a row: prompts are in the order of answers
            logps, states = _padded_pass(model, [prompts[each] for each in mine], mine, answers, choice)
            scores = objective.scores(states)[None]
            written = (torch.arange(logps.shape[1]) < answers.lengths[mine, None]).to(device)
            credit = rollout.token_advantages[mine].to(device)
            responses = PolicyBatch(logps, logps.detach(), None, credit, written)
            orders, advantages, gains, present = (
                values[[number]].to(device) for values in (rollout.orders, rollout.advantages, sets.gains, sets.present)
            )
            batch = RankBatch(scores, orders, scores.detach(), advantages, gains, present, responses)
            loss, _ = objective.loss(batch)
            (loss / len(sets)).backward()
            total += float(loss) / len(sets)
        return total

    return update


def _padded_pass(model, prompts, mine, answers, choice):  # type: ignore[no-untyped-def]
    """Log-probabilities [K, T] of chosen tokens and states [K, H] at the decisions, states detached."""
    sequences = [
        torch.from_numpy(np.concatenate([prompt, answers.tokens[row, : answers.lengths[row]].numpy()]))
        for prompt, row in zip(prompts, mine.tolist(), strict=True)
    ]
    device = model.device
    ids = torch.nn.utils.rnn.pad_sequence(sequences, batch_first=True).to(device)
    inside = torch.nn.utils.rnn.pad_sequence([torch.ones(len(each), dtype=torch.bool) for each in sequences], True)
    inside = inside.to(device)
    hidden = model.get_decoder()(input_ids=ids, attention_mask=inside.long(), use_cache=False).last_hidden_state
    begins = torch.tensor(list(map(len, prompts)), device=device)
    lines, places = torch.arange(len(mine), device=device), torch.arange(answers.tokens.shape[1], device=device)
    before = (begins[:, None] - 1 + places).clamp(max=ids.shape[1] - 1)
    logits = model.get_output_embeddings()(hidden[lines[:, None], before]).float()  # [K, T, V]
    tokens, chosen, opened, decided = (
        values[mine].to(device) for values in (answers.tokens, answers.chosen, answers.opened, answers.decided)
    )
    free = logits.log_softmax(dim=-1).gather(-1, tokens[..., None])[..., 0]
    second = (tokens == choice[1]).long()
    two = logits[..., choice].log_softmax(dim=-1).gather(-1, second[..., None])[..., 0]
    deciding = places == opened[:, None] + 1
    logps = torch.where(deciding, two, free) * chosen
    return logps, hidden[lines, begins + decided].detach()


def _forgetting(model: torch.nn.Module, work: Callable[[], float]) -> Callable[[], float]:
    def run() -> float:
        result = work()
        model.zero_grad(set_to_none=True)
        return result

    return run


def _gradient(model: torch.nn.Module) -> torch.Tensor:
    flat = torch.cat([parameter.grad.flatten() for parameter in model.parameters() if parameter.grad is not None])
    model.zero_grad(set_to_none=True)
    return flat
