"""The trainer: resuming, interruption, early stopping, best checkpoint, what is logged, what fails."""

import os
import signal
from dataclasses import replace

import numpy as np
import pytest
import torch
from transformers import TrainerCallback

from recalign.api import NoParams, TokenObjective
from recalign.errors import UserError
from recalign.models.policy import load_policy
from recalign.training.checkpoints import latest_checkpoint
from recalign.training.offline.examples import EpochSampler
from recalign.training.speed import Work
from recalign.training.trainer import RecalignTrainer, read_log
from recalign.training.training_options import CHECKPOINTS, TrainingOptions
from recalign.training.validation import Validated
from tests.fake_dataset import TITLES, write_dataset
from tests.fake_models import byte_level_tokenizer, save_model

OPTIONS = TrainingOptions(epochs=3, batch_size=8, learning_rate=1e-2, log_every=1)


class Counter(TokenObjective):
    """Pulls the response's logits towards their labels; counts its calls, as an objective with state of its own."""

    Params = NoParams

    def __init__(self):
        super().__init__()
        self.calls = 0

    def loss(self, answers):
        raise NotImplementedError

    def state_dict(self):
        return {"calls": self.calls}

    def load_state_dict(self, state):
        self.calls = state["calls"]


class WholeSequence:
    """A step that learns whole sequences; random numbers are drawn, so that their state matters."""

    runs_wrapped = True

    def __init__(self, policy, fail_at=None):
        self.policy, self.objective, self.fail_at = policy, Counter(), fail_at
        self.seen, self.work = [], Work()

    def begin(self, batches):
        pass

    def accumulate(self, model, batch, update):
        self.objective.calls += 1
        self.seen.append(batch["addresses"])
        noise = 1 + 0.1 * torch.rand(())
        loss = model(input_ids=batch["tokens"], labels=batch["tokens"]).loss * noise
        if self.objective.calls == self.fail_at:
            loss = loss * float("nan")
        update.add(loss, batch["tokens"].numel())
        self.work.add(list(batch["tokens"]), 0)
        return {"noise": float(noise)}


class Examples(torch.utils.data.Dataset):
    def __init__(self, policy, rows):
        self.policy, self.rows = policy, rows

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, address):
        row = self.rows[address[1]]
        prompt, response = self.policy.prompter.encode(row), self.policy.titles.response(row.targets)
        return address, torch.tensor([*prompt, *response])


def collate(examples):
    return {
        "addresses": [address for address, _ in examples],
        "tokens": torch.stack([tokens for _, tokens in examples]),
    }


class SignalAt(TrainerCallback):
    """Ctrl-C during an update, the first time that it is reached."""

    def __init__(self, update, number=signal.SIGINT):
        self.update, self.number = update, number

    def on_optimizer_step(self, args, state, control, **_):
        if state.global_step + 1 == self.update:
            os.kill(os.getpid(), self.number)


def make_trainer(tmp_path, out, options=OPTIONS, *, model="builtin:tiny", figures=None, fail_at=None, lora=None):
    data = tmp_path / "data"
    from recalign.data.dataset import PreparedDataset

    dataset = PreparedDataset(data) if data.exists() else write_dataset(data)
    policy = load_policy(model, dataset, trainable=True, lora=lora)
    rows = dataset.rows("train")[:]
    values = iter(figures or [])

    def validate():
        prompt = torch.as_tensor(policy.prompter.encode(rows[0]))[None]
        with torch.no_grad():
            loss = policy.model(input_ids=prompt, labels=prompt).loss
        return Validated({"loss": float(loss), "score": next(values, 0.0)})

    step = WholeSequence(policy, fail_at)
    return RecalignTrainer(policy, step, options, tmp_path / out, Examples(policy, rows), collate, validate)


def curve(out, name="loss"):
    return {line["step"]: line[name] for line in read_log(out) if name in line}


