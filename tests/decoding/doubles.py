"""Tiny random models bound to made-up catalogues, without tokenizers or datasets."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from transformers import (
    BloomConfig,
    BloomForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from recalign.data.catalogue import Catalogue
from recalign.data.dataset import Row
from recalign.decoding.constraint import ListConstraint, State
from recalign.decoding.engine import PolicyEngine
from recalign.text.item_tokens import TitleTokens
from recalign.text.trie_cache import CachedTrie, cached_trie

VOCABULARY = 41
END, SEPARATOR = 1, 2


def tiny_model(kind: str, seed: int = 0, vocabulary: int = VOCABULARY, **options) -> PreTrainedModel:
    """A random model whose weights have standard deviation 1/sqrt(fan_in), so that its choices are not uniform."""
    shape = {
        "vocab_size": vocabulary,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "bos_token_id": 0,
        "eos_token_id": END,
        **options,
    }
    torch.manual_seed(seed)
    if kind == "llama":
        model = LlamaForCausalLM(LlamaConfig(**shape))
    elif kind == "qwen2":
        model = Qwen2ForCausalLM(Qwen2Config(**shape))
    elif kind == "mistral":
        model = MistralForCausalLM(MistralConfig(**shape))
    elif kind == "bloom":  # knows places by a bias on its attention, and takes no positions
        model = BloomForCausalLM(BloomConfig(vocab_size=vocabulary, hidden_size=32, n_layer=2, n_head=4))
    else:
        gpt2 = GPT2Config(vocab_size=vocabulary, n_embd=32, n_layer=2, n_head=4, bos_token_id=0, eos_token_id=END)
        model = GPT2LMHeadModel(gpt2)
    for weight in model.parameters():
        if weight.dim() > 1:
            torch.nn.init.normal_(weight, std=1.5 * weight.shape[1] ** -0.5)
    return model.eval()


@dataclass
class DirectPrompter:
    """A prompt is token 0 and one token an item of the history."""

    vocabulary: int = VOCABULARY
    task: str = "list"
    list_length: int = 5

    def encode(self, row: Row) -> np.ndarray:
        return np.concatenate([[0], 3 + np.asarray(row.history, dtype=np.int64) % (self.vocabulary - 3)])


@dataclass
class DirectPolicy:
    """What the engine reads of a policy."""

    model: PreTrainedModel
    titles: TitleTokens
    prompter: DirectPrompter
    tokenizer: None = None

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    @property
    def cached_trie(self) -> CachedTrie:
        return cached_trie(self.titles, None)


def random_paths(count: int, seed: int = 0, longest: int = 5, width: int = 8) -> list[np.ndarray]:
    """Distinct titles over few tokens, so that they share prefixes and some begin others."""
    generator = np.random.default_rng(seed)
    found: dict[tuple[int, ...], None] = {}
    while len(found) < count:
        found[tuple(generator.integers(3, 3 + width, size=generator.integers(1, longest + 1)).tolist())] = None
    return [np.array(path) for path in found]


def catalogue_of(paths: list[np.ndarray]) -> Catalogue:
    names = [" ".join(map(str, path)) for path in paths]
    return Catalogue(
        [str(i) for i in range(len(paths))],
        names,
        [(f"g{i % 3}",) for i in range(len(paths))],
        [""] * len(paths),
        np.ones(len(paths), np.int64),
    )


def row(index: int, history: list[int], candidates: list[int] | None = None) -> Row:
    return Row(
        index=index,
        user_id=str(index),
        history=np.array(history, dtype=np.int64),
        targets=np.array([0]),
        gains=np.array([1.0]),
        timestamp=0.0,
        candidates=None if candidates is None else np.array(candidates),
    )


def make_engine(
    paths: list[np.ndarray],
    *,
    kind: str = "llama",
    separator: tuple[int, ...] = (SEPARATOR,),
    exclude_history: bool = False,
    model: PreTrainedModel | None = None,
    token_budget: int = 32768,
    task: str = "list",
) -> PolicyEngine:
    titles = TitleTokens(paths=paths, separator=np.array(separator, dtype=np.int64), end=END)
    policy = DirectPolicy(model or tiny_model(kind), titles, DirectPrompter(task=task))
    return PolicyEngine(policy, catalogue_of(paths), exclude_history=exclude_history, token_budget=token_budget)


def valid_mask(constraint: ListConstraint, state: State) -> torch.Tensor:
    """The valid next tokens as a mask: bool [N, V]."""
    choices = constraint.valid_tokens(state)
    mask = torch.zeros(len(state), constraint.vocabulary_size, dtype=torch.bool)
    rows = torch.arange(len(state))[:, None].expand_as(choices.tokens)
    mask[rows[choices.valid], choices.tokens[choices.valid]] = True
    return mask
