"""Low-rank adapters: attach to a base model, refer back to the model before alignment, merge."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from peft import (
    LoraConfig,
    PeftModel,
    get_peft_model,
    get_peft_model_state_dict,
    set_peft_model_state_dict,
)
from torch import nn
from transformers import PreTrainedModel

from recalign.errors import UserError
from recalign.models.modules import PLACE, attached, swapped

REFERENCE = "reference"


@dataclass(frozen=True)
class LoraOptions:
    """What `--lora`, `--lora-rank`, `--lora-alpha` and `--lora-target` say.

    Args:
        rank: width of the adapter's matrices.
        alpha: the adapter's output is scaled by alpha / rank.
        target: names of the linear layers to adapt, or ("all-linear",).
        dropout: on the adapter's input.
    """

    rank: int = 16
    alpha: float = 32.0
    target: tuple[str, ...] = ("all-linear",)
    dropout: float = 0.0


def attach_adapter(model: PreTrainedModel, options: LoraOptions, new_tokens: Sequence[int]) -> PeftModel:
    """Freeze a model and attach an adapter; the embeddings of tokens that were added are trained beside it.

    Raises:
        UserError: the model has no layers of these names.
    """
    trainable = None
    if new_tokens:
        trainable = {_name_of(model, model.get_input_embeddings()): list(new_tokens)}
        if not model.config.tie_word_embeddings:
            trainable[_name_of(model, model.get_output_embeddings())] = list(new_tokens)
    config = LoraConfig(
        task_type="CAUSAL_LM",
        r=options.rank,
        lora_alpha=options.alpha,
        lora_dropout=options.dropout,
        target_modules=options.target[0] if options.target == ("all-linear",) else list(options.target),
        trainable_token_indices=trainable,
    )
    try:
        return get_peft_model(model, config)
    except ValueError as error:
        linear = {name.rsplit(".", 1)[-1] for name, module in model.named_modules() if isinstance(module, nn.Linear)}
        raise UserError(
            f"LoRA cannot be attached to {', '.join(options.target)}: {error}",
            f"Linear layers of this model: {', '.join(sorted(linear))}; or all-linear.",
        ) from None


def load_adapter(base: PreTrainedModel, folder: Path, *, trainable: bool) -> PeftModel:
    """Load a saved adapter onto its base; a trainable one keeps a frozen copy of itself for `reference_model`."""
    model = PeftModel.from_pretrained(base, folder, is_trainable=trainable)
    if trainable:
        model.load_adapter(folder, REFERENCE, is_trainable=False)
        model.set_adapter("default")
    return model


def reference_model(model: PreTrainedModel | PeftModel) -> Callable[[], contextlib.AbstractContextManager[nn.Module]]:
    """Take the policy as it is now, before any update, as the reference policy.

    Returns:
        A factory of context managers: `with reference() as model:` yields the reference. Where an adapter is trained,
        that is the same model with the adapter off, or with a frozen copy of the adapter that it started from, and a
        frozen copy of the modules beside it; else it is a frozen copy of the model.
    """
    if not isinstance(model, PeftModel):
        frozen = copy.deepcopy(model).requires_grad_(False).eval()
        return lambda: contextlib.nullcontext(frozen)
    started_from_adapter = REFERENCE in model.peft_config
    beside = copy.deepcopy(getattr(model, PLACE)).requires_grad_(False) if attached(model) else None

    @contextlib.contextmanager
    def reference() -> Iterator[nn.Module]:
        training = model.training
        model.eval()
        try:
            with contextlib.nullcontext() if beside is None else swapped(model, beside):
                if started_from_adapter:
                    model.set_adapter(REFERENCE, inference_mode=True)
                    yield model
                else:
                    with model.disable_adapter():
                        yield model
        finally:
            if started_from_adapter:
                model.set_adapter("default")
            model.train(training)

    return reference


def renew_reference(model: PreTrainedModel | PeftModel) -> None:
    """Make an adapter as it is now the one that `reference_model` refers to; a model without one is copied there."""
    if not isinstance(model, PeftModel):
        return
    if REFERENCE not in model.peft_config:
        model.add_adapter(REFERENCE, model.peft_config["default"])
    now = get_peft_model_state_dict(model, adapter_name="default", save_embedding_layers=False)
    set_peft_model_state_dict(model, now, adapter_name=REFERENCE)
    model.set_adapter("default")
    for name, parameter in model.named_parameters():
        if f".{REFERENCE}." in name:
            parameter.requires_grad_(False)


def _name_of(model: nn.Module, wanted: nn.Module) -> str:
    return next(name for name, module in model.named_modules() if module is wanted)
