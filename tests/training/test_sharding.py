"""What accelerate's launcher may ask for: by its own parser of configuration files, and refused in words."""

import os
from pathlib import Path

import pytest
import torch
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils.launch import prepare_multi_gpu_env
from torch import distributed

from recalign.errors import UserError
from recalign.models.hardware import ANY
from recalign.training.sharding import Shards, check_launch, on_our_own, sharded
from recalign.training.training_options import TrainingOptions
from tests.fake_dataset import write_dataset

FILES = Path(__file__).parents[2] / "recipes" / "accelerate"
ASKED = ("ACCELERATE_", "FSDP_")


def launched(file, monkeypatch):
    """Set the variables that `accelerate launch --config_file` sets."""
    arguments = launch_command_parser().parse_args(["--config_file", str(file), "-m", "recalign"])
    variables = prepare_multi_gpu_env(_validate_launch_command(arguments)[0])
    for name, value in variables.items():
        if name.startswith(ASKED):
            monkeypatch.setenv(name, value)


@pytest.fixture(autouse=True)
def _nothing_asked(monkeypatch):
    for name in [name for name in os.environ if name.startswith(ASKED)]:
        monkeypatch.delenv(name)


@pytest.mark.parametrize("name", ["ddp", "fsdp", "cpu"])
def test_the_configuration_files_are_borne(name, monkeypatch):
    launched(FILES / f"{name}.yaml", monkeypatch)
    assert (os.environ.get("ACCELERATE_USE_FSDP") == "true") == (name == "fsdp")
    check_launch(TrainingOptions(), ANY)
    assert not sharded()  # one process has nobody to share with


@pytest.mark.parametrize(
    ("line", "instead", "said"),
    [
        ("fsdp_version: 2", "fsdp_version: 1", "does not bear fsdp_version: 1.*\n.*Write fsdp_version: 2"),
        ("offload_params: false", "offload_params: true", "fsdp_offload_params: true.*\n.*--gradient-checkpointing"),
        ("checkpointing: false", "checkpointing: true", "fsdp_activation_checkpointing: true.*\n.*pass --gradient-"),
        ("efficient_loading: false", "efficient_loading: true", "ram_efficient_loading: true.*\n.*reads the weights"),
        ("FULL_STATE_DICT", "SHARDED_STATE_DICT", "SHARDED_STATE_DICT.*\n.*a checkpoint holds whole weights"),
    ],
)
def test_what_would_be_ignored_is_refused(line, instead, said, tmp_path, monkeypatch):
    text = (FILES / "fsdp.yaml").read_text("utf-8")
    assert line in text
    (tmp_path / "own.yaml").write_text(text.replace(line, instead), "utf-8")
    launched(tmp_path / "own.yaml", monkeypatch)
    with pytest.raises(UserError, match=said):
        check_launch(TrainingOptions(), ANY)


def test_optimizers_that_look_at_whole_matrices_are_refused(monkeypatch):
    launched(FILES / "fsdp.yaml", monkeypatch)
    with pytest.raises(UserError, match="does not bear --optim adafactor.*\n.*adamw_torch_fused"):
        check_launch(TrainingOptions(optim="adafactor"), ANY)


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"ACCELERATE_USE_DEEPSPEED": "true"}, "asked for DeepSpeed, which runs backward passes of its own"),
        ({"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "1"}, "FSDP does not bear fsdp_version: 1 here"),
    ],
)
def test_the_command_refuses_before_anything_is_written(variables, said, call, tmp_path, monkeypatch):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    data = write_dataset(tmp_path / "data").path
    code, told = call("sft", "--data", data, "--out", tmp_path / "out")
    assert code == 2 and said in told and "recipes/accelerate/fsdp.yaml" in told
    assert not (tmp_path / "out").exists()


def test_transformers_is_not_told(monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(RuntimeError), on_our_own():
        assert "ACCELERATE_USE_FSDP" not in os.environ
        raise RuntimeError
    assert os.environ["ACCELERATE_USE_FSDP"] == "true"


class Odd(torch.nn.Module):
    """A matrix, a number that stands alone, and a parameter of another dtype; one is frozen."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.matrix = torch.nn.Linear(3, 5)
        self.scale = torch.nn.Parameter(torch.tensor(2.0))
        self.wide = torch.nn.Parameter(torch.ones(4, dtype=torch.float64))
        self.frozen = torch.nn.Parameter(torch.ones(2), requires_grad=False)

    def forward(self, inputs):
        return (self.matrix(inputs) * self.scale * self.frozen.sum()).pow(2).sum() + (self.wide**3).sum()


def test_shards_are_stepped_as_whole_parameters_are_and_so_is_a_state_that_was_read(tmp_path):
    distributed.init_process_group("gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1)
    try:
        plain, model = Odd(), Odd()
        theirs = torch.optim.AdamW([each for each in plain.parameters() if each.requires_grad], lr=0.1)
        shards = Shards(model)
        trained = [shards.of(each) for each in model.parameters() if each.requires_grad]
        ours = torch.optim.AdamW(trained, lr=0.1)
        for step in range(4):
            inputs = torch.full((2, 3), 0.1 * step)
            plain(inputs).backward()
            torch.nn.utils.clip_grad_norm_(plain.parameters(), 1.0)
            theirs.step()
            theirs.zero_grad()
            model(inputs).backward()
            shards.reduce()
            shards.clip(1.0)
            ours.step()
            if step == 1:  # as if the run went on from a checkpoint
                state = shards.whole_state(ours)
                torch.testing.assert_close(state["state"], theirs.state_dict()["state"])
                ours = torch.optim.AdamW(trained, lr=0.1)
                ours.load_state_dict(shards.shard_state(ours, state))
            shards.gather()
            for one, other in zip(model.parameters(), plain.parameters(), strict=True):
                torch.testing.assert_close(one, other)
                assert type(one.data) is torch.Tensor and one.grad is None
    finally:
        distributed.destroy_process_group()
