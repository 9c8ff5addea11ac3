import numpy as np
import pytest
import torch
from transformers import Gemma2Config, Gemma2ForCausalLM

from recalign.generation.attention import shared
from recalign.generation.context import Cost, PlainContext, SharedContext
from recalign.generation.probe import obstacle_to_sharing
from tests.generation.doubles import VOCABULARY, tiny_model


def prompts():
    return [np.random.default_rng(i).integers(0, VOCABULARY, size=length) for i, length in enumerate((5, 11, 8))]


@pytest.mark.parametrize("kind", ["llama", "qwen2", "gpt2"])
@pytest.mark.parametrize("branching", [True, False])
@torch.no_grad()
def test_shared_prompts_give_the_logits_of_full_forward_passes(kind, branching):
    model = tiny_model(kind)
    generator = torch.Generator().manual_seed(0)
    ours, plain = SharedContext(model, Cost()), PlainContext(model, Cost(), 4096)
    segments = torch.arange(3).repeat_interleave(4) if branching else torch.arange(12)
    with shared(model):
        first = ours.begin(prompts(), 1 if branching else 4, branching=branching)
        torch.testing.assert_close(first, plain_begin(plain, model, 1 if branching else 4), atol=1e-5, rtol=0)
        parents = torch.full((12,), -1)
        for step in range(4):
            counts = torch.randint(1, 4, (len(segments),), generator=generator)
            tokens = torch.randint(0, VOCABULARY, (len(segments), 3), generator=generator)
            logits, slots = ours.extend(segments, parents, tokens, counts)
            wanted, plain_slots = with_own_attention(model, plain.extend, segments, parents, tokens, counts)
            torch.testing.assert_close(logits, wanted, atol=1e-5, rtol=0)
            assert slots.tolist() == plain_slots.tolist()
            parents = slots
            if branching:  # beams change places: some lines fork, others end
                parents = slots.view(-1, 4)[:, torch.tensor([1, 1, 0, 2])].flatten()
            if step == 1:
                kept = torch.tensor([0, 2]) if branching else torch.tensor([0, 2, 5, 6, 7])
                rows = torch.isin(segments, kept)
                parents, segments = parents[rows], torch.searchsorted(kept, segments[rows])
                ours.keep(kept)
                plain.keep(kept)


def with_own_attention(model, call, *arguments):
    with_shared = model.config._attn_implementation
    model.set_attn_implementation("sdpa")
    try:
        return call(*arguments)
    finally:
        model.set_attn_implementation(with_shared)


def plain_begin(plain, model, segments):
    return with_own_attention(model, plain.begin, prompts(), segments)


def test_the_models_own_attention_comes_back():
    model = tiny_model("llama")
    before = model.config._attn_implementation
    with pytest.raises(RuntimeError, match="stop"), shared(model):
        raise RuntimeError("stop")
    assert model.config._attn_implementation == before != "recalign_shared"


@pytest.mark.parametrize("kind", ["llama", "qwen2", "gpt2"])
def test_known_models_share_prompts(kind):
    assert obstacle_to_sharing(tiny_model(kind)) == ""


def test_a_model_that_caps_its_scores_is_found_out():
    config = Gemma2Config(
        vocab_size=VOCABULARY, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=8, bos_token_id=0, eos_token_id=1,
    )  # fmt: skip
    assert "caps scores" in obstacle_to_sharing(Gemma2ForCausalLM(config))
