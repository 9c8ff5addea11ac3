"""Models that cannot share prompts: found out, said once, and decoded as exactly as the others."""

import numpy as np
import pytest
import torch

from recalign.decoding.compatibility import beyond_limit, obstacle_to_sharing, sharing_limit
from recalign.decoding.prompt_cache import Cost
from recalign.decoding.uncached import UncachedPrompts
from tests.decoding.doubles import make_engine, random_paths, row, tiny_model
from tests.decoding.oracle import token_logps
from tests.decoding.test_beam_search import every_score

UNSHARED = [("mistral", {"sliding_window": 8}), ("mistral", {"sliding_window": 15}), ("bloom", {})]


ROWS = [row(i, np.random.default_rng(i).integers(0, 30, size=3 + 5 * i).tolist()) for i in range(4)]  # 4 to 19 tokens


@pytest.mark.parametrize("scoring", ["renormalised", "full"])
@pytest.mark.parametrize(("kind", "options"), UNSHARED)
def test_the_best_titles_are_those_of_full_forward_passes(kind, options, scoring, said):
    engine = make_engine(random_paths(30), model=tiny_model(kind, **options), exclude_history=True)
    items, scores, _ = engine.exact(ROWS, size=5, scoring=scoring)
    for one, found, values in zip(ROWS, items.tolist(), scores.tolist(), strict=True):
        wanted = every_score(engine, one, one.history.tolist(), scoring)[:5]
        assert found == [item for item, _ in wanted]
        np.testing.assert_allclose(values, [score for _, score in wanted], atol=1e-5)
    beam, _ = engine.beam(ROWS, width=30, size=5, scoring=scoring)
    assert beam.tolist() == items.tolist()
    assert len(said) == 1


@torch.no_grad()
def test_logits_are_those_of_last_tokens_only():
    model, places = tiny_model("mistral", sliding_window=8), []
    model.register_forward_hook(lambda *arguments: places.append(arguments[2].logits.shape[1]))
    prompts = [np.arange(length) + 3 for length in (9, 4, 9, 6)]
    found = UncachedPrompts(model, Cost(), 4096).begin(prompts)
    assert places == [3]  # of four prompts of three lengths
    for prompt, logits in zip(prompts, found, strict=True):
        torch.testing.assert_close(logits, model(torch.from_numpy(prompt)[None]).logits[0, -1], atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_a_model_that_cannot_select_logits_gives_the_same(monkeypatch):
    model, prompts = tiny_model("llama"), [np.arange(length) + 3 for length in (9, 4, 6)]
    found = UncachedPrompts(model, Cost(), 4096).begin(prompts)
    monkeypatch.setattr("recalign.decoding.uncached.selects_logits", lambda _: False)
    torch.testing.assert_close(UncachedPrompts(model, Cost(), 4096).begin(prompts), found)


@pytest.mark.parametrize("window", [8, 15])
def test_sampled_lists_have_the_log_probabilities_of_full_forward_passes(window, said):
    engine = make_engine(random_paths(30), model=tiny_model("mistral", sliding_window=window))
    found = engine.sample(ROWS, group_size=2, list_length=2, constrained=False)
    for place, (tokens, length) in enumerate(zip(found.tokens, found.lengths.tolist(), strict=True)):
        prompt = engine.policy.prompter.encode(ROWS[place // 2])
        wanted = token_logps(engine.policy.model, prompt, tuple(tokens[:length].tolist()), None)
        np.testing.assert_allclose(found.logps[place, :length], wanted, atol=1e-5)


def test_short_prompts_of_a_model_with_a_window_are_shared(said):
    engine = make_engine(random_paths(30), model=tiny_model("mistral", sliding_window=64), task="next")
    assert not isinstance(engine.prompt_cache([np.arange(3, 9)], 1), UncachedPrompts)
    assert said == []
    assert isinstance(engine.prompt_cache([np.arange(3, 9), np.arange(70) % 30 + 3], 1), UncachedPrompts)
    assert said == [
        "MistralForCausalLM does not share prompts among their continuations, which is slower: "
        "it looks back 64 tokens only (sliding window)."
    ]


def test_the_reason_is_named_once(said):
    for _ in range(2):
        make_engine(random_paths(30), model=tiny_model("bloom"))
    (line,) = said
    assert line.startswith("BloomForCausalLM does not share prompts among their continuations, which is slower: ")
    assert "Error" in line or "cannot be replaced" in line


def test_windows_are_read_off_the_configuration():
    assert sharing_limit(tiny_model("llama")) is None
    assert sharing_limit(tiny_model("qwen2")) is None
    assert sharing_limit(tiny_model("mistral", sliding_window=None)) is None
    model = tiny_model("mistral", sliding_window=8)
    assert sharing_limit(model).tokens == 8
    assert obstacle_to_sharing(model) == "it looks back 8 tokens only (sliding window)"
    model.config.layer_types = ["full_attention", "full_attention"]
    assert sharing_limit(model) is None
    model.config.layer_types = ["full_attention", "sliding_attention"]
    assert sharing_limit(model).tokens == 8
    assert (beyond_limit(model, 8), beyond_limit(model, 9)) == (False, True)


LONG = {
    "rope_type": "longrope",
    "rope_theta": 10000.0,
    "short_factor": [1.0] * 4,
    "long_factor": [1.0, 2.0, 4.0, 8.0],
    "original_max_position_embeddings": 24,
    "factor": 8.0,
}


def test_positions_that_depend_on_the_longest_sequence_share_no_prompts_beyond_what_they_were_trained_on(said):
    model = tiny_model("llama", rope_parameters=LONG)
    assert obstacle_to_sharing(model) == "" and sharing_limit(model).tokens == 24
    engine = make_engine(random_paths(30), model=model, exclude_history=True)
    sizes = (2, 29, 11, 28, 27)  # no title begins before the limit and ends beyond it
    histories = [np.random.default_rng(size).integers(0, 30, size=size).tolist() for size in sizes]
    rows = [row(place, history) for place, history in enumerate(histories)]
    items, scores, _ = engine.exact(rows, size=5, scoring="full")
    for one, found, values in zip(rows, items.tolist(), scores.tolist(), strict=True):
        wanted = every_score(engine, one, one.history.tolist(), "full")[:5]
        assert found == [item for item, _ in wanted]
        np.testing.assert_allclose(values, [score for _, score in wanted], atol=1e-5)
    assert ["beyond 24 tokens" in line for line in said] == [True]


def test_the_limit_of_scaled_positions_is_read_off_the_configuration():
    dynamic = {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 4.0}
    assert sharing_limit(tiny_model("llama", rope_parameters=dynamic, max_position_embeddings=64)).tokens == 64
    model = tiny_model("llama", rope_parameters=LONG)
    model.config.rope_parameters = {"full_attention": LONG, "sliding_attention": {"rope_type": "default"}}
    assert sharing_limit(model).tokens == 24


def test_queries_scaled_by_their_place_share_no_prompts():
    model = tiny_model("llama")
    model.config.attn_temperature_tuning = True  # Llama 4's
    assert obstacle_to_sharing(model).startswith("it scales tokens by their place in a pass")
