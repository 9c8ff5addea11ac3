"""BEAR: hand-computed values, its gradient in closed form, stop-gradient, few valid tokens, forced tokens, bounds."""

import math

import pytest
import torch

from recalign.api import AnswerBatch, UserError, ValidTokens
from recalign.objectives.bear import Bear, BearParams
from recalign.objectives.msl import Msl
from recalign.params import build_params


def ragged(lists):
    choices = [(position, tokens) for position, tokens in enumerate(lists) if len(tokens) > 1]
    starts = torch.tensor([0, *[len(tokens) for _, tokens in choices]]).cumsum(0)
    flat = torch.tensor([token for _, tokens in choices for token in tokens], dtype=torch.int64)
    return ValidTokens(torch.tensor([position for position, _ in choices], dtype=torch.int64), starts, flat)


def valid_mask(answers):
    mask = torch.nn.functional.one_hot(answers.labels, answers.logits.shape[-1]).bool()
    bounds = zip(
        answers.valid_tokens.positions, answers.valid_tokens.starts, answers.valid_tokens.starts[1:], strict=False
    )
    for position, start, end in bounds:
        mask[position, answers.valid_tokens.tokens[start:end]] = True
    return mask


def batch(logits, labels, allowed):
    return AnswerBatch(logits, torch.tensor(labels), torch.zeros(len(labels), dtype=torch.int64), ragged(allowed))


def random_batch(positions=16, vocabulary=40, seed=0):
    generator = torch.Generator().manual_seed(seed)
    sizes = torch.randint(1, 25, (positions,), generator=generator).tolist()
    allowed = [torch.randperm(vocabulary, generator=generator)[:size].tolist() for size in sizes]
    logits = (2 * torch.randn(positions, vocabulary, generator=generator)).double().requires_grad_()
    return batch(logits, [tokens[0] for tokens in allowed], allowed)


def dense_logps(answers, constrained):
    mask = valid_mask(answers) | (not constrained)
    return answers.logits.masked_fill(~mask, -torch.inf).log_softmax(-1)


def log_p_and_beta(answers, beam, constrained):
    """Per token: log p, log beta and whether there is a choice, from dense softmaxes."""
    logps = dense_logps(answers, constrained)
    sizes = logps.isfinite().sum(-1)
    ranked = logps.sort(-1, descending=True).values
    threshold = ranked.gather(-1, (sizes.clamp(max=beam) - 1)[:, None]).squeeze(-1)
    return logps.gather(-1, answers.labels[:, None]).squeeze(-1), threshold, sizes > 1


def closed_form(answers, beam, weight, xi, constrained):
    """Per token: cross-entropy, the constant weight 1 + (lambda/xi) sigmoid((log p - log beta)/xi), and the choices."""
    chosen, threshold, choice = log_p_and_beta(answers, beam, constrained)
    weights = 1 + weight / xi * torch.sigmoid((chosen.detach() - threshold.detach()) / xi)
    return -chosen, weights, choice


def test_hand_computed_value_on_one_choice():
    logits = torch.tensor([[4.0, 2.0, 1.0, 9.0]])  # token 3 is not valid; with B = 2 the threshold is token 1
    objective = Bear(BearParams(beam=2, weight=0.5, temperature=2.0, normalise="tokens"))
    value, metrics = objective.loss(batch(logits, [0], [[0, 1, 2]]))
    entropy = math.log(math.exp(4) + math.exp(2) + math.exp(1)) - 4
    pruning = math.log(1 / (1 + math.exp((4 - 2) / 2)))
    assert float(value) == pytest.approx(entropy + 0.5 * pruning, rel=1e-5)
    assert metrics["mean_weight"] == pytest.approx(1 + 0.25 / (1 + math.exp(-1.0)))
    assert metrics["pruned_share"] == 0.0


def test_hand_computed_value_of_the_full_vocabulary_form():
    logits = torch.tensor(
        [[4.0, 2.0, 1.0, 9.0]]
    )  # now token 3 competes, and the threshold of B = 2 is the target itself
    objective = Bear(BearParams(beam=2, weight=0.5, temperature=2.0, normalise="tokens", constrained=False))
    value, _ = objective.loss(batch(logits, [0], [[0, 1, 2]]))
    entropy = math.log(math.exp(4) + math.exp(2) + math.exp(1) + math.exp(9)) - 4
    assert float(value) == pytest.approx(entropy + 0.5 * math.log(0.5), rel=1e-5)


