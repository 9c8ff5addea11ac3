"""A whole GRPO step, sampling to weight update, against TRL's GRPOTrainer without vLLM."""

from __future__ import annotations

import contextlib
import copy
import functools
import itertools
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peft import PeftModel
from transformers import TrainerCallback

import timing
from peers import DictTrie, left_padded
from recalign.api import PolicyBatch, Row
from recalign.decoding.engine import PolicyEngine
from recalign.metrics.expression import parse_expression
from recalign.models.policy import reference_policy
from recalign.models.products import training_products
from recalign.objectives.grpo import Grpo
from recalign.training.accumulation import Accumulation
from recalign.training.logprobs.completions import completion_logps
from recalign.training.online.prompt_order import PromptOrder
from recalign.training.online.rollout_step import RolloutStep
from recalign.training.online.rollouts import as_sampled
from setting import Setting
from timing import Pairs, timed

TEMPERATURE, KL_BETA, LEARNING_RATE = 0.8, 0.04, 1e-6


def grpo_params(group_size: int) -> Any:
    """Parameters of our objective that mean the same as TRL's below."""
    return Grpo.Params(group_size=group_size, temperature=TEMPERATURE, kl_beta=KL_BETA)


def trl_trainer(
    setting: Setting,
    rows: list[Row],
    folder: Path,
    *,
    group_size: int,
    longest: int,
    steps: int,
    reward: Callable[..., list[float]],
    accumulation: int = 1,
    mixed: bool = False,
    base: type | None = None,
) -> Any:
    """A GRPOTrainer on the same weights, prompts, group size and lengths; its samples follow the trie, as ours do.

    Gradient checkpointing, on by default, is off: it would only slow the peer down.

    Args:
        setting: whose model is copied.
        rows: prompts of one step.
        folder: an empty place.
        group_size: G.
        longest: `max_completion_length`.
        steps: optimiser steps.
        reward: TRL's reward function.
        accumulation: parts into which the batch is cut for the backward pass.
        mixed: run the model under autocast to bfloat16.
        base: a subclass of GRPOTrainer.
    """
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer

    model = copy.deepcopy(setting.policy.model)
    if not isinstance(model, PeftModel):  # TRL loads the reference policy from where the policy came from
        setting.policy.model.save_pretrained(folder / "model")
        setting.policy.tokenizer.save_pretrained(folder / "model")
        model = str(folder / "model")
    prompter = setting.policy.prompter
    texts = [
        prompter.template.render(
            history=[setting.catalogue.titles[item] for item in row.history],
            candidates=[],
            list_length=prompter.list_length,
            task=prompter.task,
        )
        for row in rows
    ]
    arguments = GRPOConfig(
        output_dir=str(folder / "trl"),
        per_device_train_batch_size=len(rows) * group_size // accumulation,
        gradient_accumulation_steps=accumulation,
        num_generations=group_size,
        max_completion_length=longest,
        max_steps=steps,
        temperature=TEMPERATURE,
        beta=KL_BETA,
        learning_rate=LEARNING_RATE,
        lr_scheduler_type="constant",
        loss_type="grpo",
        scale_rewards="group",
        use_bias_correction_kl=False,
        gradient_checkpointing=False,
        shuffle_dataset=False,
        save_strategy="no",
        report_to="none",
        logging_strategy="no",
        disable_tqdm=True,
        bf16=mixed,
        eval_strategy="no",
        use_cpu=setting.policy.device.type == "cpu",
        dataloader_pin_memory=False,
    )
    trainer = (base or GRPOTrainer)(
        model=model,
        args=arguments,
        reward_funcs=reward,
        train_dataset=Dataset.from_dict({"prompt": texts}),
        processing_class=setting.policy.tokenizer,
    )
    _constrain(trainer, DictTrie(setting.policy.titles, prompter.list_length), setting.prompts(rows))
    return trainer


def _constrain(trainer: Any, trie: DictTrie, prompts: list[np.ndarray]) -> None:
    """Let the trainer's model sample titles only, and hold that it is given our prompts."""
    plain = trainer.model.generate
    known = {tuple(prompt.tolist()) for prompt in prompts}

    @functools.wraps(plain)
    def generate(input_ids: torch.Tensor, attention_mask: torch.Tensor, **options: Any) -> torch.Tensor:
        given = {tuple(ids[mask.bool()].tolist()) for ids, mask in zip(input_ids, attention_mask, strict=True)}
        assert given <= known, "the peer's prompts are tokenised differently"
        valid = trie.after(input_ids.shape[1])
        return plain(input_ids=input_ids, attention_mask=attention_mask, prefix_allowed_tokens_fn=valid, **options)

    trainer.model.generate = generate


