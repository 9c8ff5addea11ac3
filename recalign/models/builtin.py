"""Built-in models, made from a configuration and trained from scratch: `builtin:tiny`, a small Llama."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from pydantic import Field
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerBase

from recalign.data.catalogue import Catalogue
from recalign.data.questions import PARTS
from recalign.errors import UserError, did_you_mean
from recalign.models.gguf import PACKAGED
from recalign.models.tokenizers import train_tokenizer
from recalign.params import Params, build_params, parse_assignments
from recalign.tasks import find_task
from recalign.text.prompts import Template
from recalign.text.question_prompts import ShownItem

PREFIX = "builtin:"


class TinyParams(Params):
    """Size of `builtin:tiny`; written as `builtin:tiny,hidden=128,layers=4`."""

    hidden: int = Field(64, ge=8, description="width of the residual stream")
    layers: int = Field(2, ge=1, description="transformer layers")
    heads: int = Field(4, ge=1, description="attention heads; must divide the width")
    feed_forward: int = Field(0, ge=0, description="width of the gated feed-forward layers; 0: twice the width")
    context: int = Field(2048, ge=8, description="maximum number of tokens of prompt and response together")
    tied: bool = Field(True, description="one matrix for input and output embeddings; learns better at this size")
    tokenizer: Literal["word", "bpe"] = Field("word", description="tokens are whole words, or byte-level BPE")
    vocabulary: int = Field(0, ge=0, description="maximum size of the vocabulary; 0: every word, or 4,000 of BPE")


def is_from_scratch(name: object) -> bool:
    """Whether a model's name is one of ours that is made from scratch, not loaded."""
    return str(name).startswith(PREFIX) and str(name) not in PACKAGED


def parse_builtin(name: str) -> TinyParams:
    """Read `builtin:tiny` or `builtin:tiny,hidden=128,layers=4`.

    Raises:
        UserError: no such built-in model, or parameters that it refuses.
    """
    kind, *options = name.removeprefix(PREFIX).split(",")
    if kind != "tiny":
        known = [PREFIX + "tiny", *PACKAGED]
        raise UserError(f"There is no built-in model '{PREFIX}{kind}'.", did_you_mean(PREFIX + kind, known))
    params = build_params(TinyParams, parse_assignments(options), f"model '{PREFIX}tiny'")
    if params.hidden % (2 * params.heads):
        raise UserError(
            f"builtin:tiny: hidden={params.hidden} does not divide into {params.heads} heads of even width.",
            "Rotary positions need hidden / heads to be an even number.",
        )
    return params


def builtin_tokenizer(
    params: TinyParams, catalogue: Catalogue, identifier: str, template: Template, task: str, texts: Sequence[str] = ()
) -> PreTrainedTokenizerBase:
    """Train the tokenizer: on titles, where they are written, and on the words of a text template and of the task.

    Args:
        params: which kind of tokenizer.
        catalogue: the items.
        identifier: how items are written.
        template: of prompts.
        task: whose responses have words of their own.
        texts: what else has to be written.
    """
    titles = list(catalogue.titles) if identifier == "title" or template.titles else []
    texts = [*titles, *find_task(task).words, *texts]
    if template.source is not None:
        some = dict(candidates=[], task=task, list_length=1)
        # Titles as the template has them too: a word after a quotation mark is another token than one after a space.
        texts += [template.render(history=history, **some) for history in ([], titles or ["", ""])]
        if find_task(task).words:
            shown = [ShownItem(*each) for each in zip(catalogue.titles, catalogue.genres, catalogue.texts, strict=True)]
            question = dict(candidate=shown[0], parts=PARTS, answers=find_task(task).words)
            texts += [template.render(history=history, **some, **question) for history in ([], shown)]
    return train_tokenizer(texts, params.tokenizer, params.vocabulary or None)


def builtin_model(params: TinyParams, tokenizer: PreTrainedTokenizerBase, seed: int) -> LlamaForCausalLM:
    """Make the model with every matrix drawn from a normal distribution of standard deviation 1 / sqrt(fan_in).

    Hugging Face's constant 0.02 suits widths in the thousands; at a width of 64 it leaves every layer nearly switched
    off, and what is learned in a few epochs is about halved.
    """
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=params.hidden,
        intermediate_size=params.feed_forward or 2 * params.hidden,
        num_hidden_layers=params.layers,
        num_attention_heads=params.heads,
        num_key_value_heads=params.heads,
        max_position_embeddings=params.context,
        tie_word_embeddings=params.tied,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model = LlamaForCausalLM(config)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, (nn.Linear, nn.Embedding)):
                fan_in = module.weight.shape[1]
                module.weight.normal_(0.0, 1.0 / math.sqrt(fan_in), generator=generator)
    return model