@pytest.mark.parametrize("stop_at", [2, 3, 4], ids=["within an epoch", "at its end", "after its end"])
def test_resume_continues_the_same_loss_curve(tmp_path, stop_at):
    whole = make_trainer(tmp_path, "whole")
    whole.run()
    cut = make_trainer(tmp_path, "cut")
    cut.add_callback(SignalAt(stop_at))
    with pytest.raises(KeyboardInterrupt):
        cut.run()
    assert max(curve(tmp_path / "cut")) == stop_at
    resumed = make_trainer(tmp_path, "cut")
    resumed.run(resume=True)
    for name in ("loss", "noise", "grad_norm", "learning_rate", "eval_loss"):
        assert curve(tmp_path / "cut", name) == curve(tmp_path / "whole", name), name
    assert resumed.step.objective.calls == whole.step.objective.calls == 9
    seen = [cut.step.seen, resumed.step.seen]
    assert seen[0] + seen[1] == whole.step.seen
    for (name, one), (_, other) in zip(
        whole.policy.model.named_parameters(), resumed.policy.model.named_parameters(), strict=True
    ):
        assert torch.equal(one, other), name


def test_a_run_cut_off_behind_its_last_update_resumes_without_another(tmp_path):
    options = replace(OPTIONS, max_steps=5)  # within the second epoch of three updates
    cut = make_trainer(tmp_path, "cut", options)
    cut.add_callback(SignalAt(5))
    with pytest.raises(KeyboardInterrupt):
        cut.run()
    before = curve(tmp_path / "cut")
    resumed = make_trainer(tmp_path, "cut", options)
    results = resumed.run(resume=True)
    assert results["updates"] == 5
    assert resumed.step.seen == []
    assert curve(tmp_path / "cut") == before
    assert results["train_loss"] == pytest.approx(np.mean(list(before.values())))


def test_resume_continues_an_adapter_that_was_trained_further(tmp_path):
    from recalign.models.lora import LoraOptions

    hub = save_model(tmp_path / "hub", byte_level_tokenizer(TITLES))
    start = make_trainer(tmp_path, "start", model=hub, lora=LoraOptions(rank=2, target=("q_proj",)))
    start.policy.save(tmp_path / "adapter")
    whole = make_trainer(tmp_path, "whole", model=tmp_path / "adapter")
    whole.run()
    cut = make_trainer(tmp_path, "cut", model=tmp_path / "adapter")
    cut.add_callback(SignalAt(4))
    with pytest.raises(KeyboardInterrupt):
        cut.run()
    make_trainer(tmp_path, "cut", model=tmp_path / "adapter").run(resume=True)
    assert curve(tmp_path / "cut") == curve(tmp_path / "whole")


def test_sigterm_saves_a_checkpoint_too(tmp_path):
    trainer = make_trainer(tmp_path, "out")
    trainer.add_callback(SignalAt(2, signal.SIGTERM))
    handler = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt):
        trainer.run()
    assert latest_checkpoint(tmp_path / "out" / CHECKPOINTS).name == "checkpoint-2"
    assert signal.getsignal(signal.SIGTERM) is handler


def test_a_half_written_checkpoint_is_passed_over(tmp_path):
    trainer = make_trainer(tmp_path, "out")
    trainer.run()
    folder = tmp_path / "out" / CHECKPOINTS
    newest = latest_checkpoint(folder)
    (folder / "checkpoint-99").mkdir()
    (folder / "checkpoint-98").mkdir()
    (folder / "checkpoint-98" / "trainer_state.json").write_text('{"epoch": 1')
    assert latest_checkpoint(folder) == newest
    assert latest_checkpoint(tmp_path / "nothing") is None


def test_the_best_checkpoint_is_in_the_policy_at_the_end(tmp_path):
    options = TrainingOptions(**{**OPTIONS.__dict__, "best_metric": "score", "keep_checkpoints": 1})
    trainer = make_trainer(tmp_path, "out", options, figures=[0.1, 0.9, 0.2])
    results = trainer.run()
    assert results["best_score"] == 0.9
    assert results["best_update"] == 6
    best = make_trainer(tmp_path, "other", model=tmp_path / "out" / CHECKPOINTS / "checkpoint-6").policy.model
    for one, other in zip(trainer.policy.model.parameters(), best.parameters(), strict=True):
        assert torch.equal(one, other)


