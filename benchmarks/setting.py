"""The common ground of all benchmarks: a model, a catalogue of titles, and rows with prompts."""

from __future__ import annotations

import ast
import contextlib
import copy
import csv
import html
import json
import math
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel

from recalign.api import Catalogue, Row
from recalign.decoding.engine import PolicyEngine
from recalign.models.lora import LoraOptions, attach_adapter
from recalign.models.policy import Policy
from recalign.models.tokenizers import train_tokenizer
from recalign.models.weights import load_model, load_tokenizer
from recalign.text.item_tokens import title_tokens
from recalign.text.prompts import Prompter, load_template

OFFICE = Path(__file__).resolve().parents[2] / "shared" / "data" / "office"
BPE_TOKENS = 3300  # Office titles then have 20.7 tokens in the mean, as with Llama's tokenizer


@dataclass(frozen=True)
class Size:
    """How large the model is; the default is what the project's goals are stated for.

    Args:
        hidden: width.
        layers: transformer layers.
        vocabulary: width of the head, larger than the tokenizer's own.
        titles: most titles of the catalogue.
        training: steps of supervised warm-up, so that the model prefers some titles over others.
        pretrained: a model to take as it is, such as `builtin:smollm2`, in place of one of this shape.
        history: most items of a row's history.
        heads: attention heads; 0: of 64 channels each.
        kv_heads: heads of keys and values; 0: as many.
        feed_forward: width of the feed-forward layers; 0: 2.7 times `hidden`.
        tied: whether embeddings and head are the same weights.
        adapter: train an adapter on every linear layer in place of the weights.
        device: where the model lies.
        dtype: of what is timed; results are compared in float32.
    """

    hidden: int = 256
    layers: int = 4
    vocabulary: int = 8000
    titles: int = 10**9
    training: int = 30
    pretrained: str = ""
    history: int = 10
    heads: int = 0
    kv_heads: int = 0
    feed_forward: int = 0
    tied: bool = False
    adapter: bool = False
    device: str = "cpu"
    dtype: str = "float32"


@dataclass(frozen=True)
class Setting:
    """A policy with rows to answer.

    Args:
        policy: model, tokenizer, titles, prompter (Alpaca template).
        catalogue: the items.
        train: rows of the training split.
        test: rows of the test split.
        source: where the titles come from.
        dtype: of what is timed; the policy's weights are float32.
        adapter: whether an adapter is trained in place of the weights.
    """

    policy: Policy
    catalogue: Catalogue
    train: list[Row]
    test: list[Row]
    source: str
    dtype: torch.dtype = torch.float32
    adapter: bool = False

    @property
    def mixed(self) -> bool:
        """Whether what is timed computes in bfloat16."""
        return self.dtype != torch.float32

    @cached_property
    def as_timed(self) -> Setting:
        """The same with all weights in the dtype that is timed."""
        if not self.mixed:
            return self
        model = copy.deepcopy(self.policy.model)
        for parameter in model.parameters():  # not the buffers: positions need float32
            parameter.data = parameter.data.to(self.dtype)
        return replace(self, policy=replace(self.policy, model=model))

    @cached_property
    def trained(self) -> Setting:
        """The same with the weights that are trained: an adapter's, or all."""
        return self.adapted() if self.adapter else self

    @property
    def trained_as_timed(self) -> Setting:
        """The same as it is trained in the dtype that is timed: frozen weights have it, trained ones stay float32."""
        return self.as_timed.trained if self.adapter else self

    def precision(self) -> contextlib.AbstractContextManager[None]:
        """Autocast where what is timed is mixed, as our trainer has it around the passes of an update."""
        if not self.mixed:
            return contextlib.nullcontext()
        return torch.autocast(self.policy.device.type, self.dtype, cache_enabled=False)

    def prompts(self, rows: list[Row]) -> list[np.ndarray]:
        """Token ids of each row's prompt."""
        return [self.policy.prompter.encode(row) for row in rows]

    def engine(self) -> PolicyEngine:
        """A new engine that rules nothing out but what is no title."""
        return PolicyEngine(self.policy, self.catalogue, exclude_history=False)

    def adapted(self) -> Setting:
        """The same with an adapter on every linear layer, the weights below it frozen, as large models are trained."""
        torch.manual_seed(0)
        policy = self.policy
        return replace(
            self, policy=replace(policy, model=attach_adapter(copy.deepcopy(policy.model), LoraOptions(), []))
        )

    def for_lists(self, list_length: int, task: str = "") -> Setting:
        """The same for responses of several titles, or for another task."""
        task = task or ("next" if list_length == 1 else "list")
        return replace(self, policy=_bind(self.policy.model, self.policy.tokenizer, self.catalogue, task, list_length))


