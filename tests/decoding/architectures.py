"""Tiny random models of many architectures, and what the table of docs/models.md says of each."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from tests.decoding.doubles import END, VOCABULARY

SHAPE = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "bos_token_id": 0,
    "eos_token_id": END,
    "pad_token_id": END,
}
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
YARN = {"rope_type": "llama3", "rope_theta": 10000.0, "factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}


@dataclass(frozen=True)
class Architecture:
    """One of the architectures that are compared.

    Args:
        name: as the table has it.
        kind: transformers' `model_type`.
        options: of the configuration, besides the sizes that all have.
    """

    name: str
    kind: str
    options: dict[str, Any] = field(default_factory=dict)

    def model(self) -> PreTrainedModel:
        """Return a random model whose choices are not uniform."""
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(self.kind, **{**SHAPE, **self.options}))
        for weight in model.parameters():
            if weight.dim() > 1:
                torch.nn.init.normal_(weight, std=1.5 * weight.shape[-1] ** -0.5)
        for name, weight in model.named_parameters():
            if name.endswith("sinks"):
                torch.nn.init.normal_(weight)
        return model.eval()


ARCHITECTURES = (
    Architecture("Llama", "llama"),
    Architecture(
        "Llama 3 (scaled positions)",
        "llama",
        {"rope_parameters": {**YARN, "original_max_position_embeddings": 64}},
    ),
    Architecture("Qwen2", "qwen2"),
    Architecture("Qwen3", "qwen3", {"head_dim": 8}),
    Architecture("Qwen3 MoE", "qwen3_moe", {"head_dim": 8, **EXPERTS, "decoder_sparse_step": 1}),
    Architecture(
        "Qwen3-Next",
        "qwen3_next",
        {
            "head_dim": 8,
            **EXPERTS,
            "shared_expert_intermediate_size": 16,
            "num_hidden_layers": 4,
            "linear_num_value_heads": 4,
            "linear_num_key_heads": 2,
            "linear_key_head_dim": 8,
            "linear_value_head_dim": 8,
        },
    ),  # fmt: skip
    Architecture("Mistral", "mistral", {"sliding_window": None}),
    Architecture("Mixtral", "mixtral", {"num_local_experts": 4, "num_experts_per_tok": 2}),
    Architecture("Gemma", "gemma", {"head_dim": 8}),
    Architecture("Gemma 2", "gemma2", {"head_dim": 8, "query_pre_attn_scalar": 8, "attn_logit_softcapping": 2.0}),
    Architecture("Gemma 3", "gemma3_text", {"head_dim": 8, "query_pre_attn_scalar": 8}),
    Architecture("Phi", "phi"),
    Architecture("Phi 3", "phi3"),
    Architecture("OLMo 2", "olmo2"),
    Architecture("Granite", "granite"),
    Architecture("SmolLM3", "smollm3"),
    Architecture("Cohere", "cohere"),
    Architecture("StarCoder2", "starcoder2"),
    Architecture("GPT-2", "gpt2", {"n_embd": 32, "n_layer": 2, "n_head": 4}),
    Architecture("GPT-NeoX", "gpt_neox"),
    Architecture("OPT", "opt", {"ffn_dim": 48, "word_embed_proj_dim": 32}),
    Architecture("GLM-4", "glm4", {"head_dim": 8}),
    Architecture("ERNIE 4.5", "ernie4_5", {"head_dim": 8}),
    Architecture("LFM2", "lfm2", {"layer_types": ["conv", "full_attention"], "block_multiple_of": 16}),
    Architecture(
        "EXAONE 4",
        "exaone4",
        {"layer_types": ["full_attention"] * 2, "sliding_window": None, "sliding_window_pattern": None},
    ),
    Architecture("Hunyuan", "hunyuan_v1_dense", {"head_dim": 8}),
    Architecture("StableLM", "stablelm"),
    Architecture("Falcon", "falcon", {"new_decoder_architecture": True, "num_kv_heads": 2}),
    Architecture("GPT-OSS", "gpt_oss", {"head_dim": 8, "num_local_experts": 4, "num_experts_per_tok": 2}),
    Architecture("Bloom", "bloom", {"n_layer": 2, "n_head": 4}),
    Architecture("Mamba", "mamba", {"state_size": 8, "time_step_rank": 4}),
)