def test_training_stops_early_when_validation_does_not_improve(tmp_path):
    options = TrainingOptions(
        **{**OPTIONS.__dict__, "epochs": 10, "best_metric": "score", "patience": 2, "eval_every": 2}
    )
    trainer = make_trainer(tmp_path, "out", options, figures=[0.1, 0.5, 0.4, 0.3, 0.9])
    results = trainer.run()
    assert results["updates"] == 8
    assert results["best_update"] == 4


def test_old_checkpoints_are_deleted(tmp_path):
    options = TrainingOptions(**{**OPTIONS.__dict__, "eval_every": 1, "best_metric": "score"})
    make_trainer(tmp_path, "out", options, figures=[0.9, 0.1, 0.2]).run()
    names = sorted(path.name for path in (tmp_path / "out" / CHECKPOINTS).iterdir())
    assert len(names) == 2 and {"checkpoint-1", "checkpoint-9"} == set(names)


def test_the_last_update_is_validated_whatever_the_interval(tmp_path):
    options = TrainingOptions(**{**OPTIONS.__dict__, "eval_every": 7, "best_metric": "score"})
    make_trainer(tmp_path, "out", options, figures=[0.1, 0.2]).run()
    assert list(curve(tmp_path / "out", "eval_score")) == [7, 9]


def test_accumulated_batches_make_the_update_of_one_large_batch(tmp_path):
    class Quiet(WholeSequence):
        def accumulate(self, model, batch, update):
            update.add(model(input_ids=batch["tokens"], labels=batch["tokens"]).loss, batch["tokens"].numel())
            return {}

    losses = []
    for batch, accumulation in ((8, 1), (4, 2)):
        options = TrainingOptions(
            **{**OPTIONS.__dict__, "batch_size": batch, "gradient_accumulation": accumulation, "epochs": 1}
        )
        trainer = make_trainer(tmp_path, f"out{batch}", options)
        trainer.step = Quiet(trainer.policy)
        trainer.run()
        losses.append(list(curve(tmp_path / f"out{batch}").values()))
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_a_loss_that_is_not_a_number_stops_the_run_with_advice(tmp_path):
    trainer = make_trainer(tmp_path, "out", fail_at=4)
    with pytest.raises(UserError, match="--learning-rate"):
        trainer.run()
    assert latest_checkpoint(tmp_path / "out" / CHECKPOINTS).name == "checkpoint-3"


def test_a_full_disk_is_reported_and_the_run_can_go_on(tmp_path, monkeypatch):
    trainer = make_trainer(tmp_path, "out")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(trainer, "_save_optimizer_and_scheduler", full)
    with pytest.raises(UserError, match="No space left.*\n.*--resume"):
        trainer.run()
    assert latest_checkpoint(tmp_path / "out" / CHECKPOINTS) is None  # what was half-written does not count
    assert make_trainer(tmp_path, "out").run(resume=True)["updates"] == 9


def test_nothing_of_a_checkpoint_is_pickled_code(tmp_path):
    make_trainer(tmp_path, "out").run()
    names = {path.name for path in (tmp_path / "out" / CHECKPOINTS).glob("*/*")}
    assert "training_args.bin" not in names and "model.safetensors" in names


def test_every_example_comes_once_an_epoch_in_an_order_of_its_own():
    sampler = EpochSampler(23, 4, seed=1)
    first = list(sampler)
    sampler.epoch = 1
    second = list(sampler)
    assert sorted(index for _, index in first) == sorted(index for _, index in second) == list(range(23))
    assert {epoch for epoch, _ in second} == {1}
    assert [index for _, index in first] != [index for _, index in second]
    again = EpochSampler(23, 4, seed=1)
    assert list(again) == first


def test_batches_hold_examples_of_like_length_in_random_order():
    lengths = [index % 7 for index in range(140)]
    order = [index for _, index in EpochSampler(140, 20, seed=0, length_of=lengths.__getitem__)]
    batches = [{lengths[index] for index in order[start : start + 20]} for start in range(0, 140, 20)]
    assert all(len(batch) == 1 for batch in batches)
    assert [min(batch) for batch in batches] != sorted((min(batch) for batch in batches), reverse=True)
