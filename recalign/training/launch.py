"""What accelerate's launcher asks of training, and what training bears of it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from importlib.util import find_spec
from typing import TYPE_CHECKING, Literal

from recalign.errors import UserError

if TYPE_CHECKING:
    from recalign.models.hardware import Hardware
    from recalign.training.training_options import TrainingOptions

ASKED = {
    "ACCELERATE_USE_FSDP": "FSDP",
    "ACCELERATE_USE_DEEPSPEED": "DeepSpeed",
    "ACCELERATE_USE_MEGATRON_LM": "Megatron-LM",
}
"""What accelerate's launcher sets by `distributed_type` -> the engine."""
OPTIMIZERS = {"adamw_torch", "adamw_torch_fused", "sgd"}
"""Those that step a share of a matrix as they would step the whole."""
BORNE: dict[str, dict[str, tuple[tuple[str, ...], str, str]]] = {
    "FSDP": {
        "FSDP_VERSION": (("2",), "fsdp_version", "Write fsdp_version: 2."),
        "FSDP_OFFLOAD_PARAMS": (
            ("false", "none", ""),
            "fsdp_offload_params",
            "Write fsdp_offload_params: false; --gradient-checkpointing and --token-budget save memory.",
        ),
        "FSDP_ACTIVATION_CHECKPOINTING": (
            ("false", ""),
            "fsdp_activation_checkpointing",
            "Write fsdp_activation_checkpointing: false, and pass --gradient-checkpointing.",
        ),
        "FSDP_CPU_RAM_EFFICIENT_LOADING": (
            ("false", ""),
            "fsdp_cpu_ram_efficient_loading",
            "Write fsdp_cpu_ram_efficient_loading: false: every process reads the weights.",
        ),
        "FSDP_STATE_DICT_TYPE": (
            ("full_state_dict", ""),
            "fsdp_state_dict_type",
            "Write fsdp_state_dict_type: FULL_STATE_DICT: a checkpoint holds whole weights, whoever wrote it.",
        ),
    },
    "DeepSpeed": {
        "ACCELERATE_DEEPSPEED_ZERO_STAGE": (
            ("1", "2"),
            "zero_stage",
            "Write zero_stage: 2: weights are whole while a process computes, for it may generate. 3 shares them too.",
        ),
        "ACCELERATE_DEEPSPEED_OFFLOAD_OPTIMIZER_DEVICE": (
            ("none", ""),
            "offload_optimizer_device",
            "Write offload_optimizer_device: none.",
        ),
        "ACCELERATE_DEEPSPEED_OFFLOAD_PARAM_DEVICE": (
            ("none", ""),
            "offload_param_device",
            "Write offload_param_device: none.",
        ),
        "ACCELERATE_DEEPSPEED_CONFIG_FILE": (
            ("none", ""),
            "deepspeed_config_file",
            "Leave it out, and write zero_stage: recalign's options say the rest.",
        ),
        "ACCELERATE_GRADIENT_ACCUMULATION_STEPS": (
            ("1", "none", "auto", ""),
            "gradient_accumulation_steps",
            "Write gradient_accumulation_steps: 1, and pass --gradient-accumulation.",
        ),
        "ACCELERATE_GRADIENT_CLIPPING": (
            ("none", "auto", ""),
            "gradient_clipping",
            "Leave it out: gradients are clipped as without DeepSpeed.",
        ),
    },
}
"""Engine -> environment variable of the launcher -> values that training bears, the name in the file, what to do."""
UNSAID = {"FSDP_VERSION": "1", "ACCELERATE_DEEPSPEED_ZERO_STAGE": "2"}
"""What accelerate takes where its file says nothing."""
EXAMPLES = {"FSDP": "recipes/accelerate/fsdp.yaml", "DeepSpeed": "recipes/accelerate/deepspeed.yaml"}


Engine = Literal["", "FSDP", "DeepSpeed"]


def engine() -> Engine:
    """Which engine the processes are to share weights and optimizer states by; "" for none, as with DDP."""
    for variable, name in ASKED.items():
        if name in BORNE and os.environ.get(variable, "").lower() == "true":
            return name  # type: ignore[return-value]
    return ""


def zero_stage() -> int:
    """Return which of ZeRO's stages DeepSpeed is asked for."""
    variable = "ACCELERATE_DEEPSPEED_ZERO_STAGE"
    return int(os.environ.get(variable, "") or UNSAID[variable])


@contextlib.contextmanager
def on_our_own() -> Iterator[None]:
    """Let transformers and accelerate not see which engine is asked for: they would wrap the model, layer by layer."""
    before = {variable: os.environ.pop(variable) for variable in ASKED if variable in os.environ}
    try:
        yield
    finally:
        os.environ.update(before)


def check_launch(training: TrainingOptions, hardware: Hardware) -> None:
    """Refuse what accelerate's launcher was asked for and training does not bear.

    Raises:
        UserError: another engine, one that is not installed; an option of it that would change what is computed, or
            would be ignored.
    """
    if os.environ.get("ACCELERATE_USE_MEGATRON_LM", "").lower() == "true":
        raise UserError(
            "accelerate was asked for Megatron-LM, which has models and backward passes of its own.",
            f"Use distributed_type: FSDP, DEEPSPEED or MULTI_GPU; {EXAMPLES['FSDP']} has what works.",
        )
    asked = engine()
    if not asked:
        return
    if asked == "DeepSpeed" and find_spec("deepspeed") is None:
        raise UserError(
            "accelerate was asked for DeepSpeed, which is not installed.",
            "pip install deepspeed, or use distributed_type: FSDP, which shares the same.",
        )
    for variable, (borne, name, hint) in BORNE[asked].items():
        value = os.environ.get(variable, "") or UNSAID.get(variable, "")
        if value.lower() not in borne:
            raise UserError(f"{asked} does not bear {name}: {value} here.", f"{hint} {EXAMPLES[asked]} has what works.")
    if training.optim not in OPTIMIZERS:
        raise UserError(
            f"{asked} does not bear --optim {training.optim}, which looks at whole matrices.",
            f"Choose one of {', '.join(sorted(OPTIMIZERS))}.",
        )
    if hardware.quantization is not None:
        raise UserError(
            f"{asked} does not bear --load-in-4bit or --load-in-8bit: an adapter's states are small.",
            "Use distributed_type: MULTI_GPU (recipes/accelerate/ddp.yaml).",
        )
