"""Where and how a model computes: device, number formats, attention, quantised weights."""

from __future__ import annotations

import contextlib
import importlib.util
import os
from dataclasses import dataclass
from typing import Any, Literal

import torch
from transformers import BitsAndBytesConfig, PreTrainedModel
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from recalign.errors import UserError, did_you_mean

Dtype = Literal["auto", "float32", "bfloat16"]
Device = Literal["auto", "cpu", "cuda", "mps"]
Quantization = Literal["4bit", "8bit"]
QUANTIZER = "bitsandbytes"
INSTALL = f"pip install {QUANTIZER}"


@dataclass(frozen=True)
class Hardware:
    """What `--device`, `--attn-implementation`, `--load-in-4bit` and `--load-in-8bit` say.

    Args:
        device: where the model computes; `auto`: a GPU where there is one.
        attn_implementation: name of the attention that transformers is to use; None: its own choice.
        quantization: bits of the frozen weights of linear layers (QLoRA, Dettmers et al., 2023: NF4 of 4 bits, their
            scales quantised too; or LLM.int8); None: none are quantised.
    """

    device: Device = "auto"
    attn_implementation: str | None = None
    quantization: Quantization | None = None

    def place(self) -> torch.device:
        """Return this process's device.

        Raises:
            UserError: there is no such device here.
        """
        if self.device == "auto":
            return default_device()
        here = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
        if not here[self.device]:
            usable = [name for name, usable in here.items() if usable]
            raise UserError(
                f"--device {self.device}: there is none here (PyTorch {torch.__version__}).",
                f"Use {' or '.join(usable)}. A GPU needs its driver and a build of PyTorch for it.",
            )
        return default_device() if self.device == "cuda" else torch.device(self.device)

    def quantized_loading(self, dtype: torch.dtype) -> dict[str, Any]:
        """Return what `from_pretrained` is to be told about quantised weights.

        Args:
            dtype: what products are computed in.

        Raises:
            UserError: the library is not installed.
        """
        if self.quantization is None:
            return {}
        if importlib.util.find_spec(QUANTIZER) is None:
            raise UserError(f"--load-in-{self.quantization} needs the package {QUANTIZER}.", INSTALL)
        config = BitsAndBytesConfig(
            load_in_4bit=self.quantization == "4bit",
            load_in_8bit=self.quantization == "8bit",
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=dtype,
        )
        return {"quantization_config": config, "device_map": {"": self.place()}}


ANY = Hardware()
"""What there is: a GPU if any, transformers' own attention, whole weights."""


def keep_differentiable(model: PreTrainedModel) -> None:
    """Keep layers of 4 bits from the layout that bitsandbytes gives them on some CPUs once they have been evaluated.

    Its product has no gradient: after a validation, layers below would learn nothing. It rounds to bfloat16 besides.
    """
    from bitsandbytes.nn import Linear4bit

    for module in model.modules():
        if isinstance(module, Linear4bit):
            module.support_avx512bf16_for_cpu = False


def default_device() -> torch.device:
    """Return this process's GPU, or the CPU.

    cuDNN's attention is turned off for the process: it gives keys NaN as their gradient where a token sees nothing, as
    padding on the left does, and the sequence is a multiple of 64 long (PyTorch 2.11, cuDNN 9.19, bfloat16, H100).
    """
    if torch.cuda.is_available():
        torch.backends.cuda.enable_cudnn_sdp(False)
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    return torch.device("cpu")


def resolve_dtype(dtype: Dtype, device: torch.device, *, full_training: bool) -> torch.dtype:
    """Return the weights' type; full fine-tuning keeps float32 weights (and computes in bfloat16 under autocast)."""
    if dtype == "auto":
        has_bfloat16 = device.type == "cuda" and torch.cuda.is_bf16_supported()
        return torch.bfloat16 if has_bfloat16 and not full_training else torch.float32
    return torch.float32 if dtype == "float32" else torch.bfloat16


def mixes_bfloat16(device: torch.device, weights: torch.dtype) -> bool:
    """Whether products of float32 weights are computed in bfloat16 in training: on a GPU that has it."""
    return device.type == "cuda" and weights == torch.float32 and torch.cuda.is_bf16_supported()


def mixed_precision(device: torch.device, weights: torch.dtype) -> contextlib.AbstractContextManager[Any]:
    """Compute products in bfloat16 where that is mixed in (autocast), whatever part of a model computes them.

    Weights are cast anew in every forward pass, so that none that learns is given a cast made without gradients.
    """
    if not mixes_bfloat16(device, weights):
        return contextlib.nullcontext()
    return torch.autocast(device.type, torch.bfloat16, cache_enabled=False)


def use_attention(model: PreTrainedModel, name: str | None) -> None:
    """Let a model attend by one of transformers' implementations.

    Raises:
        UserError: there is none of this name, its package is not installed, or the model does not take it.
    """
    if name is None:
        return
    known = ["eager", *ALL_ATTENTION_FUNCTIONS.valid_keys()]
    usual = [each for each in known if "|" not in each and "recalign" not in each]
    if name not in usual:
        raise UserError(f"--attn-implementation '{name}' is not known to transformers.", did_you_mean(name, usual))
    try:
        model.set_attn_implementation(name)
    except (ImportError, ValueError) as error:
        raise UserError(
            f"--attn-implementation {name} cannot be used: {' '.join(str(error).split())}",
            "Install what it needs, or leave it out: sdpa comes with PyTorch.",
        ) from None
    if model.config._attn_implementation != name:
        raise UserError(
            f"--attn-implementation {name}: {type(model).__name__} keeps {model.config._attn_implementation}.",
            "Leave it out.",
        )
