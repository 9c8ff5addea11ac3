"""DPO, DMPO, S-DPO, BEAR + S-DPO: hand-computed values, special cases, gradients, missing negatives, TRL's loss."""

import math
from unittest.mock import MagicMock

import pytest
import torch

from recalign.api import PreferenceBatch, UserError
from recalign.objectives.bear_s_dpo import BearSdpo, BearSdpoParams
from recalign.objectives.dmpo import Dmpo, DmpoParams
from recalign.objectives.dpo import Dpo
from recalign.objectives.s_dpo import Sdpo, SdpoParams
from recalign.params import build_params


def batch(ratios, present=None, token_logps=None, thresholds=None, choices=None):
    """Titles whose log-ratios are given; the reference gives every title -1."""
    ratios = torch.tensor(ratios, dtype=torch.float64)
    logps = (ratios - 1).requires_grad_()
    return PreferenceBatch(
        logps=logps,
        reference_logps=torch.full_like(ratios, -1.0),
        present=torch.ones_like(ratios, dtype=torch.bool) if present is None else torch.tensor(present),
        token_logps=logps[..., None] if token_logps is None else token_logps,
        thresholds=thresholds,
        choices=torch.ones(*ratios.shape, 1, dtype=torch.bool) if choices is None else choices,
    )


def loss_of(objective, *arguments, **keywords):
    return objective.loss(batch(*arguments, **keywords))[0].item()


def minus_log_sigmoid(x):
    return math.log1p(math.exp(-x))


def test_dpo_is_the_logistic_loss_of_the_scaled_margin():
    value, figures = Dpo(Dpo.Params(beta=0.5)).loss(batch([[1.0, -1.0], [0.0, 2.0]]))
    assert value.item() == pytest.approx((minus_log_sigmoid(1.0) + minus_log_sigmoid(-1.0)) / 2)
    assert figures == pytest.approx({"accuracy": 0.5, "margin": 0.0, "chosen_log_ratio": 0.5, "rejected": 1.0})


def test_how_many_rejected_titles_rows_have_is_told():
    _, figures = Sdpo().loss(batch([[0.5, 0.2, 0.0], [1.0, 0.0, 0.0]], [[True, True, True], [True, False, False]]))
    assert figures["rejected"] == 1.0


@pytest.mark.parametrize(("aggregate", "share"), [("mean", 0.5), ("sum", 1.0)])
def test_dmpo_aggregates_the_margins_before_the_sigmoid(aggregate, share):
    objective = Dmpo(DmpoParams(beta=0.5, aggregate=aggregate))
    assert loss_of(objective, [[1.0, 0.0, 2.0]]) == pytest.approx(minus_log_sigmoid(0.0))
    assert loss_of(objective, [[1.0, 0.0, -1.0]]) == pytest.approx(minus_log_sigmoid(share * 0.5 * 3))  # margins 1, 2
    # A row with one rejected title has a mean over one; one without takes no part.
    present = [[True, True, False], [True, False, False]]
    assert loss_of(objective, [[1.0, 0.0, 9.0], [1.0, 9.0, 9.0]], present) == pytest.approx(minus_log_sigmoid(0.5))


def test_the_mean_of_dmpo_is_the_sum_with_a_beta_as_many_times_larger():
    ratios = torch.randn(4, 4, generator=torch.Generator().manual_seed(1)).tolist()
    mean, total = DmpoParams(beta=0.9), DmpoParams(beta=0.3, aggregate="sum")
    assert loss_of(Dmpo(mean), ratios) == pytest.approx(loss_of(Dmpo(total), ratios))


def test_s_dpo_is_the_cross_entropy_of_a_softmax_over_titles():
    value = loss_of(Sdpo(SdpoParams(beta=2.0)), [[1.0, 0.0, -0.5]])
    scores = [math.exp(2.0 * ratio) for ratio in (1.0, 0.0, -0.5)]
    assert value == pytest.approx(-math.log(scores[0] / sum(scores)))


@pytest.mark.parametrize("objective", [Dmpo(DmpoParams(beta=0.7)), Sdpo(SdpoParams(beta=0.7))])
def test_one_negative_is_dpo(objective):
    ratios = torch.randn(5, 2, generator=torch.Generator().manual_seed(0)).tolist()
    assert loss_of(objective, ratios) == pytest.approx(loss_of(Dpo(Dpo.Params(beta=0.7)), ratios))


@pytest.mark.parametrize("objective", [Dpo(), Dmpo(), Sdpo(), BearSdpo(BearSdpoParams(weight=0.0))])
def test_the_target_is_raised_and_rejected_titles_are_lowered(objective):
    preferences = batch([[0.0, 0.0, 0.0]])
    objective.loss(preferences)[0].backward()
    gradient = preferences.logps.grad[0]
    assert gradient[0] < 0 < gradient[1]
    assert gradient.sum().item() == pytest.approx(0.0, abs=1e-12)


def test_s_dpo_pushes_the_hardest_negative_most():
    preferences = batch([[0.0, 1.0, -1.0]])
    Sdpo().loss(preferences)[0].backward()
    gradient = preferences.logps.grad[0]
    assert gradient[1] / gradient[2] == pytest.approx(math.exp(2.0))


@pytest.mark.parametrize("objective", [Dpo(), Dmpo(), Sdpo(), BearSdpo(BearSdpoParams(weight=0.0))])
def test_absent_negatives_change_nothing_and_rows_without_any_are_left_out(objective):
    whole = batch([[0.5, 0.2, 0.0], [1.0, 0.0, 0.0]], [[True, True, False], [True, False, False]])
    value = objective.loss(whole)[0]
    assert value.item() == pytest.approx(loss_of(objective, [[0.5, 0.2]]))
    value.backward()
    assert whole.logps.grad.isfinite().all()
    assert whole.logps.grad[1].abs().sum() == 0


