"""Rationales about K candidates a row: prompts that share what they begin with against `generate` on whole ones."""

from __future__ import annotations

import numpy as np
import torch

from inference import Works, compared
from peers import left_padded
from recalign.api import RATIONALE, Rationales, Row
from setting import Setting
from timing import Pairs

NEAR_TIES = 0.02
"""Share of texts that may differ: two tokens of like probability, and sums in another order."""


def decode_against_generate(setting: Setting, rows: list[Row], *, length: int, repeats: int, seconds: float) -> Pairs:
    """Time greedy rationales; ours go on to the decision and the state that is scored, the peer writes text only.

    Args:
        setting: of the rank task.
        rows: in one batch, with K candidates each.
        length: tokens of free text of each rationale at most.
        repeats: pairs.
        seconds: begin no further pair after this time.

    Raises:
        AssertionError: the texts differ.
    """
    prompts = []
    for row in rows:
        items = np.sort(row.candidates)
        shared, questions = setting.policy.prompter.questions.encode(row, items, RATIONALE)
        prompts += [np.concatenate([shared, question]) for question in questions]

    asked = {"form": RATIONALE, "max_tokens": length, "temperature": None, "states": "decision"}

    def works(setting: Setting) -> Works:
        engine, model = setting.engine(), setting.policy.model
        return lambda: engine.questions.rationales(rows, **asked), lambda: generate_texts(model, prompts, length)

    def check(answers: Rationales, written: torch.Tensor) -> None:
        same = [
            answers.tokens[number, : answers.opened[number]][: len(text)].tolist() == text.tolist()
            for number, text in enumerate(_until_end(written, setting.policy.titles.end, answers))
        ]
        if np.mean(same) < 1 - NEAR_TIES:
            raise AssertionError(f"{len(same) - sum(same)} of {len(same)} texts differ")

    return compared(setting, works, check, repeats, seconds)


@torch.no_grad()
def generate_texts(model: torch.nn.Module, prompts: list[np.ndarray], length: int) -> torch.Tensor:
    """Write `length` tokens greedily after each of N prompts with `generate`; return them, [N, T]."""
    inputs = left_padded(prompts, model.config.pad_token_id, model.device)
    begin = inputs["input_ids"].shape[1]
    return model.generate(**inputs, do_sample=False, max_new_tokens=length)[:, begin:].cpu()


def _until_end(texts: torch.Tensor, end: int, answers: Rationales) -> list[torch.Tensor]:
    """The tokens of each text that `generate` chose: up to its end token, or as far as our free text goes."""
    found = []
    for text, chosen in zip(texts, answers.chosen.sum(dim=1).tolist(), strict=True):
        stop = torch.nonzero(text == end).flatten()
        free = min(len(text), chosen - 1, int(stop[0]) + 1 if len(stop) else len(text))
        found.append(text[:free])
    return found
