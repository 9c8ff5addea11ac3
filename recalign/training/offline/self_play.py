"""Self-play: rounds of fine-tuning on targets, and of preferring them to what the policy itself recommends (SPRec)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import distributed

from recalign import console
from recalign.api import INVALID, PreferenceObjective, Rounds, Row
from recalign.models.lora import renew_reference
from recalign.models.weights import restore_weights
from recalign.objectives.sft import Sft
from recalign.reading import FileRecord, read_arrays, read_record
from recalign.removal import discard
from recalign.training.offline.negatives import Negatives, Rejected
from recalign.training.offline.setups import preference_setup, token_setup
from recalign.training.processes import process
from recalign.training.setup import TrainingSetup
from recalign.training.trainer import LOG_FILE, read_log
from recalign.training.training_options import CHECKPOINTS, TrainingOptions
from recalign.training.validation import Validation
from recalign.workspace import atomic, write_json

FOLDER = "rounds"
STAGES = ("sft", "preference")
DONE, MODEL, REJECTED = "results.json", "model", "rejected.npz"
GREEDY_ROWS = 256  # decoded at a time, between two movements of the bar


class StageResults(FileRecord):
    """What a finished stage of a round reports."""

    updates: int
    seconds: float
    reward: float | None


@dataclass(frozen=True)
class Round:
    """One round: its number from 1, its folder, and its training rows."""

    number: int
    folder: Path
    rows: Sequence[Row]

    def done(self, stage: str) -> dict[str, Any] | None:
        """What a finished stage reported, else None."""
        file = self.folder / stage / DONE
        return read_record(file, StageResults) if file.is_file() else None


def play(
    objective: PreferenceObjective,
    rounds: Rounds,
    validation: Validation,
    rows: Sequence[Row],
    out: Path,
    training: TrainingOptions,
    *,
    resume: bool = False,
) -> dict[str, Any]:
    """Train a policy in rounds; that of the best round is in place at the end.

    A round draws its rows and, from the policy as it is, their rejected titles; fine-tunes it on the targets; then
    trains it by the objective on the rows that have a rejected title, with the fine-tuned policy as the reference.
    Every stage is a training of its own, with its own schedule, checkpoints and log in `OUT/rounds/NUMBER/STAGE`.

    Args:
        objective: the loss of the second stage; its parameters say where rejected titles come from.
        rounds: how many, and of how many rows.
        validation: validation with the metric `reward`, and the engine of the policy.
        rows: training rows.
        out: the run folder.
        training: of each stage; epochs are passes over a round's rows.
        resume: go on where an interrupted run stopped, within a stage too.

    Returns:
        updates, best_reward and its update, seconds, and figures of every round.
    """
    engine = validation.engine
    negatives = Negatives(engine, objective.needs.source, objective.needs.negatives, training.seed)
    negatives.check(rows)
    training = replace(training, eval_every=0, max_steps=0)
    report: list[dict[str, Any]] = []
    here = 0  # the round whose weights are in the policy
    for number in range(1, rounds.count + 1):
        this = Round(number, out / FOLDER / str(number), _draw(rows, rounds.rows, training.seed, number))
        if this.done(STAGES[1]) is None:
            _restore(validation, out, number - 1, here)
            _play_round(this, objective, negatives, validation, training, rounds.count, resume)
            here = number
        report.append(_report(this, report))
        _tell(report[-1], rounds.count)
        if process()[0] == 0:
            _tidy(out, report)
            _join_logs(out, number)
        _wait()
    best = _best(report)
    _restore(validation, out, best["round"], here)
    return {
        "updates": report[-1]["updates"],
        "best_update": best["updates"],
        "best_reward": best["reward"],
        "seconds": sum(each["seconds"] for each in report),
        "rounds": report,
    }


def _restore(validation: Validation, out: Path, number: int, here: int) -> None:
    """Put the weights after a round into the policy, where others are there."""
    if number != here:
        restore_weights(validation.engine.policy.model, out / FOLDER / str(number) / STAGES[1] / MODEL)


def _draw(rows: Sequence[Row], count: int, seed: int, number: int) -> list[Row]:
    """Draw the rows of a round, without repeats."""
    order = np.random.default_rng([seed, 7, number]).permutation(len(rows))[:count]
    return [rows[int(index)] for index in np.sort(order)]


def _play_round(
    this: Round,
    objective: PreferenceObjective,
    negatives: Negatives,
    validation: Validation,
    training: TrainingOptions,
    count: int,
    resume: bool,
) -> None:
    """Play one round, or what an interrupted run left of it; the policy is as the round before left it."""
    model, title = validation.engine.policy.model, f"{objective.name}, round {this.number} of {count}"
    rejected = _rejected(this, negatives)
    if this.done(STAGES[0]) is not None:
        restore_weights(model, this.folder / STAGES[0] / MODEL)
    else:
        setup = token_setup(Sft(), validation, this.rows, token_budget=training.token_budget)
        _learn(this, STAGES[0], setup, training, f"{title}, fine-tuning", resume)
    paired = [row for row, items in zip(this.rows, rejected.items, strict=True) if (items != INVALID).any()]
    if paired:
        renew_reference(model)
        setup = preference_setup(
            objective,
            validation,
            paired,
            seed=training.seed,
            negatives=rejected,
            token_budget=training.token_budget,
        )
        _learn(this, STAGES[1], setup, training, f"{title}, preferences", resume)
    else:  # it recommends every target already
        _finish(this, STAGES[1], validation, {**(this.done(STAGES[0]) or {}), "updates": 0, "seconds": 0.0})


def _rejected(this: Round, negatives: Negatives) -> Rejected:
    """Draw the round's rejected titles from the policy as it is, or read them where they were drawn before."""
    file = this.folder / REJECTED
    known = file.is_file()
    _wait()  # the first process writes it when all have looked
    if not known:
        parts = []
        with console.progress(f"rejected titles, round {this.number}", len(this.rows)) as advance:
            for start in range(0, len(this.rows), GREEDY_ROWS):
                chunk = this.rows[start : start + GREEDY_ROWS]
                parts.append(negatives.draw(chunk, this.number))
                advance(len(chunk))
        if process()[0] == 0:
            with atomic(file) as temporary, temporary.open("wb") as stream:
                np.savez(stream, items=np.concatenate(parts))
        _wait()
    stored = read_arrays(file, "items", hint=f"Delete {file}: its titles are drawn again.")
    return Rejected(stored["items"], np.array([row.index for row in this.rows]))


