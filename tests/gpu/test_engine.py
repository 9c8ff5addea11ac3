"""Decoding on a GPU: what a CPU finds in float32, near it in bfloat16."""

import numpy as np
import pytest
import torch

from recalign.api import DECISION, RATIONALE
from recalign.training.logprobs.completions import completion_logps
from recalign.training.online.rollouts import as_sampled
from tests.decoding.doubles import make_engine, random_paths, tiny_model
from tests.gpu.on_device import CLOSE, DEVICE, NEEDS_GPU, ROWS, distance, engine_of

pytestmark = NEEDS_GPU


def engines(kind="llama", dtype=torch.float32, **options):
    """The same random model on the CPU in float32 and on the device in another format."""
    formats = ({"device": "cpu"}, {"device": DEVICE, "dtype": dtype})
    return tuple(make_engine(random_paths(40), model=tiny_model(kind).to(**each), **options) for each in formats)


def assert_same_lists(found, expected, **near):
    """Best-first lists with their scores [U, K]: what is clearly above the last title is in both lists."""
    (items, scores), (wanted, marks) = found[:2], expected[:2]
    assert items.device.type == scores.device.type == "cpu"
    torch.testing.assert_close(scores, marks, **near)
    clear = marks > marks[:, -1:] + near["atol"]
    for line, other, sure in zip(items, wanted, clear, strict=True):
        assert set(other[sure].tolist()) <= set(line.tolist())


@pytest.mark.parametrize("kind", ["llama", "qwen2", "gpt2", "mistral"])
@pytest.mark.parametrize("scoring", ["full", "renormalised"])
def test_searches_find_the_titles_that_they_find_on_a_cpu(kind, scoring):
    here, there = engines(kind, exclude_history=True)
    assert there.policy.model.device.type == DEVICE and there.obstacle == ""
    searches = [
        lambda engine: engine.beam(ROWS, width=6, size=5, scoring=scoring),
        lambda engine: engine.beam(ROWS, width=4, size=4, scoring=scoring, length_penalty=0.7),
        lambda engine: engine.exact(ROWS, size=5, scoring=scoring),
    ]
    for search in searches:
        assert_same_lists(search(there), search(here), **CLOSE)


def test_models_that_share_no_prompts_are_served_too():
    here, there = engines("bloom")
    assert there.obstacle
    assert_same_lists(there.beam(ROWS, width=5, size=4), here.beam(ROWS, width=5, size=4), **CLOSE)
    assert torch.equal(*(each.sample(ROWS, group_size=2, list_length=3, seed=1).items for each in (here, there)))


def test_thresholds_are_those_of_a_cpu():
    here, there = (engine.thresholds(ROWS, width=4) for engine in engines())
    torch.testing.assert_close(there.going, here.going, **CLOSE)
    torch.testing.assert_close(there.ending, here.ending, **CLOSE)
    assert torch.equal(there.decided, here.decided)


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_lists_are_sampled_with_the_same_random_numbers(kind):
    """Numbers are drawn by address, in NumPy: a token differs only where one falls within rounding of a boundary."""
    here, there = engines(kind, exclude_history=True)
    for constrained in (True, False):
        asked = dict(group_size=4, list_length=3, temperature=0.8, repetition_penalty=1.1, seed=2)
        one, two = (each.sample(ROWS, constrained=constrained, **asked) for each in (here, there))
        assert torch.equal(two.tokens, one.tokens) and torch.equal(two.items, one.items)
        torch.testing.assert_close(two.logps, one.logps, **CLOSE)
        one, two = (each.greedy(ROWS, list_length=3, constrained=constrained) for each in (here, there))
        assert torch.equal(two.tokens, one.tokens)


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_log_probabilities_and_states_are_those_of_a_cpu(kind):
    found = []
    for engine in engines(kind):
        lists = engine.sample(ROWS, group_size=3, list_length=3, seed=3)
        sampled = as_sampled(engine, ROWS, lists, 1.0, 1.1)
        logps = [completion_logps(engine.policy.model, sampled, tree_mask=mask).cpu() for mask in (True, False)]
        after = engine.hidden(ROWS, [np.array([4, 5]), np.array([6])], owners=[2, 0], positions=[[0, 1], [0]])
        found.append((*logps, engine.hidden(ROWS).cpu(), after.cpu()))
    for one, two in zip(*found, strict=True):
        torch.testing.assert_close(two, one, **CLOSE)