@pytest.mark.parametrize("constrained", [True, False])
@pytest.mark.parametrize(("beam", "weight", "xi"), [(1, 0.1, 0.25), (3, 1.0, 1.0), (10, 5.0, 3.0), (100, 2.0, 0.5)])
def test_gradient_is_the_weighted_cross_entropy_of_the_closed_form(constrained, beam, weight, xi):
    answers = random_batch()
    params = BearParams(beam=beam, weight=weight, temperature=xi, constrained=constrained, normalise="tokens")
    value, _ = Bear(params).loss(answers)
    (gradient,) = torch.autograd.grad(value, answers.logits)
    losses, weights, choice = closed_form(answers, beam, weight, xi, constrained)
    used = choice if constrained else torch.ones_like(choice)
    (oracle,) = torch.autograd.grad((weights * losses)[used].sum() / len(losses), answers.logits)
    torch.testing.assert_close(gradient, oracle)


@pytest.mark.parametrize("constrained", [True, False])
def test_default_normalisation_divides_the_weights_by_their_sum_over_the_choices(constrained):
    answers = random_batch(seed=1)
    value, _ = Bear(BearParams(weight=2.0, temperature=0.5, constrained=constrained)).loss(answers)
    losses, weights, choice = closed_form(answers, 10, 2.0, 0.5, constrained)
    used = choice if constrained else torch.ones_like(choice)
    expected = (weights * losses)[used].sum() / weights[used].sum()
    torch.testing.assert_close(value, expected)
    (gradient,) = torch.autograd.grad(value, answers.logits)
    (oracle,) = torch.autograd.grad(expected, answers.logits)
    torch.testing.assert_close(gradient, oracle)


def test_no_gradient_flows_through_the_threshold():
    logits = torch.tensor([[1.0, 0.0, -1.0]], requires_grad=True)
    params = BearParams(beam=2, weight=5.0, normalise="tokens")
    value, _ = Bear(params).loss(batch(logits, [0], [[0, 1, 2]]))
    value.backward()
    share = logits.detach().softmax(-1)[0]
    weight = 1 + 5 / (1 + math.exp(-1.0))  # the margin is z_0 - z_1 = 1
    # log p reaches every logit through the softmax; a gradient through log beta would add to token 1's.
    expected = torch.tensor([share[0] - 1, share[1], share[2]]) * weight
    torch.testing.assert_close(logits.grad[0], expected)


@pytest.mark.parametrize("constrained", [True, False])
def test_without_stop_gradient_the_threshold_has_a_gradient_of_its_own(constrained):
    answers = random_batch(seed=2)
    options = {"beam": 3, "weight": 2.0, "temperature": 0.5, "constrained": constrained, "normalise": "tokens"}
    stopped, _ = Bear(BearParams(**options)).loss(answers)
    value, _ = Bear(BearParams(**options, stop_gradient=False)).loss(answers)
    torch.testing.assert_close(value, stopped)
    (gradient,) = torch.autograd.grad(value, answers.logits)
    losses, weights, choice = closed_form(answers, 3, 2.0, 0.5, constrained)
    used = choice if constrained else torch.ones_like(choice)
    _, thresholds, _ = log_p_and_beta(answers, 3, constrained)  # the pruning term pulls down log beta as it lifts log p
    total = (weights * losses + (weights - 1) * thresholds)[used].sum() / len(losses)
    (oracle,) = torch.autograd.grad(total, answers.logits)
    torch.testing.assert_close(gradient, oracle)
    (usual,) = torch.autograd.grad(stopped, answers.logits)
    assert not torch.allclose(gradient, usual)