def _learn(this: Round, stage: str, setup: TrainingSetup, training: TrainingOptions, title: str, resume: bool) -> None:
    """Run one stage to its end, and store what it came to."""
    outcome = setup.trainer(training, this.folder / stage, title).run(resume=resume)
    figures = {"updates": outcome["updates"], "seconds": outcome["seconds"], "reward": outcome["best_reward"]}
    _finish(this, stage, setup.validation, figures)


def _finish(this: Round, stage: str, validation: Validation, figures: dict[str, Any]) -> None:
    """Store a stage's model and, when that is done, its figures: then the stage is finished."""
    if process()[0] == 0:
        validation.engine.policy.save(this.folder / stage / MODEL)
        write_json(this.folder / stage / DONE, figures)
    _wait()


def _report(this: Round, before: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Figures of a finished round; `updates` counts those of the rounds before it too."""
    first, second = (this.done(stage) or {} for stage in STAGES)
    paired = int((read_arrays(this.folder / REJECTED, "items")["items"] != INVALID).any(axis=1).sum())
    return {
        "round": this.number,
        "rows": len(this.rows),
        "paired": paired,
        "updates": first["updates"] + second["updates"] + (before[-1]["updates"] if before else 0),
        "seconds": first["seconds"] + second["seconds"],
        "reward_fine_tuned": first["reward"],
        "reward": second["reward"],
    }


def _tell(figures: dict[str, Any], count: int) -> None:
    console.say(
        f"round {figures['round']} of {count}: {figures['paired']} of {figures['rows']} rows have a rejected title; "
        f"validation {figures['reward_fine_tuned']:.4f} after fine-tuning, {figures['reward']:.4f} after preferences."
    )


def _best(report: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The first of the rounds with the highest reward."""
    return max(report, key=lambda each: each["reward"])


def _tidy(out: Path, report: Sequence[dict[str, Any]]) -> None:
    """Remove what no later round and no resuming needs: checkpoints, and models but the last and the best round's."""
    kept = {report[-1]["round"], _best(report)["round"]}
    for each in report:
        for stage in STAGES:
            folder = out / FOLDER / str(each["round"]) / stage
            discard(folder / CHECKPOINTS, inside=out)
            if stage == STAGES[0] or each["round"] not in kept:
                discard(folder / MODEL, inside=out)


def _join_logs(out: Path, rounds: int) -> None:
    """Write the stages' logs end to end, each line with its round and stage."""
    lines = [
        {"round": number, "stage": stage, **line}
        for number in range(1, rounds + 1)
        for stage in STAGES
        for line in read_log(out / FOLDER / str(number) / stage)
    ]
    with atomic(out / LOG_FILE) as temporary:
        temporary.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


def _wait() -> None:
    """Let all processes come to this point: one of them has written what the others read."""
    if process()[1] > 1:
        distributed.barrier()