def make_setting(size: Size, office: Path = OFFICE, seed: int = 0) -> Setting:
    """Build the setting: Office where its files are, else generated titles of like lengths."""
    if office.is_dir():
        catalogue, train, test = read_office(office, size.titles)
        source = "Amazon Office"
    else:
        catalogue = generated_catalogue(min(size.titles, 2414), seed)
        train, test = generated_rows(len(catalogue), 2000, seed), generated_rows(len(catalogue), 200, seed + 1)
        source = "generated titles"
    train, test = ([_shortened(row, size.history) for row in rows] for rows in (train, test))
    timed = (getattr(torch, size.dtype), size.adapter)
    if size.pretrained:
        tokenizer = load_tokenizer(size.pretrained, trust_remote_code=False)
        policy = _bind(load_pretrained(size, tokenizer), tokenizer, catalogue, "next", 1)
        return Setting(policy, catalogue, train, test, source, *timed)
    template = load_template("alpaca")
    some = template.render(history=catalogue.titles[:2], candidates=[], list_length=1, task="next")
    tokenizer = train_tokenizer([*catalogue.titles, *[some] * 20], "bpe", min(BPE_TOKENS, size.vocabulary))
    policy = _bind(make_model(size, tokenizer, seed), tokenizer, catalogue, "next", 1)
    setting = Setting(policy, catalogue, train, test, source, *timed)
    warm_up(setting, size.training, seed)
    return setting


def _bind(model, tokenizer, catalogue: Catalogue, task: str, list_length: int) -> Policy:
    titles = title_tokens(catalogue, tokenizer, "title")
    prompter = Prompter("alpaca", tokenizer, catalogue, titles, task=task, list_length=list_length)
    return Policy(model, tokenizer, titles, prompter, {"base_model": "builtin:benchmark"})


