"""Models bound to a catalogue: loading, saving and exporting policies."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from recalign.api import Backbone
from recalign.data.dataset import PreparedDataset
from recalign.data.questions import Answering
from recalign.errors import UserError
from recalign.models.builtin import builtin_model, builtin_tokenizer, is_from_scratch, parse_builtin
from recalign.models.gguf import PACKAGED
from recalign.models.hardware import ANY, Dtype, Hardware, resolve_dtype, use_attention
from recalign.models.item_embeddings import (
    attach_backbone,
    backbone_settings,
    check_identifier,
)
from recalign.models.lora import LoraOptions, reference_model
from recalign.models.modules import attach, attached, module_names
from recalign.models.settings import SETTINGS_FILE, check_recorded, is_transfer, recorded_settings
from recalign.models.tokenizers import add_item_tokens
from recalign.models.weights import (
    ADAPTER,
    find_model,
    load_model,
    load_tokenizer,
    quieten_libraries,
    save_weights,
    share_cores,
)
from recalign.tasks import find_task
from recalign.text.chat_templates import DATE, Scalar
from recalign.text.item_tokens import TitleTokens, title_tokens
from recalign.text.prompts import TEMPLATES, Prompter, Template, load_template
from recalign.text.trie_cache import FOLDER as TRIES
from recalign.text.trie_cache import CachedTrie, cached_trie
from recalign.workspace import atomic, write_json


@dataclass
class Policy:
    """A model bound to a dataset's catalogue.

    Args:
        model: the causal language model, possibly with an adapter.
        tokenizer: its tokenizer.
        titles: how the catalogue's items are written in tokens.
        prompter: how rows become prompts.
        settings: what `recalign.json` records.
        trie_folder: where the title trie is cached, or None.
        folder: what it was loaded from, or None.
    """

    model: PreTrainedModel  # or a PeftModel around one, which answers alike
    tokenizer: PreTrainedTokenizerBase
    titles: TitleTokens
    prompter: Prompter
    settings: dict[str, Any] = field(default_factory=dict)
    trie_folder: Path | None = None
    folder: Path | None = None

    @property
    def device(self) -> torch.device:
        """Where the model's parameters are."""
        return next(self.model.parameters()).device

    @property
    def vocabulary_size(self) -> int:
        """V: how many logits the model gives a position."""
        return int(self.model.get_output_embeddings().weight.shape[0])

    @cached_property
    def cached_trie(self) -> CachedTrie:
        """The catalogue's titles as a tree, read or built when it is first asked for."""
        return cached_trie(self.titles, self.trie_folder)

    @property
    def from_scratch(self) -> bool:
        """Whether the weights started from random numbers."""
        return is_from_scratch(self.settings["base_model"])

    def attach(self, modules: Mapping[str, Callable[[int], nn.Module]], seed: int = 0) -> dict[str, nn.Module]:
        """Put trained modules beside the model, with the weights that its folder has for them.

        Args:
            modules: name -> what makes the module for a width of hidden states.
            seed: of new weights.

        Raises:
            UserError: the folder's weights belong to modules of another shape.
        """
        return {name: attach(self.model, name, make, seed=seed, folder=self.folder) for name, make in modules.items()}

    def has_module(self, name: str) -> bool:
        """Whether a trained module of a name stands beside the model, or lies in the folder that it comes from."""
        return name in self.module_names

    @property
    def module_names(self) -> frozenset[str]:
        """Names of the trained modules beside the model, and of those in the folder that it comes from."""
        lying = frozenset() if self.folder is None else module_names(self.folder)
        return lying.union(attached(self.model))

    @property
    def answering(self) -> Answering:
        """How the model answers questions about candidates, as it was trained to."""
        return Answering.of(self.settings.get("answering"))

    def save(self, folder: Path) -> None:
        """Write a Hugging Face folder (weights or adapter, tokenizer) with `recalign.json`, all of it or nothing."""
        with atomic(Path(folder)) as temporary:
            self.save_into(temporary, self.model)

    def save_into(self, folder: Path, model: PreTrainedModel | PeftModel) -> None:
        """Write a model's files, the tokenizer and `recalign.json` into a folder as it stands."""
        save_weights(model, folder)
        self.tokenizer.save_pretrained(folder)
        write_json(Path(folder) / SETTINGS_FILE, self.settings)


