from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from accelerate.utils import convert_outputs_to_fp32

from recalign.decoding import compatibility
from recalign.decoding import shared_attention as attention
from recalign.decoding.compatibility import obstacle_to_sharing
from recalign.decoding.prompt_cache import Cost, SharedPromptCache
from recalign.decoding.shared_attention import own, shared
from recalign.decoding.uncached import UncachedPrompts
from tests.decoding.architectures import ARCHITECTURES
from tests.decoding.doubles import VOCABULARY, make_engine, random_paths, row, tiny_model

NAMED = {each.name: each for each in ARCHITECTURES}


def prompts(common=0):
    generator = np.random.default_rng(0)
    head = generator.integers(0, VOCABULARY, size=common)
    return [np.concatenate([head, generator.integers(0, VOCABULARY, size=length)]) for length in (5, 1, 8)]


@pytest.mark.parametrize("kind", ["llama", "qwen2", "gpt2", "Gemma 2", "GPT-OSS", "StableLM"])
@pytest.mark.parametrize(("branching", "pruned"), [(True, False), (True, True), (False, False)])
@pytest.mark.parametrize("common", [0, 20])
@pytest.mark.parametrize("row_by_row", [True, False])
@torch.no_grad()
def test_shared_prompts_give_the_logits_of_full_forward_passes(
    kind, branching, pruned, common, row_by_row, monkeypatch
):
    monkeypatch.setattr(attention, "ROW_BY_ROW", {"cpu"} if row_by_row else set())
    model = NAMED[kind].model() if kind in NAMED else tiny_model(kind)
    generator = torch.Generator().manual_seed(0)
    ours, uncached = SharedPromptCache(model, Cost()), UncachedPrompts(model, Cost(), 4096)
    segments = torch.arange(3).repeat_interleave(4) if branching else torch.arange(12)
    with shared(model):
        per_prompt = 1 if branching else 4
        first = ours.begin(prompts(common), per_prompt, branching=branching)
        wanted = with_own_attention(model, uncached.begin, prompts(common), per_prompt)
        torch.testing.assert_close(first, wanted, atol=1e-5, rtol=0)
        parents = uncached_parents = torch.full((12,), -1)
        for step in range(4):
            counts = torch.randint(1, 4, (len(segments),), generator=generator)
            tokens = torch.randint(0, VOCABULARY, (len(segments), 3), generator=generator)
            columns = torch.tensor([7, 3, 11]) if step == 2 else slice(None)
            some = {"columns": columns} if step == 2 else {}
            logits, slots = ours.extend(segments, parents, tokens, counts, **some)
            wanted, uncached_slots = with_own_attention(
                model, uncached.extend, segments, uncached_parents, tokens, counts
            )
            torch.testing.assert_close(logits, wanted[:, columns], atol=1e-5, rtol=1e-5)
            parents, uncached_parents = slots, uncached_slots
            if branching:  # beams change places: some lines fork, others end
                forks = torch.tensor([1, 1, 0, 2])
                parents, uncached_parents = (s.view(-1, 4)[:, forks].flatten() for s in (slots, uncached_slots))
                if pruned:
                    ours.prune(parents.view(-1, 4))
            if step == 1:
                retained = torch.tensor([0, 2]) if branching else torch.tensor([0, 2, 5, 6, 7])
                rows = torch.isin(segments, retained)
                parents, uncached_parents = parents[rows], uncached_parents[rows]
                segments = torch.searchsorted(retained, segments[rows])
                ours.retain(retained)
                uncached.retain(retained)


def with_own_attention(model, call, *arguments):
    with own(model):
        return call(*arguments)


def test_the_models_own_attention_comes_back():
    model = tiny_model("llama")
    before = model.config._attn_implementation
    with pytest.raises(RuntimeError, match="stop"), shared(model):
        raise RuntimeError("stop")
    assert model.config._attn_implementation == before != "recalign_shared"


def test_the_models_own_attention_is_known_within_a_use_in_a_use():
    model = tiny_model("llama")
    before = model.config._attn_implementation
    with shared(model):
        with shared(model), own(model):
            assert model.config._attn_implementation == before
        assert model.config._attn_implementation == "recalign_shared"
    assert model.config._attn_implementation == before