def make_model(size: Size, tokenizer, seed: int) -> LlamaForCausalLM:
    """A Llama with weights of standard deviation 1 / sqrt(width), made where it will lie."""
    torch.manual_seed(seed)
    heads = size.heads or max(1, size.hidden // 64)
    config = LlamaConfig(
        vocab_size=size.vocabulary,
        hidden_size=size.hidden,
        intermediate_size=size.feed_forward or int(size.hidden * 2.7) // 16 * 16,
        num_hidden_layers=size.layers,
        num_attention_heads=heads,
        num_key_value_heads=size.kv_heads or heads,
        tie_word_embeddings=size.tied,
        max_position_embeddings=4096,
        initializer_range=1 / math.sqrt(size.hidden),
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    with torch.device(size.device):
        return LlamaForCausalLM(config).eval()


def load_pretrained(size: Size, tokenizer) -> PreTrainedModel:
    """A pretrained model in float32, frozen; padding, which TRL and `generate` want to know, is the tokenizer's."""
    model = load_model(
        size.pretrained, tokenizer, [], dtype=torch.float32, trust_remote_code=False, lora=None, trainable=False
    )
    for config in (model.config, model.generation_config):
        config.pad_token_id = tokenizer.pad_token_id
    return model.to(size.device).eval().requires_grad_(False)


def warm_up(setting: Setting, steps: int, seed: int, batch: int = 8, tail: int = 72) -> None:
    """Train a little on the ends of prompts and the answers: the last titles of a history are examples of titles."""
    model, generator = setting.policy.model, np.random.default_rng(seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    end = setting.policy.titles.end
    for _ in range(steps):
        chosen = [setting.train[i] for i in generator.choice(len(setting.train), batch)]
        sequences = []
        for row in chosen:
            prompt, answer = setting.policy.prompter.encode(row), setting.policy.titles.response(row.targets)
            sequences.append(torch.from_numpy(np.concatenate([prompt[-tail:], answer])))
        ids = torch.nn.utils.rnn.pad_sequence(sequences, batch_first=True, padding_value=end)
        inside = torch.nn.utils.rnn.pad_sequence([torch.ones(len(s), dtype=torch.bool) for s in sequences], True)
        ids, inside = ids.to(model.device), inside.to(model.device)
        loss = model(input_ids=ids, attention_mask=inside.long(), labels=ids.masked_fill(~inside, -100)).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)


def read_office(folder: Path, most: int) -> tuple[Catalogue, list[Row], list[Row]]:
    """Read the windows of Amazon Office as BEAR and MSL use them; titles that collide get a suffix."""
    names = json.loads((folder / "id2name4Rec.json").read_text("utf-8"))
    index = {int(item): place for place, item in enumerate(names) if place < most}
    titles: list[str] = []
    for name in list(names.values())[:most]:
        title = " ".join(html.unescape(name).split())  # a line's end is what separates titles
        while title in set(titles):
            title += " (2)"
        titles.append(title)
    catalogue = _catalogue([str(item) for item in index], titles)
    return catalogue, *(_office_rows(folder / f"{split}.csv", index) for split in ("train", "test"))


def _office_rows(file: Path, index: dict[int, int], most: int = 2000) -> list[Row]:
    rows: list[Row] = []
    with file.open(encoding="utf-8", newline="") as lines:
        for record in csv.DictReader(lines):
            raw = [int(item) for item in ast.literal_eval(record["item_ids"])]
            items = np.array([index[item] for item in raw if item in index], dtype=np.int64)
            if len(items) >= 2:
                rows.append(_row(len(rows), items))
            if len(rows) == most:
                break
    return rows


def _row(index: int, items: np.ndarray) -> Row:
    return Row(index, str(index), items[:-1], items[-1:], np.ones(1), 0.0)


def _shortened(row: Row, history: int) -> Row:
    """The row with the newest items of its history alone."""
    return replace(row, history=row.history[-history:])


def _catalogue(item_ids: list[str], titles: list[str]) -> Catalogue:
    count = len(titles)
    return Catalogue(item_ids, titles, [()] * count, [""] * count, np.ones(count, dtype=np.int64))


def generated_catalogue(count: int, seed: int) -> Catalogue:
    """Titles that begin with one of many brands and go on with words of a Zipf distribution."""
    generator = np.random.default_rng(seed)
    syllables = ["ba", "co", "di", "fu", "ga", "ho", "ki", "lu", "me", "no", "pa", "ri", "so", "tu", "ve", "za"]
    words = sorted({"".join(generator.choice(syllables, 1 + k % 3)) + str(k % 7) * (k % 5 == 0) for k in range(6000)})
    generator.shuffle(words)
    brands = max(10, count // 5)
    titles: dict[str, None] = {}
    while len(titles) < count:
        length = 3 + generator.poisson(6)
        brand = f"{words[generator.zipf(1.3) % brands % len(words)].title()}"
        titles[" ".join([brand, *(words[k % len(words)] for k in generator.zipf(1.2, length))])] = None
    return _catalogue([str(i) for i in range(count)], list(titles))


def generated_rows(items: int, count: int, seed: int) -> list[Row]:
    """Rows of ten items of history and one target."""
    generator = np.random.default_rng(seed)
    return [_row(index, generator.choice(items, 11, replace=False)) for index in range(count)]
