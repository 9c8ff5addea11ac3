"""The token step with a beam search inside: BEAR where there is one decision, thresholds that tell what is returned."""

import pytest
import torch

from recalign.decoding.engine import PolicyEngine
from recalign.models.policy import load_policy
from recalign.objectives.beam_exact import BeamExact
from recalign.objectives.bear import Bear, BearParams, PruningParams
from recalign.training.offline.examples import AnswerExamples, collate
from recalign.training.offline.token_step import TokenStep
from tests.fake_dataset import write_dataset
from tests.training.updates import update


def build(tmp_path, objective, identifier="title", **options):
    dataset = write_dataset(tmp_path / "data", identifier=identifier, task="next", **options)
    policy = load_policy("builtin:tiny", dataset, trainable=True)
    engine = PolicyEngine(policy, dataset.catalogue, exclude_history=True)
    examples = AnswerExamples(policy, dataset.rows("train"), 1)
    batch = collate([examples[0, index] for index in range(len(examples))], pad=policy.titles.end, all_tokens=False)
    return TokenStep(policy, objective, engine), batch


@pytest.mark.parametrize("beam", [1, 4, 100])  # 15 of 20 items are left; 100 is wider than the catalogue
@pytest.mark.parametrize("normalise", ["weights", "tokens"])
def test_items_of_one_token_make_it_bear(tmp_path, beam, normalise):
    shared = {"beam": beam, "weight": 2.0, "temperature": 0.5, "normalise": normalise}
    step, batch = build(tmp_path, BeamExact(PruningParams(**shared)), identifier="atomic")
    mine, _ = update(step, batch)
    bear, _ = update(TokenStep(step.policy, Bear(BearParams(**shared)), step.engine), batch)
    torch.testing.assert_close(mine, bear, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("beam", [1, 3, 8])
def test_dropped_targets_are_those_that_the_beam_does_not_return(tmp_path, beam):
    step, batch = build(tmp_path, BeamExact(PruningParams(beam=beam)))
    loss, metrics = step.objective.loss(step.answers(step.policy.model, batch))
    rows = [example.row for example in batch.examples]
    items, _ = step.engine.beam(rows, width=beam, size=beam)
    lost = [int(row.targets[0]) not in found.tolist() for row, found in zip(rows, items, strict=True)]
    assert 0 < sum(lost) < len(rows)
    assert metrics["pruned_targets"] == pytest.approx(sum(lost) / len(rows))
    assert loss.requires_grad


def test_a_beam_above_the_catalogue_drops_nothing(tmp_path):
    step, batch = build(tmp_path, BeamExact(PruningParams(beam=100)))
    _, metrics = update(step, batch)
    assert metrics["pruned_share"] == 0.0


def test_the_search_leaves_the_model_in_training_mode_and_without_gradients(tmp_path):
    step, batch = build(tmp_path, BeamExact())
    step.policy.model.train()
    thresholds = step.answers(step.policy.model, batch).beam_thresholds
    assert step.policy.model.training and not thresholds.requires_grad


def test_titles_of_a_single_token_and_of_one_chain_are_taken(tmp_path):
    titles = ["A", "B", "C", "D", "E", "F", "G", "Long Title Here"]
    step, batch = build(tmp_path, BeamExact(PruningParams(beam=2)), titles=titles, history=3)
    loss, metrics = update(step, batch)
    assert torch.isfinite(loss) and 0 <= metrics["pruned_share"] <= 1