@pytest.mark.parametrize("objective", [Dpo(), Dmpo(), Sdpo(), BearSdpo(BearSdpoParams(weight=0.0))])
def test_no_negatives_at_all_give_zero_with_a_gradient(objective):
    preferences = batch([[0.5, 0.0]], [[True, False]])
    value = objective.loss(preferences)[0]
    value.backward()
    assert value.item() == 0.0
    assert preferences.logps.grad.abs().sum() == 0


def pruning_batch():
    """One target of two tokens, one rejected title of one: log p and log beta a token."""
    token_logps = torch.tensor([[[-1.0, -2.0], [-0.5, 0.0]]], dtype=torch.float64, requires_grad=True)
    thresholds = torch.tensor([[[-2.0, -1.0], [-1.5, 0.0]]], dtype=torch.float64)
    choices = torch.tensor([[[True, True], [True, False]]])
    return token_logps, PreferenceBatch(
        logps=token_logps.sum(-1),
        reference_logps=torch.tensor([[-3.0, -0.5]], dtype=torch.float64),
        present=torch.ones(1, 2, dtype=torch.bool),
        token_logps=token_logps,
        thresholds=thresholds,
        choices=choices,
    )


def test_bear_s_dpo_adds_the_targets_regulariser_and_subtracts_the_mean_of_the_rejected():
    _, preferences = pruning_batch()
    value, figures = BearSdpo(BearSdpoParams(weight=0.5, temperature=2.0)).loss(preferences)
    target = -minus_log_sigmoid(-0.5) - minus_log_sigmoid(0.5)  # (log beta - log p) / xi
    rejected = -minus_log_sigmoid(-0.5)
    assert value.item() == pytest.approx(math.log(2) + 0.5 * (target - rejected))
    assert figures["pruned_share"] == 0.5


def test_bear_s_dpo_pulls_targets_above_the_threshold_and_pushes_rejected_ones_below():
    token_logps, preferences = pruning_batch()
    with_, without = (BearSdpo(BearSdpoParams(weight=weight)) for weight in (1.0, 0.0))
    difference = with_.loss(preferences)[0] - without.loss(preferences)[0]
    (gradient,) = torch.autograd.grad(difference, token_logps)
    assert (gradient[0, 0] < 0).all()
    assert gradient[0, 1, 0] > 0
    assert gradient[0, 1, 1] == 0  # not a choice


def test_without_weight_bear_s_dpo_is_s_dpo_and_needs_no_thresholds():
    objective = BearSdpo(BearSdpoParams(weight=0.0, beta=0.3))
    ratios = [[0.4, 0.1, -2.0]]
    assert objective.needs.threshold_rank == 0 and BearSdpo().needs.threshold_rank == 10
    assert loss_of(objective, ratios) == pytest.approx(loss_of(Sdpo(SdpoParams(beta=0.3)), ratios))


@pytest.mark.parametrize(
    ("declaration", "name", "value"),
    [
        (SdpoParams, "negatives", 0),
        (SdpoParams, "beta", 0.0),
        (SdpoParams, "source", "nearby"),
        (BearSdpoParams, "weight", 6.0),
        (BearSdpoParams, "temperature", 0.1),
    ],
)
def test_parameters_out_of_bounds_are_refused(declaration, name, value):
    with pytest.raises(UserError, match=name):
        build_params(declaration, {name: value}, "objective 's-dpo'")


@pytest.mark.slow
@pytest.mark.parametrize("objective", [Dpo, Sdpo])
@pytest.mark.parametrize("beta", [0.1, 1.0])
def test_one_negative_equals_trls_dpo_loss_on_the_same_log_probabilities(objective, beta):
    trl = pytest.importorskip("trl", reason="the optional extra `bench` has TRL")
    generator = torch.Generator().manual_seed(1)
    policy, reference = -5 * torch.rand(2, 6, 4, generator=generator)  # TRL: chosen rows, then rejected ones; 4 tokens
    completion = torch.ones(6, 5, dtype=torch.int64)
    completion[:, 0] = 0  # the prompt
    trainer = MagicMock(ld_alpha=None, aux_loss_enabled=False, precompute_ref_logps=False, use_weighting=False)
    trainer.configure_mock(beta=beta, f_divergence_type="reverse_kl", loss_types=["sigmoid"], loss_weights=[1.0])
    trainer.ref_model.return_value.log_probs = reference
    trainer.accelerator.gather.side_effect = trainer.accelerator.gather_for_metrics.side_effect = lambda value: value
    model = MagicMock()
    nothing = torch.zeros(6, 4)
    model.return_value.configure_mock(log_probs=policy, entropy=nothing, mean_logits=nothing, is_top1=nothing.bool())
    inputs = dict.fromkeys(("input_ids", "attention_mask", "completion_mask"), completion)
    expected = trl.DPOTrainer._compute_loss(trainer, model, inputs, False)
    preferences = PreferenceBatch(
        logps=policy.sum(-1).view(2, 3).T,
        reference_logps=reference.sum(-1).view(2, 3).T,
        present=torch.ones(3, 2, dtype=torch.bool),
        token_logps=policy.view(2, 3, 4).transpose(0, 1),
        thresholds=None,
        choices=torch.ones(3, 2, 4, dtype=torch.bool),
    )
    value, _ = objective(objective.Params(beta=beta, negatives=1)).loss(preferences)
    torch.testing.assert_close(value, expected)