@pytest.mark.parametrize("constrained", [True, False])
def test_without_stop_gradient_the_normalised_weights_have_one_too(constrained):
    answers = random_batch(seed=3)
    params = BearParams(beam=3, weight=2.0, temperature=0.5, constrained=constrained, stop_gradient=False)
    value, _ = Bear(params).loss(answers)
    chosen, threshold, choice = log_p_and_beta(answers, 3, constrained)
    used = choice if constrained else torch.ones_like(choice)
    weights = 1 + 4.0 * torch.sigmoid((chosen - threshold)[used] / 0.5)
    expected = -(weights * chosen[used]).sum() / weights.sum()
    torch.testing.assert_close(value, expected)
    (gradient,) = torch.autograd.grad(value, answers.logits)
    (oracle,) = torch.autograd.grad(expected, answers.logits)
    torch.testing.assert_close(gradient, oracle)


def test_fewer_valid_tokens_than_the_beam_use_the_smallest_valid_probability():
    logits = torch.tensor([[3.0, 1.0, 7.0]])
    _, metrics = Bear(BearParams(beam=10)).loss(batch(logits, [0], [[0, 1]]))
    assert metrics["mean_weight"] == pytest.approx(1 + 1 / (1 + math.exp(-(3.0 - 1.0))))


def test_padding_of_short_choices_never_becomes_the_threshold():
    logits = torch.tensor([[3.0, 1.0, 0.0, 0.0, 0.0], [5.0, 4.0, 3.0, 2.0, 1.0]])
    answers = batch(logits, [0, 2], [[0, 1], [0, 1, 2, 3, 4]])
    value, metrics = Bear(BearParams(beam=4)).loss(answers)
    assert math.isfinite(float(value))
    expected = 1 + (1 / (1 + math.exp(-2.0)) + 1 / (1 + math.exp(-1.0))) / 2
    assert metrics["mean_weight"] == pytest.approx(expected)


def test_forced_tokens_change_nothing():
    logits = torch.randn(3, 6, generator=torch.Generator().manual_seed(0))
    alone, _ = Bear().loss(batch(logits[:1], [0], [[0, 1, 2]]))
    among, metrics = Bear().loss(batch(logits, [0, 4, 5], [[0, 1, 2], [4], [5]]))
    torch.testing.assert_close(alone, among)
    assert metrics["choice_share"] == pytest.approx(1 / 3)


def test_all_forced_gives_zero_loss_and_a_zero_gradient():
    logits = torch.randn(2, 5, requires_grad=True)
    value, _ = Bear().loss(batch(logits, [1, 2], [[1], [2]]))
    value.backward()
    assert value.item() == 0.0
    assert torch.equal(logits.grad, torch.zeros_like(logits))


def test_with_the_same_weight_everywhere_the_default_is_msl_over_the_choices():
    logits = torch.tensor([[2.0, 0.0, -1.0], [2.0, 0.0, -1.0]])
    answers = batch(logits, [0, 0], [[0, 1, 2], [0, 1, 2]])
    bear, _ = Bear().loss(answers)
    msl, _ = Msl().loss(answers)
    torch.testing.assert_close(bear, msl)


def test_pruned_share_counts_targets_below_the_beams_threshold():
    logits = torch.tensor([[5.0, 4.0, 3.0], [5.0, 4.0, 3.0]])
    _, metrics = Bear(BearParams(beam=2)).loss(batch(logits, [2, 0], [[0, 1, 2], [0, 1, 2]]))
    assert metrics["pruned_share"] == 0.5


def test_the_full_vocabulary_form_needs_no_valid_tokens():
    assert Bear().needs.valid_tokens is True
    assert Bear(BearParams(constrained=False)).needs.valid_tokens is False


def test_the_official_codes_choices_are_the_defaults():
    params = BearParams()
    assert params.constrained and params.stop_gradient and params.normalise == "weights"
    assert (params.beam, params.weight, params.temperature) == (10, 1.0, 1.0)


@pytest.mark.parametrize(
    ("name", "value"), [("weight", 0.05), ("weight", 5.1), ("temperature", 0.2), ("temperature", 3.1)]
)
def test_parameters_out_of_the_papers_bounds_are_refused(name, value):
    with pytest.raises(UserError, match=name):
        build_params(BearParams, {name: value}, "objective 'bear'")
