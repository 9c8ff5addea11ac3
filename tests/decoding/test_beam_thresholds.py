"""Thresholds of a beam search, against a plain beam search in dictionaries and against what the engine returns."""

import math

import numpy as np
import pytest
import torch

from tests.decoding.doubles import END, make_engine, random_paths, row
from tests.decoding.oracle import next_tokens
from tests.decoding.test_beam_search import trained


@torch.no_grad()
def logps_of(engine, prompt, prefix, options):
    tokens = torch.tensor([[*prompt.tolist(), *prefix]])
    scores = engine.policy.model(tokens).logits[0, -1, options].double()
    return dict(zip(options, scores.log_softmax(0).tolist(), strict=True))


def plain_search(engine, one, width):
    """Beam search token by token: what is retained at each depth, what is returned, and where something was chosen."""
    excluded = set(one.history.tolist()) if engine.exclude_history else set()
    responses = [(*p.tolist(), END) for item, p in enumerate(engine.policy.titles.paths) if item not in excluded]
    prompt, beams, finished, going, ending, chosen = engine.policy.prompter.encode(one), {(): 0.0}, {}, [], [], []
    while beams:
        options = {prefix: next_tokens(responses, prefix) for prefix in beams}
        found = {
            (*prefix, token): score + logp
            for prefix, score in beams.items()
            for token, logp in logps_of(engine, prompt, prefix, options[prefix]).items()
        }
        ranked = sorted(found, key=found.get, reverse=True)
        finished |= {prefix: found[prefix] for prefix in ranked[:width] if prefix[-1] == END}
        best = sorted(finished.values(), reverse=True)[:width]
        returned = best[-1] if len(best) == width else -math.inf
        retained = [prefix for prefix in ranked if prefix[-1] != END][:width]
        going.append(max(found[retained[-1]], returned) if retained else best[-1])
        ending.append(max(found[ranked[:width][-1]], returned))
        chosen.append(any(len(tokens) > 1 for tokens in options.values()))
        beams = {prefix: found[prefix] for prefix in retained if found[prefix] > returned}
    return going, [max(value, returned) for value in ending], chosen


@pytest.mark.parametrize("width", [1, 3, 6, 200])
@pytest.mark.parametrize("weights", ["random", "trained"])
def test_thresholds_are_those_of_a_plain_beam_search(width, weights):
    paths = random_paths(120, seed=4, longest=6, width=20)
    engine = make_engine(paths, model=trained("llama", paths) if weights == "trained" else None, exclude_history=True)
    rows = [row(i, np.random.default_rng(i).integers(0, 120, size=1 + i).tolist()) for i in range(3)]
    found = engine.thresholds(rows, width=width)
    for place, one in enumerate(rows):
        going, ending, chosen = plain_search(engine, one, width)
        depths = [depth for depth, some in enumerate(chosen) if some]
        assert torch.nonzero(found.decided[place]).flatten().tolist() == depths
        np.testing.assert_allclose(found.going[place, depths], [going[depth] for depth in depths], atol=1e-5)
        np.testing.assert_allclose(found.ending[place, depths], [ending[depth] for depth in depths], atol=1e-5)


@pytest.mark.parametrize("width", [1, 2, 5, 11])
def test_a_title_is_returned_if_and_only_if_all_its_prefixes_reach_their_thresholds(width):
    paths = random_paths(120, seed=4, longest=6, width=20)
    engine = make_engine(paths, model=trained("qwen2", paths))
    rows = [row(i, [i, 2 * i]) for i in range(3)]
    found = engine.thresholds(rows, width=width)
    items, _ = engine.beam(rows, width=width, size=width)
    responses = [(*path.tolist(), END) for path in paths]
    for place, one in enumerate(rows):
        prompt, asked, within = engine.policy.prompter.encode(one), {}, set()
        for item, response in enumerate(responses):
            score, alive = 0.0, True
            for depth, token in enumerate(response):
                prefix = response[:depth]
                if prefix not in asked:
                    asked[prefix] = logps_of(engine, prompt, prefix, next_tokens(responses, prefix))
                score += asked[prefix][token]
                thresholds = found.ending if token == END else found.going
                alive &= score >= float(thresholds[place, depth]) - 1e-5
            within |= {item} if alive else set()
        assert within == set(items[place].tolist())


def test_thresholds_do_not_depend_on_the_batch():
    paths = random_paths(60)
    rows = [row(i, np.random.default_rng(i).integers(0, 60, size=1 + i % 4).tolist()) for i in range(7)]
    together, alone = (make_engine(paths, token_budget=b).thresholds(rows, width=4) for b in (32768, 1))
    torch.testing.assert_close(together.going, alone.going, atol=1e-5, rtol=0)
    torch.testing.assert_close(together.ending, alone.ending, atol=1e-5, rtol=0)
    assert torch.equal(together.decided, alone.decided)
