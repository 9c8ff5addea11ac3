"""MSL: hand-computed losses, forced tokens, the dense masked softmax as an oracle, the adaptive temperature."""

import math

import pytest
import torch
from torch import distributed

from recalign.api import AnswerBatch, ValidTokens
from recalign.objectives.msl import Msl, MslParams, first_tokens


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


def batch(logits, labels, allowed, rows=None):
    return AnswerBatch(
        logits=logits,
        labels=torch.tensor(labels),
        rows=torch.tensor(rows if rows is not None else [0] * len(labels)),
        valid_tokens=ragged(allowed),
    )


def dense_loss(answers, temperature=1.0):
    mask = valid_mask(answers)
    masked = (answers.logits / temperature).masked_fill(~mask, -torch.inf)
    return torch.nn.functional.cross_entropy(masked, answers.labels)


def random_batch(positions=12, vocabulary=30, seed=0):
    generator = torch.Generator().manual_seed(seed)
    sizes = torch.randint(1, 8, (positions,), generator=generator).tolist()
    allowed = [torch.randperm(vocabulary, generator=generator)[:size].tolist() for size in sizes]
    logits = torch.randn(positions, vocabulary, generator=generator).requires_grad_()
    return batch(logits, [tokens[0] for tokens in allowed], allowed, rows=[p // 4 for p in range(positions)])


def test_hand_computed_loss_ignores_invalid_tokens_and_counts_forced_ones():
    logits = torch.tensor([[math.log(3.0), 0.0, 50.0], [0.0, 0.0, 9.0]])  # token 2 is the largest and never valid
    value, metrics = Msl().loss(batch(logits, [0, 1], [[0, 1], [1]]))
    assert float(value) == pytest.approx(-math.log(3 / 4) / 2)
    assert metrics["choice_share"] == 0.5


def test_count_forced_false_divides_by_the_choices_only():
    logits = torch.tensor([[math.log(3.0), 0.0, 50.0], [0.0, 0.0, 9.0]])
    value, _ = Msl(MslParams(count_forced=False)).loss(batch(logits, [0, 1], [[0, 1], [1]]))
    assert float(value) == pytest.approx(-math.log(3 / 4))


def test_with_an_adaptive_temperature_forced_tokens_do_not_count_unless_asked_for():
    logits = torch.tensor([[math.log(3.0), 0.0, 50.0], [0.0, 0.0, 9.0]])
    answers = batch(logits, [0, 1], [[0, 1], [1]])  # two first tokens: too few for the temperature, which stays 1
    for counted, divisor in [(None, 1), (False, 1), (True, 2)]:
        value, _ = Msl(MslParams(adaptive=True, count_forced=counted)).loss(answers)
        assert float(value) == pytest.approx(-math.log(3 / 4) / divisor)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.5])
def test_loss_and_gradient_equal_the_dense_masked_softmax(temperature):
    answers = random_batch()
    value, _ = Msl(MslParams(temperature=temperature)).loss(answers)
    expected = dense_loss(answers, temperature)
    torch.testing.assert_close(value, expected)
    (gradient,) = torch.autograd.grad(value, answers.logits)
    (oracle,) = torch.autograd.grad(expected, answers.logits)
    torch.testing.assert_close(gradient, oracle)


def test_with_every_token_valid_it_is_the_cross_entropy_of_sft():
    answers = batch(
        torch.randn(5, 9, generator=torch.Generator().manual_seed(1)), [1, 2, 3, 4, 8], [list(range(9))] * 5
    )
    value, _ = Msl().loss(answers)
    torch.testing.assert_close(value, torch.nn.functional.cross_entropy(answers.logits, answers.labels))


def test_all_forced_gives_zero_loss_and_a_zero_gradient():
    logits = torch.randn(3, 5, requires_grad=True)
    value, _ = Msl().loss(batch(logits, [1, 2, 3], [[1], [2], [3]]))
    value.backward()
    assert value.item() == 0.0
    assert torch.equal(logits.grad, torch.zeros_like(logits))


def test_a_label_that_is_not_valid_is_refused():
    with pytest.raises(AssertionError, match="no valid token"):
        Msl().loss(batch(torch.zeros(1, 4), [3], [[0, 1]]))