def load_policy(
    name: str | Path,
    dataset: PreparedDataset,
    *,
    template: str | Path | None = None,
    template_vars: Mapping[str, Scalar] | None = None,
    lora: LoraOptions | None = None,
    trust_remote_code: bool = False,
    dtype: Dtype = "auto",
    seed: int = 0,
    trainable: bool = False,
    max_length: int | None = None,
    backbone: Backbone | None = None,
    hardware: Hardware = ANY,
    texts: Sequence[str] = (),
    transfer: bool = False,
) -> Policy:
    """Load a model and bind it to a dataset's catalogue.

    Args:
        name: a run folder of sft or align, a Hugging Face folder or hub name, a GGUF file, `builtin:smollm2`, or
            `builtin:tiny` (see `TinyParams`).
        dataset: whose catalogue it writes.
        template: prompt template; default: what the model was trained with, else `compact` for built-in models, `chat`
            for tokenizers with a chat template, `alpaca` for others.
        template_vars: variables of the template and of the model's chat template, on top of those that the model was
            trained with.
        lora: train an adapter instead of the weights.
        trust_remote_code: run code that comes with the model.
        dtype: of the weights; `auto`: bfloat16 on hardware that has it (float32 for full fine-tuning), else float32.
        seed: of new weights.
        trainable: whether it will be trained.
        max_length: maximum number of tokens of prompt and response together (default: the model's context).
        backbone: computes the embeddings of item tokens; default: the one that the model was trained with, if any.
        hardware: device, attention, and quantised weights; where it does not say, they are quantised as in training.
        texts: what a tokenizer that is made for the model must be able to write, besides titles and prompts.
        transfer: allow a dataset of another catalogue than the model was trained on, where titles are written as text.

    Raises:
        UserError: no such device, attention or quantiser; no such model, a broken or half-written one, one without
            tokenizer, one trained on another catalogue.
    """
    quieten_libraries()
    device = hardware.place()
    scratch = is_from_scratch(name)
    folder = None if scratch else find_model(name)
    source = str(name if str(name) in PACKAGED else folder or name)
    recorded = recorded_settings(folder)
    check_recorded(recorded, dataset, name, transfer=transfer)
    hardware = replace(hardware, quantization=hardware.quantization or recorded.get("quantization"))
    if scratch:
        params = parse_builtin(source)
        chosen = replace(load_template(template or "compact"), variables=dict(template_vars or {}))
        tokenizer = builtin_tokenizer(params, dataset.catalogue, dataset.identifier, chosen, dataset.task, texts)
    else:
        tokenizer = load_tokenizer(source, trust_remote_code)
        chosen = _choose_template(template, recorded, tokenizer, template_vars or {})
    new_tokens = add_item_tokens(tokenizer, dataset.catalogue, dataset.identifier)
    titles = title_tokens(dataset.catalogue, tokenizer, dataset.identifier, chosen.separator)
    if not is_transfer(recorded, dataset):
        _check_titles(recorded, titles, name)
    adapted = lora is not None or (Path(source) / ADAPTER).is_file()
    weights_dtype = resolve_dtype(dtype, device, full_training=trainable and not adapted)
    if scratch:
        _check_scratch(name, lora, hardware)
        model = builtin_model(params, tokenizer, seed).to(weights_dtype)
    else:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)  # a new adapter starts from random numbers
            model = load_model(
                source, tokenizer, new_tokens, dtype=weights_dtype, trust_remote_code=trust_remote_code, lora=lora,
                trainable=trainable, hardware=hardware,
            )  # fmt: skip
    computed = _backbone(recorded, backbone, dataset, name)
    if computed is not None:
        attach_backbone(model, computed, dataset.catalogue, titles.paths, seed=seed, folder=folder)
    _settle(model, hardware, device, trainable)
    max_length = max_length or recorded.get("max_length")
    prompter = _prompter(model, tokenizer, dataset, titles, chosen, max_length)
    settings = _settings(recorded.get("base_model", str(name)), dataset, prompter, max_length)
    kept = {"answering": recorded.get("answering"), "backbone": computed, "quantization": hardware.quantization}
    settings |= {name: value for name, value in kept.items() if value is not None}
    return Policy(model, tokenizer, titles, prompter, settings, dataset.path / TRIES, folder)


def reference_policy(policy: Policy) -> Callable[[], contextlib.AbstractContextManager[nn.Module]]:
    """Freeze the policy's present state as the reference policy.

    Returns:
        A factory of context managers: `with reference() as model:` gives the reference's model. See `reference_model`.
    """
    return reference_model(policy.model)


