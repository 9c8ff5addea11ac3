"""Beam-exact: the worked example of docs/methods/beam-exact.md, its gradient's closed form, equality with BEAR."""

import math

import pytest
import torch

from recalign.api import AnswerBatch, UserError
from recalign.objectives.beam_exact import BeamExact
from recalign.objectives.bear import Bear, BearParams, PruningParams
from recalign.params import build_params
from tests.objectives.test_bear import ragged

NO_STEP = -math.inf


def batch(logits, labels, rows, allowed, thresholds):
    return AnswerBatch(
        logits, torch.tensor(labels), torch.tensor(rows), ragged(allowed), beam_thresholds=torch.tensor(thresholds)
    )


def worked_example():
    """A trie of two levels, B = 2: tokens 0, 1, 2, then 3 or 4, then the end token 5. The target is 0, 4."""
    first = {0: 0.40, 1: 0.35, 2: 0.25}
    second = {3: 0.6, 4: 0.4}  # after 0; after 1 it is 0.9 and 0.1
    logits = torch.full((3, 6), -3.0, dtype=torch.float64)
    for position, probabilities in enumerate((first, second)):
        for token, probability in probabilities.items():
            logits[position, token] = math.log(probability) + 7 * position  # a constant changes nothing
    thresholds = [math.log(0.35), math.log(0.24), NO_STEP]  # the search keeps 0 and 1; then (1, 3) and (0, 3)
    return batch(logits.requires_grad_(), [0, 4, 5], [0, 0, 0], [[0, 1, 2], [3, 4], [5]], thresholds)


def test_worked_example():
    answers = worked_example()
    value, metrics = BeamExact(PruningParams(beam=2, normalise="tokens")).loss(answers)
    entropy = -math.log(0.40) - math.log(0.4)
    pruning = math.log(0.35 / (0.35 + 0.40)) + math.log(0.24 / (0.24 + 0.16))
    assert float(value) == pytest.approx((entropy + pruning) / 3)
    assert value.item() == pytest.approx(0.1865, abs=5e-5)
    weights = [1 + 0.40 / 0.75 + 0.16 / 0.40, 1 + 0.16 / 0.40]
    assert metrics["mean_weight"] == pytest.approx(sum(weights) / 2)
    assert metrics["pruned_share"] == 0.5 and metrics["pruned_targets"] == 1.0


def test_bear_sees_nothing_pruned_in_the_worked_example():
    _, metrics = Bear(BearParams(beam=2)).loss(worked_example())
    assert metrics["pruned_share"] == 0.0


def test_default_normalisation_divides_the_weights_by_their_sum():
    value, _ = BeamExact(PruningParams(beam=2, weight=2.0, temperature=0.5)).loss(worked_example())
    later = 1 / (1 + (0.24 / 0.16) ** 2)  # sigmoid of log(0.16 / 0.24) / 0.5
    first = 1 / (1 + (0.35 / 0.40) ** 2)
    weights = [1 + 4 * (first + later), 1 + 4 * later]
    expected = (-weights[0] * math.log(0.40) - weights[1] * math.log(0.4)) / sum(weights)
    assert float(value) == pytest.approx(expected)


def random_batch(steps="all"):
    generator = torch.Generator().manual_seed(1)
    rows = [0, 0, 0, 0, 1, 1, 2, 2, 2]
    sizes = [5, 1, 3, 2, 7, 1, 4, 4, 1]
    allowed = [torch.randperm(12, generator=generator)[:size].tolist() for size in sizes]
    logits = torch.randn(9, 12, generator=generator, dtype=torch.float64).requires_grad_()
    thresholds = -4 * torch.rand(9, generator=generator, dtype=torch.float64)
    thresholds[[5, 8]] = NO_STEP
    return batch(logits, [tokens[0] for tokens in allowed], rows, allowed, thresholds.tolist()), thresholds


@pytest.mark.parametrize("normalise", ["tokens", "weights"])
@pytest.mark.parametrize(("weight", "xi"), [(0.1, 3.0), (1.0, 1.0), (5.0, 0.25)])
def test_gradient_is_the_weighted_cross_entropy_of_the_closed_form(normalise, weight, xi):
    answers, thresholds = random_batch()
    params = PruningParams(weight=weight, temperature=xi, normalise=normalise)
    value, _ = BeamExact(params).loss(answers)
    (gradient,) = torch.autograd.grad(value, answers.logits)

    mask = torch.nn.functional.one_hot(answers.labels, 12).bool()
    for place, position in enumerate(answers.valid_tokens.positions):
        mask[
            position,
            answers.valid_tokens.tokens[answers.valid_tokens.starts[place] : answers.valid_tokens.starts[place + 1]],
        ] = True
    logps = answers.logits.masked_fill(~mask, -torch.inf).log_softmax(-1).gather(1, answers.labels[:, None])[:, 0]
    weights = torch.ones(9, dtype=torch.float64)
    for token in range(9):  # the second position of row 0 is forced for the target and a step for the beam
        for later in range(token, 9):
            if answers.rows[later] == answers.rows[token] and thresholds[later] > NO_STEP:
                prefix = sum(float(logps[i]) for i in range(later + 1) if answers.rows[i] == answers.rows[later])
                weights[token] += weight / xi / (1 + math.exp(-(prefix - float(thresholds[later])) / xi))
    choice = mask.sum(1) > 1
    scale = float(weights[choice].sum()) if normalise == "weights" else 9
    (oracle,) = torch.autograd.grad(-(weights * logps)[choice].sum() / scale, answers.logits)
    torch.testing.assert_close(gradient, oracle)


@pytest.mark.parametrize("normalise", ["tokens", "weights"])
def test_with_one_decision_it_is_bear(normalise):
    logits = torch.randn(6, 9, generator=torch.Generator().manual_seed(2), dtype=torch.float64).requires_grad_()
    allowed = [[0, 1, 2, 3, 4], [7], [8], [0, 1, 2, 3, 4], [6], [8]]
    logps = logits.detach()[:, :5].log_softmax(-1)
    third = logps.sort(dim=1, descending=True).values[:, 2].tolist()
    thresholds = [third[0], NO_STEP, NO_STEP, third[3], NO_STEP, NO_STEP]
    answers = batch(logits, [2, 7, 8, 4, 6, 8], [0, 0, 0, 1, 1, 1], allowed, thresholds)
    shared = {"beam": 3, "weight": 2.0, "temperature": 0.5, "normalise": normalise}
    mine, _ = BeamExact(PruningParams(**shared)).loss(answers)
    (gradient,) = torch.autograd.grad(mine, logits)
    bear, _ = Bear(BearParams(**shared)).loss(answers)
    (expected,) = torch.autograd.grad(bear, logits)
    torch.testing.assert_close(mine, bear)
    torch.testing.assert_close(gradient, expected)


def test_all_forced_gives_zero_loss_and_a_zero_gradient():
    logits = torch.randn(2, 5, requires_grad=True)
    value, metrics = BeamExact().loss(batch(logits, [1, 2], [0, 0], [[1], [2]], [NO_STEP, NO_STEP]))
    value.backward()
    assert value.item() == 0.0 and metrics["pruned_targets"] == 0.0
    assert torch.equal(logits.grad, torch.zeros_like(logits))


@pytest.mark.parametrize(
    ("name", "value"), [("weight", 0.05), ("weight", 5.1), ("temperature", 0.2), ("temperature", 3.1), ("beam", 0)]
)
def test_parameters_out_of_bounds_are_refused(name, value):
    with pytest.raises(UserError, match=name):
        build_params(PruningParams, {name: value}, "objective 'beam-exact'")