@pytest.mark.parametrize("kind", ["llama", "qwen2", "gpt2"])
def test_bfloat16_is_near_float32(kind):
    here, there = engines(kind, dtype=torch.bfloat16)
    assert there.obstacle == ""
    lists = here.sample(ROWS, group_size=3, list_length=3, seed=3)
    one, two = (
        completion_logps(each.policy.model, as_sampled(each, ROWS, lists, 1.0, 1.0)).cpu() for each in (here, there)
    )
    assert two.dtype == torch.float32
    assert (one - two).abs().mean() < 0.05 and (one - two).abs().max() < 0.6
    for scoring in ("full", "renormalised"):
        marks, scores = (each.exact(ROWS, size=4, scoring=scoring)[1] for each in (here, there))
        torch.testing.assert_close(scores, marks, atol=0.6, rtol=0.05)
        items, found = there.beam(ROWS, width=6, size=4, scoring=scoring)
        assert (items >= 0).all() and (found <= 1e-3).all()
    states = [each.hidden(ROWS).cpu().float() for each in (here, there)]
    assert (states[0] - states[1]).norm() < 0.05 * states[0].norm()
    own = there.sample(ROWS, group_size=3, list_length=3, seed=3)
    again = completion_logps(there.policy.model, as_sampled(there, ROWS, own, 1.0, 1.0)).cpu()
    assert (again - own.logps).abs().mean() < 0.05
    assert torch.isfinite(there.thresholds(ROWS, width=4).ending).all()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_candidates_are_judged_as_on_a_cpu(worlds, dtype):
    found = []
    for where, format_ in (("cpu", "float32"), (DEVICE, dtype)):
        engine = engine_of(worlds, "rank", where, dtype=format_, model=worlds["llama"], sharpness=1.0)
        rows = worlds["rank"].rows("test")[:3]
        asked = dict(form=RATIONALE, group_size=2, max_tokens=6, temperature=0.9, seed=1, states="decision")
        answers = engine.questions.rationales(rows, **asked)
        logps, states = engine.questions.logps(
            rows, answers, form=RATIONALE, max_tokens=6, temperature=0.9, states="decision"
        )
        words = engine.questions.word_logits(rows, form=DECISION).cpu()
        found.append((answers, logps.detach().cpu(), answers.states.cpu(), states.detach().cpu(), words))
        bound = 1e-3 if format_ == "float32" else 0.5
        torch.testing.assert_close(found[-1][1], answers.logps, atol=bound, rtol=bound)
    if dtype == "float32":
        assert torch.equal(found[1][0].tokens, found[0][0].tokens)
        for one, two in zip(found[0][1:], found[1][1:], strict=True):
            torch.testing.assert_close(two, one, **CLOSE)
    else:
        torch.testing.assert_close(found[1][4], found[0][4], atol=0.3, rtol=0.1)


@pytest.mark.parametrize("name", ["sasrec", "bert4rec"])
def test_recommenders_score_as_on_a_cpu(name):
    from recalign.recommenders.sequential_model import SequentialModel
    from recalign.recommenders.sequential_params import SequentialParams

    torch.manual_seed(0)
    masked = None if name == "sasrec" else 0.2
    here = SequentialModel(40, SequentialParams(hidden=16, heads=2, layers=2), masked_share=masked)
    with torch.no_grad():
        for weight in here.parameters():
            weight.add_(torch.randn(weight.shape), alpha=0.3)
    there = SequentialModel(40, here.params, masked_share=masked)
    there.load_state_dict(here.state_dict())
    there.to(DEVICE)
    np.testing.assert_allclose(there.scores(ROWS), here.scores(ROWS), atol=1e-3, rtol=1e-3)
    sequences = [each.history for each in ROWS if len(each.history) > 1]
    for model in (here, there):
        model.eval()  # no dropout
        model.loss(sequences, np.random.default_rng(0)).backward()
    grads = [{key: each.grad.cpu() for key, each in model.named_parameters()} for model in (here, there)]
    assert distance(grads[1], grads[0]) < 2e-3