def _backbone(
    recorded: dict[str, Any], asked: Backbone | None, dataset: PreparedDataset, name: str | Path
) -> dict[str, Any] | None:
    """The settings of the model's backbone: that of its training, or the one asked for."""
    known = recorded.get("backbone")
    if asked is None:
        return known
    check_identifier(asked.name, dataset.identifier)
    if known not in (None, backbone_settings(asked)):
        raise UserError(
            f"{name} was trained with the backbone '{known['name']}' and {known['params']}.",
            "Leave --backbone out: the model brings its own.",
        )
    return backbone_settings(asked)


def _check_titles(recorded: dict[str, Any], titles: TitleTokens, name: str | Path) -> None:
    if recorded and recorded.get("titles") != titles.fingerprint:
        raise UserError(
            f"The tokenizer of {name} writes this catalogue with other tokens than the model was trained on.",
            "Its tokenizer files or the template changed since; train again.",
        )


def _check_scratch(name: str | Path, lora: LoraOptions | None, hardware: Hardware) -> None:
    if lora is not None or hardware.quantization is not None:
        raise UserError(
            f"{name} starts from random weights; an adapter on them learns nothing, nor do quantised ones.",
            "Leave out --lora, --load-in-4bit and --load-in-8bit.",
        )


def _settle(model: PreTrainedModel, hardware: Hardware, device: torch.device, trainable: bool) -> None:
    """Put a model where it computes, in the mode in which it does; one that nobody trains is frozen."""
    if hardware.quantization is None:  # quantised weights are where they belong
        model.to(device)
    model.train(trainable)
    if not trainable:
        model.requires_grad_(False)
    use_attention(model, hardware.attn_implementation)
    share_cores(model)


def _choose_template(
    template: str | Path | None,
    recorded: dict[str, Any],
    tokenizer: PreTrainedTokenizerBase,
    variables: Mapping[str, Scalar],
) -> Template:
    """The template asked for, or that of training; what was recorded of it holds on."""
    if template is not None:
        chosen = load_template(template)
    elif recorded.get("template_source"):
        chosen = Template(recorded["template"], recorded["template_source"])
    else:
        chosen = load_template(recorded.get("template") or ("chat" if tokenizer.chat_template else "alpaca"))
    same = chosen.name == recorded.get("template")
    kept = recorded.get("template_variables", {}) if same else {}
    return replace(chosen, variables={**kept, **variables}, today=_date(recorded.get("template_date")))


def _date(recorded: str | None) -> date:
    try:
        return date.fromisoformat(recorded) if recorded else DATE
    except (ValueError, TypeError):
        raise UserError(
            f"{SETTINGS_FILE} records template_date = {recorded!r}, which is no date.", "Write it as 2024-07-26."
        ) from None


def _prompter(
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    dataset: PreparedDataset,
    titles: TitleTokens,
    template: Template,
    max_length: int | None,
) -> Prompter:
    context = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    limits = [limit for limit in (context, max_length) if limit]
    longest = titles.longest_response(dataset.list_length)
    response = find_task(dataset.task).response_tokens(longest, min(limits)) if limits else longest
    if limits and min(limits) <= response:
        raise UserError(
            f"A response of {dataset.list_length} titles can have {response} tokens; with its prompt it may have "
            f"{min(limits)}.",
            "Raise --max-length, or prepare a shorter --list-length or atomic identifiers.",
        )
    return Prompter(
        template,
        tokenizer,
        dataset.catalogue,
        titles,
        task=dataset.task,
        list_length=dataset.list_length,
        max_tokens=min(limits) - response if limits else None,
        reserved=response,
    )


def _settings(base_model: str, dataset: PreparedDataset, prompter: Prompter, max_length: int | None) -> dict[str, Any]:
    template, chat = prompter.template, prompter.text.chat
    return {
        "format": 1,
        "base_model": base_model,
        "catalogue": dataset.catalogue.fingerprint,
        "dataset": dataset.hash,
        "measured": dataset.measured_hash,
        "identifier": dataset.identifier,
        "titles": prompter.titles.fingerprint,
        "template": template.name,
        "template_source": None if template.name in TEMPLATES else template.source,
        "template_variables": dict(template.variables),
        "template_date": template.today.isoformat() if chat is not None and chat.asks_for_the_date else None,
        "task": dataset.task,
        "list_length": dataset.list_length,
        "max_length": max_length,
    }
