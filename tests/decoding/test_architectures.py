"""Beam search of every architecture in the table of docs/models.md: that of transformers' `generate`, fast path or not.

`python -m tests.decoding.test_architectures` prints the table.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from recalign.decoding import hidden_states
from recalign.decoding.compatibility import obstacle_to_sharing
from recalign.decoding.hidden_states import obstacle_to_tree_mask
from tests.decoding.architectures import ARCHITECTURES, Architecture
from tests.decoding.doubles import make_engine, random_paths, row, tiny_model
from tests.decoding.test_beam_search import generate

PAGE = Path(__file__).parents[2] / "docs" / "models.md"
HEAD = (
    "| architecture | beam search equals `generate` | prompts shared in decoding | in training |\n|---|---|---|---|\n"
)
NAMED = {each.name: each for each in ARCHITECTURES}
PATHS = random_paths(120, seed=4, longest=6, width=20)
ROWS = [row(i, np.random.default_rng(i).integers(0, 120, size=1 + i).tolist()) for i in range(4)]


def equals_generate(model: torch.nn.Module) -> bool:
    """Compare items, their order and their scores."""
    engine = make_engine(PATHS, model=model, exclude_history=True)
    items, scores = engine.beam(ROWS, width=6, size=6, scoring="full")
    for one, found, values in zip(ROWS, items.tolist(), scores.tolist(), strict=True):
        prompt = engine.policy.prompter.encode(one)
        wanted = generate(engine, prompt, set(one.history.tolist()), 6, "full", 0.0)
        if found != [item for item, _ in wanted] or not np.allclose(values, [score for _, score in wanted], atol=1e-4):
            return False
    return True


def line(architecture: Architecture) -> str:
    model = architecture.model()
    told = ("yes" if not obstacle else f"no: {obstacle.split(' (')[0]}" for obstacle in (obstacle_to_sharing(model),
            obstacle_to_tree_mask(model)))  # fmt: skip
    cells = [architecture.name, "yes" if equals_generate(model) else "no", *told]
    return f"| {' | '.join(cells)} |\n"


@pytest.mark.slow
def test_the_table_says_what_is_so():
    table = HEAD + "".join(map(line, ARCHITECTURES))
    assert all(cells.split(" | ")[1] == "yes" for cells in table.splitlines()[2:])
    assert table in PAGE.read_text(encoding="utf-8"), table


@pytest.mark.parametrize("name", ["Gemma 2", "GPT-OSS", "StableLM"])
def test_scores_that_are_capped_sinks_and_layers_that_hand_nothing_on_share_prompts(name):
    model = NAMED[name].model()
    assert (obstacle_to_sharing(model), obstacle_to_tree_mask(model)) == ("", "")
    assert equals_generate(model)


def test_values_may_be_narrower_than_keys():
    sizes = {"q_lora_rank": 16, "kv_lora_rank": 16, "qk_rope_head_dim": 4, "qk_nope_head_dim": 8, "v_head_dim": 6}
    dense = {"first_k_dense_replace": 2, "num_key_value_heads": 4}
    model = Architecture("DeepSeek-V3", "deepseek_v3", {**sizes, **dense}).model()
    assert (obstacle_to_sharing(model), obstacle_to_tree_mask(model)) == ("", "")
    assert equals_generate(model)


def test_a_model_that_names_no_decoder_is_trained_too():
    experts = {"num_local_experts": 2, "interleave_moe_layer_step": 1, "intermediate_size_mlp": 48, "head_dim": 8}
    model = Architecture("Llama 4", "llama4_text", {**experts, "no_rope_layers": [1, 0]}).model()
    assert "place in a pass" in obstacle_to_sharing(model)
    assert isinstance(obstacle_to_tree_mask(model), str)
    assert equals_generate(model)


@pytest.mark.parametrize(
    ("name", "decoding", "training"),
    [
        (
            "LFM2",
            "some of its layers are recurrent or convolutions",
            "some of its layers are recurrent or convolutions",
        ),
        (
            "Mamba",
            "some of its layers are recurrent or convolutions",
            "some of its layers are recurrent or convolutions",
        ),
        ("Bloom", "its attention cannot be replaced", "a mask of what each token sees"),
    ],
)
def test_a_fallback_says_its_reason_in_words(name, decoding, training):
    model = NAMED[name].model()
    said = (obstacle_to_sharing(model), obstacle_to_tree_mask(model))
    assert decoding in said[0] and training in said[1]
    assert not any("Error" in each for each in said)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_mask_that_is_read_otherwise_is_noticed_and_rounding_is_not(dtype, monkeypatch):
    model = tiny_model("llama").to(dtype)
    run = hidden_states._hidden_of_trees
    assert obstacle_to_tree_mask(model) == ""
    with torch.autocast("cpu", torch.bfloat16):  # its states are float32, and rounded
        assert obstacle_to_tree_mask(model) == ""
    if dtype == torch.bfloat16:
        noise = torch.Generator().manual_seed(0)

        def rounded(model, trees):
            hidden = run(model, trees)
            return hidden * (1 + 0.03 * torch.randn(hidden.shape, generator=noise)).to(dtype)

        monkeypatch.setattr(hidden_states, "_hidden_of_trees", rounded)
        assert obstacle_to_tree_mask(model) == ""

    def causal(model, trees):
        return run(model, replace(trees, visible=torch.ones_like(trees.visible).tril()))

    monkeypatch.setattr(hidden_states, "_hidden_of_trees", causal)
    assert obstacle_to_tree_mask(model) == "it reads a tree mask as something else"


if __name__ == "__main__":
    print(HEAD + "".join(map(line, ARCHITECTURES)), end="")