class Turns(TrainerCallback):
    """Times each step of the peer's trainer and takes our turn after each.

    Args:
        ours: one step of ours.
        warm_up: steps whose times are dropped.
        seconds: begin no further step of the peer's after this time.
    """

    def __init__(self, ours: Callable[[], Any], warm_up: int, seconds: float) -> None:
        self.ours, self.warm_up, self.seconds = ours, warm_up, seconds
        self.mine: list[float] = []
        self.theirs: list[float] = []
        self.begun, self.started = time.perf_counter(), timing.now()

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Note the time; the peer samples within the step."""
        self.started = timing.now()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> Any:
        """Take both times."""
        theirs = timing.now() - self.started
        mine, _result = timed(self.ours)
        if state.global_step > self.warm_up:
            self.mine.append(mine)
            self.theirs.append(theirs)
            spent = time.perf_counter() - self.begun
            if spent * (1 + 1 / len(self.mine)) > self.seconds:
                control.should_training_stop = True
        return control


def step_against_trl(
    setting: Setting, rows: list[Row], *, group_size: int, longest: int, repeats: int, seconds: float, warm_up: int = 0
) -> tuple[Pairs, dict[str, float]]:
    """Time whole steps: sampling, reference and policy passes, backward, optimiser.

    Args:
        setting: its prompter says how many titles a completion names.
        rows: P prompts a step.
        group_size: G.
        longest: the peer cuts its completions at so many tokens; ours are whole.
        repeats: steps.
        seconds: begin no further pair after this time.
        warm_up: untimed steps before.

    Returns:
        The times, and the mean lengths of our completions and of the peer's.
    """
    lengths: dict[str, list[float]] = {"ours": [], "peer": []}
    step = our_step(setting, rows, group_size, lengths["ours"])

    def reward(completions: list[str], completion_ids: list[list[int]], **_: Any) -> list[float]:
        lengths["peer"].append(float(np.mean([len(ids) for ids in completion_ids])))
        return vowels(completions)

    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(sys.stderr):
        trainer = trl_trainer(
            setting,
            rows,
            Path(folder),
            group_size=group_size,
            longest=longest,
            steps=repeats + warm_up,
            reward=reward,
            accumulation=max(1, len(rows) * group_size // 32),
            mixed=setting.mixed,
        )
        turns = Turns(step, warm_up, seconds)
        trainer.add_callback(turns)
        step()
        trainer.train()
    return Pairs(turns.mine, turns.theirs), {name: float(np.mean(values)) for name, values in lengths.items()}


def mean_length(setting: Setting, rows: list[Row], group_size: int) -> float:
    """Mean tokens of our completions."""
    completions, _ = _sampled(setting, setting.engine(), rows, group_size)
    return float(completions.lengths.float().mean())


def our_step(setting: Setting, rows: list[Row], group_size: int, lengths: list[float]) -> Callable[[], None]:
    """Return one whole update of ours, as `recalign align` runs it: with layouts of frozen weights that last."""
    policy = replace(setting.policy, model=copy.deepcopy(setting.policy.model))
    engine = PolicyEngine(policy, setting.catalogue, exclude_history=False)
    step = RolloutStep(
        policy,
        engine,
        Grpo(grpo_params(group_size), name="grpo"),
        parse_expression("recall").bind(setting.catalogue),
        rows,
        PromptOrder(np.arange(len(rows)), len(rows), seed=0),
        None,
        reference_policy(policy),
    )
    trained = [parameter for parameter in policy.model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=LEARNING_RATE)
    updates = itertools.count()

    def update(_: object) -> None:
        accumulation = Accumulation(policy.model)
        with setting.precision():
            step.accumulate(policy.model, [next(updates)], accumulation)
        accumulation.finish()
        torch.nn.utils.clip_grad_norm_(policy.model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        lengths.append(float(step.rollout.completions.lengths.float().mean()))

    layouts = contextlib.ExitStack()
    layouts.enter_context(training_products(policy.model))
    return functools.partial(update, layouts)


def losses_agree(setting: Setting, rows: list[Row], *, group_size: int) -> float:
    """Compare our loss and gradient with TRL's own loss code, on our completions and the constrained distribution.

    TRL scores tokens over the whole vocabulary; here its trainer is given the trie's mask, and must then agree.
    Both run in float32, whatever is timed.

    Returns:
        The largest difference of a gradient entry, relative to the largest entry.

    Raises:
        AssertionError: they differ by more than float32 explains.
    """
    from trl import GRPOTrainer

    engine, model = setting.engine(), setting.policy.model
    device, generator = model.device, torch.Generator().manual_seed(0)
    completions, sampled = _sampled(setting, engine, rows, group_size)
    advantages = torch.randn(len(sampled), generator=generator).to(device)
    noise, mask = torch.randn(completions.tokens.shape, generator=generator).to(device), completions.mask.to(device)
    with torch.no_grad():
        reference = completion_logps(model, sampled) + 0.1 * noise
    logps = completion_logps(model, sampled)
    batch = PolicyBatch(logps, logps.detach(), reference, advantages[:, None] * mask, mask)
    loss, _ = Grpo(grpo_params(group_size)).loss(batch)
    loss.backward()
    ours = _gradient(model)
    trie = DictTrie(setting.policy.titles, setting.policy.prompter.list_length)

    class Masked(GRPOTrainer):
        def _get_per_token_logps_and_entropies(self, model, input_ids, attention_mask, logits_to_keep, *_, **__):
            logits = model(input_ids=input_ids, attention_mask=attention_mask).logits[:, -logits_to_keep - 1 : -1]
            tokens = input_ids[:, -logits_to_keep:]
            mask = torch.full_like(logits, -torch.inf)
            for row, sequence in enumerate(tokens.tolist()):
                for place in range(logits_to_keep):
                    mask[row, place, trie.valid(sequence[:place])] = 0.0
            logps = (logits / TEMPERATURE + mask).log_softmax(-1).gather(-1, tokens[..., None])[..., 0]
            return logps, torch.zeros_like(logps), None

    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(sys.stderr):
        longest = completions.tokens.shape[1]
        trainer = trl_trainer(
            setting, rows, Path(folder), group_size=group_size, longest=longest, steps=1, reward=vowels, base=Masked
        )
        trainer.model.train()
        trainer.current_gradient_accumulation_steps = 1
        peer_loss = trainer._compute_loss(trainer.model, _trl_inputs(setting, rows, completions, advantages, reference))
        peer_loss.backward()
        peer = _gradient(trainer.model)
    difference = float((ours - peer).abs().max() / peer.abs().max())
    tolerance = 1e-4 if device.type == "cpu" else 1e-3  # a GPU's sums are of other orders each time
    if abs(loss.item() - peer_loss.item()) > tolerance / 10 or difference > tolerance:
        raise AssertionError(f"losses {loss.item():.7f}, {peer_loss.item():.7f}; gradients differ by {difference:.2g}")
    return difference


def _trl_inputs(setting: Setting, rows: list[Row], completions: Any, advantages: Any, reference: Any) -> dict[str, Any]:
    device = setting.policy.device
    padded = left_padded(setting.prompts(rows), setting.policy.model.config.pad_token_id, device)
    mask = completions.mask.to(device)
    group_size = len(completions.tokens) // len(rows)
    return {
        "prompt_ids": padded["input_ids"].repeat_interleave(group_size, 0),
        "prompt_mask": padded["attention_mask"].repeat_interleave(group_size, 0),
        "completion_ids": completions.tokens.to(device),
        "completion_mask": mask.long(),
        "advantages": advantages,
        "ref_per_token_logps": reference,
        "num_items_in_batch": mask.sum(),
    }


def _gradient(model: torch.nn.Module) -> torch.Tensor:
    flat = torch.cat([parameter.grad.flatten() for parameter in model.parameters() if parameter.grad is not None])
    model.zero_grad(set_to_none=True)
    return flat


def _sampled(setting: Setting, engine: Any, rows: list[Row], group_size: int) -> tuple[Any, Any]:
    length = setting.policy.prompter.list_length
    completions = engine.sample(rows, group_size=group_size, list_length=length, temperature=TEMPERATURE)
    return completions, as_sampled(engine, rows, completions, TEMPERATURE, 1.0)


def vowels(completions: list[str], **_: Any) -> list[float]:
    """A reward that costs nothing: the share of vowels, so that groups have variance."""
    return [sum(text.count(vowel) for vowel in "aeiou") / (len(text) + 1) for text in completions]