def test_threads_that_share_a_model_take_turns():
    model, paths, rows = tiny_model("llama"), random_paths(60), [row(i, [i, 2 * i]) for i in range(4)]
    before = model.config._attn_implementation
    alone = make_engine(paths, model=model).beam(rows, width=5, size=5)
    engines = [make_engine(paths, model=model) for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda engine: engine.beam(rows, width=5, size=5), engines * 3))
    assert all(torch.equal(items, alone[0]) for items, _ in found)
    assert model.config._attn_implementation == before
    assert not any("forward" in vars(module) for module in model.modules())


@pytest.mark.parametrize("kind", ["llama", "qwen2", "gpt2"])
def test_known_models_share_prompts(kind):
    assert obstacle_to_sharing(tiny_model(kind)) == ""
    with torch.autocast("cpu", torch.bfloat16):
        assert obstacle_to_sharing(tiny_model(kind)) == ""
    assert obstacle_to_sharing(mixed(tiny_model(kind))) == ""


def mixed(model):
    """A model as accelerate leaves it where a launcher asks for bfloat16: it hides that its logits were rounded."""
    model._original_forward = model.forward
    model.forward = convert_outputs_to_fp32(torch.autocast("cpu", torch.bfloat16)(model.forward))
    assert model(torch.ones(1, 2, dtype=torch.long)).logits.dtype == torch.float32
    return model


def test_rounding_in_half_precision_is_no_obstacle_and_tokens_that_are_misread_are(monkeypatch):
    model, walk = tiny_model("llama").to(torch.bfloat16), compatibility._walk
    noise = torch.Generator().manual_seed(0)

    def rounded(cache, model):
        logits = walk(cache, model)
        if isinstance(cache, SharedPromptCache):  # as far as SmolLM2's are, and all of a row's a little more
            logits = logits + 0.07 * logits.std() * torch.randn(logits.shape, generator=noise) + 0.2 * logits.std()
        return logits

    def misread(cache, model):
        logits = walk(cache, model)
        return logits[[0, 1, 3, 2, 4, 5, 6, 7]] if isinstance(cache, SharedPromptCache) else logits

    monkeypatch.setattr(compatibility, "_walk", rounded)
    assert obstacle_to_sharing(model) == ""
    monkeypatch.setattr(compatibility, "_walk", misread)
    assert "its logits would differ by" in obstacle_to_sharing(model)


@torch.no_grad()
def test_what_all_prompts_begin_with_is_encoded_once():
    model = tiny_model("llama")
    tokens = []
    handle = model.model.embed_tokens.register_forward_hook(lambda _, inputs, __: tokens.append(inputs[0].numel()))
    with shared(model):
        SharedPromptCache(model, Cost()).begin(prompts(common=20))
    handle.remove()
    assert sum(tokens) == 20 + 5 + 1 + 8


@pytest.mark.parametrize("lengths", [(1,), (1, 1), (2, 1)])
@torch.no_grad()
def test_prompts_of_a_token_or_two_are_read(lengths):
    model = tiny_model("llama")
    short = [np.arange(length) + 3 for length in lengths]
    with shared(model):
        found = SharedPromptCache(model, Cost()).begin(short)
    torch.testing.assert_close(found, UncachedPrompts(model, Cost(), 4096).begin(short), atol=1e-5, rtol=0)


@torch.no_grad()
def test_slots_of_pruned_tokens_are_used_again():
    model = tiny_model("llama")
    context = SharedPromptCache(model, Cost())
    segments, one = torch.zeros(4, dtype=torch.long), torch.ones(4, dtype=torch.long)
    with shared(model):
        context.begin(prompts()[:1], branching=True)
        _, parents = context.extend(segments, torch.full((4,), -1), torch.arange(4)[:, None], one)
        context.prune(parents[None, 1:3])
        _, slots = context.extend(segments, parents[[1, 1, 2, 2]], torch.arange(4)[:, None], one)
    assert slots.tolist() == [0, 3, 4, 5]
