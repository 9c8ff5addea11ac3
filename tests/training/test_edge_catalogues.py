"""Every objective on answers, on catalogues at the edge: titles of one token, titles that begin others, all forced."""

import pytest
import torch

from recalign.api import PreferenceObjective, UserError
from recalign.decoding.engine import PolicyEngine
from recalign.models.policy import load_policy
from recalign.plugins.registry import create
from recalign.training.offline.setups import preference_setup, token_setup
from recalign.training.validation import Validation
from tests.fake_dataset import write_dataset
from tests.training.updates import update

SHORT = ["A", "B", "A B", "A B C", "C", "D", "D A", "Long Title Here"]
TOKEN = ["sft", "msl", "bear", "beam-exact", "cft", "igd"]
PREFERENCE = ["dpo", "dmpo", "s-dpo", "bear-s-dpo", "sprec"]


def loss_and_gradient(tmp_path, name, params=None, *, exclude_history=True, **options):
    """One batch of all training rows: the loss and the policy's largest gradient, both after a backward pass."""
    dataset = write_dataset(tmp_path / "data", task="next", users=6, **options)
    policy = load_policy("builtin:tiny,hidden=16,heads=2", dataset, trainable=True)
    validation = Validation(
        PolicyEngine(policy, dataset.catalogue, exclude_history=exclude_history), dataset.rows("valid")
    )
    objective, rows = create("objective", name, params or {}), dataset.rows("train")
    preference = isinstance(objective, PreferenceObjective)
    setup = (
        preference_setup(objective, validation, rows, seed=0)
        if preference
        else token_setup(objective, validation, rows)
    )
    batch = setup.collate([setup.examples[0, index] for index in range(len(rows))])
    loss, figures = update(setup.step, batch)
    gradients = [parameter.grad for parameter in policy.model.parameters() if parameter.grad is not None]
    assert all(torch.isfinite(gradient).all() for gradient in gradients)
    return loss.item(), max(float(gradient.abs().max()) for gradient in gradients), figures


@pytest.mark.parametrize("name", [*TOKEN, *PREFERENCE])
def test_titles_of_one_token_and_titles_that_begin_others(tmp_path, name):
    loss, gradient, _ = loss_and_gradient(tmp_path, name, titles=SHORT, history=2)
    assert 0 < loss < 50 and gradient > 0


@pytest.mark.parametrize("name", [*TOKEN, *PREFERENCE])
def test_items_of_one_token(tmp_path, name):
    params = {"constrained": True} if name in PREFERENCE else {}
    loss, gradient, _ = loss_and_gradient(tmp_path, name, params, identifier="atomic")
    assert 0 < loss < 50 and gradient > 0


@pytest.mark.parametrize("name", ["msl", "bear", "beam-exact"])
def test_over_valid_tokens_a_forced_answer_teaches_nothing(tmp_path, name):
    loss, gradient, _ = loss_and_gradient(tmp_path, name, titles=["Red Ship", "Old Ship"], history=1)
    assert (loss, gradient) == (0.0, 0.0)  # the history is excluded: only the target is left


@pytest.mark.parametrize("name", ["sft", "cft", "igd"])
def test_over_the_vocabulary_a_forced_answer_is_learnt(tmp_path, name):
    loss, gradient, _ = loss_and_gradient(tmp_path, name, titles=["Red Ship", "Old Ship"], history=1)
    assert 0 < loss < 50 and gradient > 0


@pytest.mark.parametrize("name", ["dpo", "dmpo", "s-dpo", "bear-s-dpo"])
def test_where_only_the_target_is_left_there_is_nothing_to_reject(tmp_path, name):
    with pytest.raises(UserError, match="has 0 items left to reject, and 1 negatives are asked for"):
        loss_and_gradient(tmp_path, name, {"negatives": 1}, titles=["Red Ship", "Old Ship"], history=1)


@pytest.mark.parametrize("beam", [1, 8, 9, 1000])
@pytest.mark.parametrize("name", ["bear", "beam-exact", "bear-s-dpo"])
def test_a_beam_of_one_and_beams_above_the_catalogue(tmp_path, name, beam):
    loss, gradient, figures = loss_and_gradient(tmp_path, name, {"beam": beam}, titles=SHORT, history=2)
    assert -50 < loss < 50 and gradient > 0
    if beam > len(SHORT):
        assert figures["pruned_share"] == 0.0
