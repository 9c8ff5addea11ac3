"""Options of training that `sft` and `align` share."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace

import torch
from transformers import Trainer, TrainingArguments
from transformers.integrations import INTEGRATION_TO_CALLBACK, get_available_reporting_integrations
from transformers.training_args import OptimizerNames

from recalign.errors import UserError, did_you_mean
from recalign.training.trackers import TrackedRun

CHECKPOINTS = "checkpoints"
TOKEN_BUDGET = 16384
OPTIMIZER = "adamw_torch_fused"
"""transformers' default."""
LOWER_IS_BETTER = ("loss", "cross_entropy")


@dataclass(frozen=True)
class TrainingOptions:
    """How to train; what `sft` and `align` share.

    Args:
        seed: of the order of examples and of every random stream.
        epochs: passes over the training rows.
        max_steps: stop after so many updates; 0: by epochs.
        learning_rate: the highest.
        module_learning_rate: the highest of modules beside the model; 0: as the model's.
        batch_size: examples a forward pass and process.
        gradient_accumulation: forward passes an update.
        schedule: linear, cosine or constant.
        warmup: share of the updates over which the learning rate rises.
        weight_decay: of AdamW, on matrices.
        max_grad_norm: gradients are scaled down to this norm.
        eval_every: updates between validations; 0: once an epoch.
        patience: stop after so many validations without a better one; 0: never.
        best_metric: validation figure that picks the best checkpoint; of `loss` and `cross_entropy` the lowest, of any
            other the highest value is best.
        log_every: updates between lines of the log.
        keep_checkpoints: how many to keep, the best one besides.
        report_to: trackers that transformers knows, such as tensorboard or wandb.
        token_budget: maximum number of tokens per forward and backward pass, padding included; batches that have more
            are cut, and their gradients added up.
        optim: name of one of transformers' optimizers.
        gradient_checkpointing: compute layers again in the backward pass instead of keeping what they computed.
    """

    seed: int = 0
    epochs: float = 3.0
    max_steps: int = 0
    learning_rate: float = 1e-4
    module_learning_rate: float = 0.0
    batch_size: int = 32
    gradient_accumulation: int = 1
    schedule: str = "cosine"
    warmup: float = 0.05
    weight_decay: float = 0.01
    max_grad_norm: float = 1.0
    eval_every: int = 0
    patience: int = 0
    best_metric: str = "loss"
    log_every: int = 10
    keep_checkpoints: int = 2
    report_to: tuple[str, ...] = ()
    token_budget: int = TOKEN_BUDGET
    optim: str = OPTIMIZER
    gradient_checkpointing: bool = False

    def __post_init__(self) -> None:
        if self.eval_every < 0:
            raise UserError(
                f"eval_every is {self.eval_every}: there is no validation after so many updates.",
                "Pass the number of updates between validations, or 0 for one an epoch.",
            )
        optimizers = [each.value for each in OptimizerNames]
        if self.optim not in optimizers:
            raise UserError(
                f"--optim '{self.optim}' is no optimizer of transformers.", did_you_mean(self.optim, optimizers)
            )
        _check_optimizer(self)
        for name in self.report_to:
            if name not in INTEGRATION_TO_CALLBACK:
                raise UserError(f"--report-to '{name}' is no tracker.", did_you_mean(name, INTEGRATION_TO_CALLBACK))
            if name not in get_available_reporting_integrations():
                raise UserError(f"--report-to '{name}' needs a package that is not installed.", f"pip install {name}")

    def batch_line(self, processes: int) -> str:
        """Say how many rows an update has, and what makes them."""
        rows = self.batch_size * self.gradient_accumulation * processes
        return (
            f"An update has {rows} rows: {self.batch_size} rows per batch x {self.gradient_accumulation} batches x "
            f"{processes} processes; a pass has at most {self.token_budget:,} tokens."
        )

    def arguments(self, run: TrackedRun, device: torch.device) -> TrainingArguments:
        """Translate into transformers' arguments, for a run and a model that lies on a device."""
        steps = {"eval_steps": self.eval_every, "save_steps": self.eval_every} if self.eval_every else {}
        strategy = "steps" if self.eval_every else "epoch"
        return TrainingArguments(
            output_dir=str(run.folder / CHECKPOINTS),
            run_name=run.called(self.report_to),
            project=run.project,
            seed=self.seed,
            num_train_epochs=self.epochs,
            max_steps=self.max_steps or -1,
            learning_rate=self.learning_rate,
            optim=self.optim,
            per_device_train_batch_size=self.batch_size,
            gradient_accumulation_steps=self.gradient_accumulation,
            lr_scheduler_type="constant_with_warmup" if self.schedule == "constant" else self.schedule,
            warmup_steps=self.warmup,
            weight_decay=self.weight_decay,
            max_grad_norm=self.max_grad_norm,
            eval_strategy=strategy,
            save_strategy=strategy,
            **steps,
            load_best_model_at_end=True,
            metric_for_best_model=f"eval_{self.best_metric}",
            greater_is_better=self.best_metric not in LOWER_IS_BETTER,
            restore_callback_states_from_checkpoint=True,
            save_total_limit=self.keep_checkpoints,
            logging_steps=self.log_every,
            logging_nan_inf_filter=False,
            report_to=list(self.report_to) or "none",
            disable_tqdm=True,
            log_level="error",
            log_level_replica="error",
            ddp_find_unused_parameters=False,
            remove_unused_columns=False,
            dataloader_pin_memory=device.type == "cuda",
            use_cpu=device.type == "cpu",
        )


def _check_optimizer(options: TrainingOptions) -> None:
    """Refuse an optimizer that transformers cannot make here, before a run begins.

    Raises:
        UserError: its package is missing, or it needs what recalign has no option for; in transformers' words.
    """
    asked = SimpleNamespace(
        optim=options.optim,
        optim_args=None,
        optim_target_modules=None,
        learning_rate=options.learning_rate,
        weight_decay=options.weight_decay,
        adam_beta1=0.9,
        adam_beta2=0.999,
        adam_epsilon=1e-8,
    )
    try:
        Trainer.get_optimizer_cls_and_kwargs(asked, torch.nn.Linear(1, 1))  # type: ignore[arg-type]
    except (ImportError, ValueError, RuntimeError) as error:
        said = " ".join(str(error).split()).rstrip(".")
        install = (
            "pip install 'recalign[quantized]', or choose"
            if "bitsandbytes" in said
            else "Install what it needs, or choose"
        )
        raise UserError(
            f"--optim '{options.optim}' cannot be had here: {said}.", f"{install} another, such as {OPTIMIZER}."
        ) from None