def test_first_tokens_marks_the_start_of_each_row():
    assert first_tokens(torch.tensor([4, 4, 7, 7, 7, 9])).tolist() == [True, False, True, False, False, True]


def test_adaptive_temperature_follows_the_formula():
    logits = torch.zeros(1, 10)
    logits[0, :8] = torch.tensor([6.0, 2, 2, 2, -2, -2, -2, -2])  # mean 0.5, variance (30.25 + 3 * 2.25 + 4 * 6.25) / 8
    answers = batch(logits, [0], [list(range(8))])
    objective = Msl(MslParams(adaptive=True))
    objective.survey([answers])
    value, metrics = objective.loss(answers)
    target, gap, variance = math.log(8 * 0.25), 5.5, 62.0 / 8
    expected = (gap + math.sqrt(max(0.0, gap**2 - 2 * target * variance))) / (2 * target)
    expected = min(max(expected, 1.5), 5.0)
    assert metrics["temperature"] == pytest.approx(expected)
    assert float(value) == pytest.approx(float(dense_loss(answers, expected)) * expected, rel=1e-5)


def test_adaptive_temperature_is_a_moving_average_within_bounds():
    objective = Msl(MslParams(adaptive=True))
    objective.survey([batch(torch.zeros(1, 10), [0], [list(range(8))])])  # no gap: the lower bound
    assert objective.temperature == pytest.approx(1.5)
    logits = torch.zeros(1, 10)
    logits[0, 0] = 1000.0  # a huge gap: the upper bound, taken in at a rate of 0.05
    objective.survey([batch(logits, [0], [list(range(8))])])
    assert objective.temperature == pytest.approx(1.5 + 0.05 * 3.5)


def test_adaptive_temperature_stays_where_the_root_has_too_few_children():
    objective = Msl(MslParams(adaptive=True, temperature=2.0))
    objective.survey([batch(torch.zeros(1, 10), [0], [[0, 1, 2]])])
    assert objective.temperature == 2.0


def test_later_tokens_do_not_move_the_adaptive_temperature():
    logits = torch.zeros(2, 10)
    logits[1, 0] = 1000.0
    objective = Msl(MslParams(adaptive=True))
    objective.survey([batch(logits, [0, 0], [list(range(8)), list(range(8))], rows=[0, 0])])
    assert objective.temperature == pytest.approx(1.5)


def test_processes_estimate_one_adaptive_temperature_together(monkeypatch):
    whole = random_first_tokens(6)
    together = Msl(MslParams(adaptive=True))
    together.survey([whole])

    def half(rows):
        return batch(whole.logits[rows], whole.labels[rows].tolist(), [list(range(8))] * 3, rows=[0, 1, 2])

    sums = []
    monkeypatch.setattr(distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(distributed, "all_reduce", sums.append)
    Msl(MslParams(adaptive=True)).survey([half(slice(3, 6))])  # the other process, up to the sum over both
    monkeypatch.setattr(distributed, "all_reduce", lambda mine: mine.add_(sums[0]))
    mine = Msl(MslParams(adaptive=True))
    mine.survey([half(slice(0, 3))])
    assert 1.5 < together.temperature < 5.0
    assert mine.temperature == pytest.approx(together.temperature)
    mine.survey([batch(torch.zeros(1, 10), [0], [[0]])])  # nothing but forced tokens here, and choices elsewhere
    assert mine.estimates == 2


def random_first_tokens(rows):
    logits = torch.randn(rows, 10, generator=torch.Generator().manual_seed(5)) / 2
    logits[:, 0] += 2.5
    return batch(logits, [0] * rows, [list(range(8))] * rows, rows=list(range(rows)))


def test_state_survives_a_checkpoint():
    first = Msl(MslParams(adaptive=True))
    first.survey([random_batch(seed=2)])
    second = Msl(MslParams(adaptive=True))
    second.load_state_dict(first.state_dict())
    value, _ = first.loss(random_batch(seed=3))
    again, _ = second.loss(random_batch(seed=3))
    assert float(value) == float(again)
