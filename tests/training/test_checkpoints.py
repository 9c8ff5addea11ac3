"""Checkpoints that training cannot go on from: told, passed over for older ones, and no code in them is run."""

import json
import os
import pickle
import shutil

import pytest
import torch

from recalign import console
from recalign.errors import UserError
from recalign.training.checkpoints import check_checkpoint, latest_checkpoint
from recalign.training.training_options import CHECKPOINTS, TrainingOptions
from tests.training.test_trainer import OPTIONS, SignalAt, curve, make_trainer

EVERY_TWO = TrainingOptions(**{**OPTIONS.__dict__, "eval_every": 2, "keep_checkpoints": 9})


class Hostile:
    """Runs code where it is unpickled without care."""

    def __reduce__(self):
        return (os.mkdir, ("run-by-pickle",))


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory):
    """A run that was interrupted at update 5 of 9, with checkpoints 2, 4 and 5; and one that was not."""
    folder = tmp_path_factory.mktemp("interrupted")
    make_trainer(folder, "whole", EVERY_TWO).run()
    cut = make_trainer(folder, "out", EVERY_TWO)
    cut.add_callback(SignalAt(5))
    with pytest.raises(KeyboardInterrupt):
        cut.run()
    return folder


@pytest.fixture
def run(interrupted, tmp_path, monkeypatch):
    """A copy of it, and what users are told."""
    shutil.copytree(interrupted, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    told = []
    monkeypatch.setattr(console, "warn", told.append)
    return tmp_path, told


def checkpoint(folder, update=5):
    return folder / "out" / CHECKPOINTS / f"checkpoint-{update}"


def changed_state(path, **facts):
    file = path / "trainer_state.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **facts}))


DAMAGE = {
    "optimizer.pt": [b"", b"half", pickle.dumps(Hostile()), [1, 2], {"state": {}}],
    "scheduler.pt": [b"", pickle.dumps(Hostile()), None, {}],
    "scaler.pt": [b"half", pickle.dumps(Hostile()), [3]],
    "rng_state.pth": [b"", pickle.dumps(Hostile()), {}, {"python": 1, "numpy": 2, "cpu": 3}],
    "trainer_state.json": [b"", b"[]", b"null", b"{}", b'{"epoch": ' + b"[" * 50_000, b"\xff"],
    "objective.json": [b"", b"[1]", b"null"],
    "progress.json": [b"", b'{"updates": "5"}', b'{"loss": NaN}'],
    "model.safetensors": [b"", b"half a file", bytes(64)],
    "config.json": [b"", b"[]", b"null"],
}


@pytest.mark.parametrize(("name", "content"), [(name, each) for name, all_ in DAMAGE.items() for each in all_])
def test_a_damaged_newest_checkpoint_is_told_and_passed_over(run, name, content):
    folder, told = run
    file = checkpoint(folder) / name
    if isinstance(content, bytes):
        file.write_bytes(content)
    else:
        torch.save(content, file)
    assert latest_checkpoint(folder / "out" / CHECKPOINTS) == checkpoint(folder, 4)
    assert str(file) in told[0] or str(checkpoint(folder)) in told[0]
    assert "older checkpoint" in told[1] and "checkpoint-4" in told[1]
    assert not (folder / "run-by-pickle").exists()


@pytest.mark.parametrize("name", ["optimizer.pt", "scheduler.pt", "model.safetensors", "objective.json"])
def test_a_checkpoint_that_lacks_a_file(run, name):
    folder, told = run
    (checkpoint(folder) / name).unlink()
    assert latest_checkpoint(folder / "out" / CHECKPOINTS) == checkpoint(folder, 4)
    assert told


def test_pickled_weights_alone_are_not_read(run):
    folder, _ = run
    (checkpoint(folder) / "model.safetensors").rename(checkpoint(folder) / "pytorch_model.bin")
    with pytest.raises(UserError, match=r"only pickled weights \(pytorch_model.bin\), which can run code"):
        check_checkpoint(checkpoint(folder))


def test_going_on_from_an_older_checkpoint_ends_where_the_uninterrupted_run_ends(run):
    folder, told = run
    (checkpoint(folder) / "model.safetensors").write_bytes(b"")
    results = make_trainer(folder, "out", EVERY_TWO).run(resume=True)
    assert curve(folder / "out") == curve(folder / "whole")
    assert results["updates"] == 9
    assert "holds no whole weights" in told[0]


def test_where_no_checkpoint_is_left_the_training_starts_again(run):
    folder, told = run
    for update in (2, 4, 5):
        (checkpoint(folder, update) / "optimizer.pt").unlink()
    assert latest_checkpoint(folder / "out" / CHECKPOINTS) is None
    assert "the training starts again" in told[-1]


def test_loss_and_seconds_are_those_of_the_whole_run(run):
    folder, _ = run
    before = json.loads((checkpoint(folder) / "progress.json").read_text())
    assert before["updates"] == 5 and before["seconds"] > 0
    (checkpoint(folder) / "progress.json").write_text(json.dumps({**before, "seconds": 1e6}))
    results = make_trainer(folder, "out", EVERY_TWO).run(resume=True)
    losses = list(curve(folder / "whole").values())
    assert len(losses) == 9
    assert results["train_loss"] == pytest.approx(sum(losses) / 9, rel=1e-6)
    assert 1e6 < results["seconds"] < 2e6


def test_a_missing_random_state_is_told(run):
    folder, told = run
    (checkpoint(folder) / "rng_state.pth").unlink()
    make_trainer(folder, "out", EVERY_TWO).run(resume=True)
    assert any("has no rng_state.pth" in line and "no longer ends where" in line for line in told)


def test_a_forged_best_figure_is_told_and_not_believed(run):
    folder, told = run
    state = json.loads((checkpoint(folder) / "trainer_state.json").read_text())
    true, step = min((line["eval_loss"], line["step"]) for line in state["log_history"] if "eval_loss" in line)
    changed_state(checkpoint(folder), best_metric=-9.0, best_global_step=2, best_model_checkpoint="/elsewhere")
    results = make_trainer(folder, "out", EVERY_TWO).run(resume=True)
    assert any("claims -9.0 at update 2" in line and f"{true} at update {step}" in line for line in told)
    whole = curve(folder / "whole", "eval_loss")
    assert results["best_loss"] == min(whole.values()) == whole[results["best_update"]]


def test_a_moved_run_goes_on_with_its_own_best_checkpoint(run):
    folder, told = run
    changed_state(checkpoint(folder), best_model_checkpoint="/where/it/was/checkpoint-4")
    make_trainer(folder, "out", EVERY_TWO).run(resume=True)
    assert not told


def test_an_optimizer_of_another_model_is_told(run):
    folder, _ = run
    state = torch.load(checkpoint(folder) / "optimizer.pt", weights_only=True)
    state["param_groups"][0]["params"] = [0]
    torch.save(state, checkpoint(folder) / "optimizer.pt")
    with pytest.raises(UserError, match="checkpoint-5 cannot be gone on from: .*parameter group"):
        make_trainer(folder, "out", EVERY_TWO).run(resume=True)
