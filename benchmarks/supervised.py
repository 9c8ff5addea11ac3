"""A supervised step: MSL or BEAR against plain cross-entropy, all ours; and ours against TRL's SFTTrainer."""

from __future__ import annotations

import contextlib
import copy
import functools
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from grpo import Turns
from recalign.api import Row
from recalign.decoding.engine import PolicyEngine
from recalign.models.products import training_products
from recalign.plugins import registry
from recalign.training.accumulation import Accumulation
from recalign.training.offline.examples import AnswerExamples, collate
from recalign.training.offline.token_step import TokenStep
from setting import Setting
from timing import Pairs, alternate

RATE = 1e-4
"""Learning rate of the updates that are compared with TRL's."""
MIXED = 2e-2
"""How far their losses may be apart under autocast, which rounds to 8 bits."""


def objective_over_sft(setting: Setting, rows: list[Row], objective: str, *, repeats: int, seconds: float) -> Pairs:
    """Time whole updates on the same batch: `ours` is the objective's, `peer` the one of `sft`.

    Args:
        setting: model and titles.
        rows: one batch.
        objective: `msl` or `bear`.
        repeats: pairs.
        seconds: begin no further pair after this time.
    """
    step, plain = (update(setting, rows, name) for name in (objective, "sft"))
    step(), plain()
    return alternate(step, plain, repeats, seconds)


def update(setting: Setting, rows: list[Row], objective: str, rate: float = 1e-6) -> Callable[[], float]:
    """Return one update with an objective: batch, forward, backward, optimiser; it returns the loss."""
    policy = replace(setting.policy, model=copy.deepcopy(setting.policy.model))
    engine = PolicyEngine(policy, setting.catalogue, exclude_history=False)
    step = TokenStep(policy, registry.create("objective", objective), engine)
    examples = AnswerExamples(policy, rows, 1)
    trained = [parameter for parameter in policy.model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=rate, weight_decay=0.0, fused=True)

    def run(_: object) -> float:
        batch = collate([examples[0, index] for index in range(len(rows))], pad=policy.titles.end, all_tokens=False)
        accumulation = Accumulation(policy.model)
        with setting.precision():
            step.accumulate(policy.model, batch, accumulation)
        loss = accumulation.finish()
        torch.nn.utils.clip_grad_norm_(policy.model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return float(loss)

    layouts = contextlib.ExitStack()
    layouts.enter_context(training_products(policy.model))
    return functools.partial(run, layouts)


def update_against_trl(setting: Setting, rows: list[Row], *, repeats: int, seconds: float) -> Pairs:
    """Time whole updates of `sft` and of TRL's SFTTrainer on the same rows, of which the same tokens are learnt.

    The first update is not timed. The losses of every update, each after the steps before, must agree.

    Args:
        setting: model and titles.
        rows: one batch.
        repeats: pairs.
        seconds: begin no further pair after this time.

    Raises:
        AssertionError: the losses differ by more than rounding.
    """
    ours: list[float] = []
    step = update(setting, rows, "sft", RATE)
    turns = Turns(lambda: ours.append(step()), 1, seconds)
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(sys.stderr):
        trainer = trl_trainer(setting, rows, folder, steps=repeats + 1)
        trainer.add_callback(turns)
        trainer.train()
    peer = [line["loss"] for line in trainer.state.log_history if "loss" in line]
    if not np.allclose(ours, peer, rtol=MIXED if setting.mixed else 1e-4, atol=2e-4):  # TRL rounds what it logs
        raise AssertionError(f"losses differ: ours {ours}, TRL's {peer}")
    return Pairs(turns.mine, turns.theirs)


def trl_trainer(setting: Setting, rows: list[Row], folder: str, *, steps: int) -> Any:
    """An SFTTrainer on the same weights and token ids, one batch an update; without gradient checkpointing, as ours.

    Args:
        setting: whose model is copied.
        rows: one batch.
        folder: an empty place.
        steps: optimiser steps.
    """
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    examples = AnswerExamples(setting.policy, rows, 1)
    chosen = [examples[0, index] for index in range(len(rows))]
    arguments = SFTConfig(
        output_dir=folder,
        per_device_train_batch_size=len(rows),
        max_steps=steps,
        learning_rate=RATE,
        lr_scheduler_type="constant",
        gradient_checkpointing=False,
        max_length=None,
        dataset_kwargs={"skip_prepare_dataset": True},
        save_strategy="no",
        report_to="none",
        logging_steps=1,
        disable_tqdm=True,
        bf16=setting.mixed,
        use_cpu=setting.policy.device.type == "cpu",
        dataloader_pin_memory=False,
    )
    return SFTTrainer(
        model=copy.deepcopy(setting.policy.model),  # its trainer runs it under autocast by itself
        args=arguments,
        train_dataset=Dataset.from_dict(
            {
                "input_ids": [example.tokens.tolist() for example in chosen],
                "labels": [[-100] * example.prompt + example.tokens[example.prompt :].tolist() for example in chosen],
            }
        ),
        processing_class=setting.policy.tokenizer,
    )
