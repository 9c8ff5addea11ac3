"""What accelerate's launcher may ask for: by its own parser of configuration files, and refused in words."""

import copy
import os
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils.launch import prepare_deepspeed_cmd_env, prepare_multi_gpu_env
from torch import distributed

from recalign.errors import UserError
from recalign.models.hardware import ANY
from recalign.training import launch
from recalign.training.launch import check_launch, engine, on_our_own, zero_stage
from recalign.training.sharding import Shards
from recalign.training.training_options import TrainingOptions
from tests.fake_dataset import write_dataset

FILES = Path(__file__).parents[2] / "recipes" / "accelerate"
ASKED = ("ACCELERATE_", "FSDP_")
with_deepspeed = pytest.mark.skipif(find_spec("deepspeed") is None, reason="deepspeed is not installed")


def launched(file, monkeypatch):
    """Set the variables that `accelerate launch --config_file` sets."""
    arguments = launch_command_parser().parse_args(["--config_file", str(file), "-m", "recalign"])
    arguments, defaults, _ = _validate_launch_command(arguments)
    arguments.deepspeed_fields_from_accelerate_config = ",".join(defaults.deepspeed_config)
    variables = prepare_deepspeed_cmd_env(arguments)[1] if arguments.use_deepspeed else prepare_multi_gpu_env(arguments)
    for name, value in variables.items():
        if name.startswith(ASKED):
            monkeypatch.setenv(name, value)


@pytest.fixture(autouse=True)
def _nothing_asked(monkeypatch):
    for name in [name for name in os.environ if name.startswith(ASKED)]:
        monkeypatch.delenv(name)


@pytest.fixture
def _installed(monkeypatch):
    """As if DeepSpeed were: what is asked of it is looked at before it is imported."""
    monkeypatch.setattr(launch, "find_spec", lambda name: name == "deepspeed")


@pytest.mark.usefixtures("_installed")
@pytest.mark.parametrize(("name", "asked"), [("ddp", ""), ("fsdp", "FSDP"), ("cpu", ""), ("deepspeed", "DeepSpeed")])
def test_the_configuration_files_are_borne(name, asked, monkeypatch):
    launched(FILES / f"{name}.yaml", monkeypatch)
    assert engine() == asked and zero_stage() == 2
    check_launch(TrainingOptions(), ANY)


@pytest.mark.usefixtures("_installed")
@pytest.mark.parametrize(
    ("name", "line", "instead", "said"),
    [
        ("fsdp", "fsdp_version: 2", "fsdp_version: 1", "does not bear fsdp_version: 1.*\n.*Write fsdp_version: 2"),
        (
            "fsdp",
            "offload_params: false",
            "offload_params: true",
            "offload_params: true.*\n.*--gradient-check",
        ),
        (
            "fsdp",
            "checkpointing: false",
            "checkpointing: true",
            "checkpointing: true.*\n.*pass --gradient-",
        ),
        (
            "fsdp",
            "efficient_loading: false",
            "efficient_loading: true",
            "_loading: true.*\n.*reads the weights",
        ),
        ("fsdp", "FULL_STATE_DICT", "SHARDED_STATE_DICT", "SHARDED_STATE_DICT.*\n.*a checkpoint holds whole weights"),
        ("deepspeed", "zero_stage: 2", "zero_stage: 3", "DeepSpeed does not bear zero_stage: 3.*\n.*it may generate"),
        ("deepspeed", "optimizer_device: none", "optimizer_device: cpu", "offload_optimizer_device: cpu"),
        ("deepspeed", "zero_stage: 2", "zero_stage: 2\n  gradient_clipping: 0.5", "gradient_clipping: 0.5"),
    ],
)
def test_what_would_be_ignored_is_refused(name, line, instead, said, tmp_path, monkeypatch):
    text = (FILES / f"{name}.yaml").read_text("utf-8")
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
        ({"ACCELERATE_USE_MEGATRON_LM": "true"}, "asked for Megatron-LM, which has models and backward passes"),
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


def test_deepspeed_that_is_not_installed(monkeypatch):
    monkeypatch.setattr(launch, "find_spec", lambda name: None)
    launched(FILES / "deepspeed.yaml", monkeypatch)
    with pytest.raises(UserError, match="DeepSpeed, which is not installed.*\n.*pip install deepspeed"):
        check_launch(TrainingOptions(), ANY)


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


@pytest.fixture(scope="module")
def _one_process(tmp_path_factory):  # one for all: DeepSpeed remembers it
    store = tmp_path_factory.mktemp("processes") / "store"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LOCAL_RANK", "0")
        distributed.init_process_group("gloo", init_method=f"file://{store}", rank=0, world_size=1)
        yield
        distributed.destroy_process_group()


def trained(model):
    return [each for each in model.parameters() if each.requires_grad]


def assert_stepped_alike(plain, model, share, optimizer=torch.optim.AdamW):
    """Steps of torch's optimizer on whole parameters, and of what `share` makes of ours."""
    theirs, shards = optimizer(trained(plain), lr=0.1), share(model, optimizer(trained(model), lr=0.1))
    for step in range(4):
        inputs = torch.full((2, 3), 0.1 * step)
        plain(inputs).backward()
        norm = torch.nn.utils.clip_grad_norm_(plain.parameters(), 1.0)
        theirs.step()
        theirs.zero_grad()
        (model(inputs) * 4).backward()
        shards.reduce(0.25)
        torch.testing.assert_close(shards.clip(1.0).to(norm), norm)
        shards.optimizer.step()
        if step == 1:  # as if the run went on from a checkpoint
            state = copy.deepcopy(shards.whole_state())
            torch.testing.assert_close(state["state"], theirs.state_dict()["state"])
            assert state["param_groups"][0]["params"] == theirs.state_dict()["param_groups"][0]["params"]
            for values in shards.optimizer.state.values():
                for value in values.values():
                    value.zero_()
            shards.load_state(state)
        shards.gather()
        for one, other in zip(model.parameters(), plain.parameters(), strict=True):
            torch.testing.assert_close(one, other)
            assert type(one.data) is torch.Tensor and one.grad is None


@pytest.mark.usefixtures("_one_process")
@pytest.mark.parametrize("optimizer", [torch.optim.AdamW, torch.optim.SGD])
def test_shards_are_stepped_as_whole_parameters_are_and_so_is_a_state_that_was_read(optimizer):
    assert_stepped_alike(Odd(), Odd(), Shards, optimizer)


@with_deepspeed
@pytest.mark.usefixtures("_one_process")
@pytest.mark.parametrize("optimizer", [torch.optim.AdamW, torch.optim.SGD])
@pytest.mark.parametrize("stage", [1, 2])
def test_deepspeed_steps_as_whole_parameters_are_stepped(stage, optimizer):
    from recalign.training.zero import ZeroShards

    plain, model = Odd().float(), Odd().float()
    assert_stepped_alike(plain, model, lambda model, optimizer: ZeroShards(model, optimizer, stage), optimizer)


@with_deepspeed
@pytest.mark.usefixtures("_one_process")
def test_deepspeed_would_step_copies_of_other_dtypes():
    from recalign.training.zero import ZeroShards

    with pytest.raises(UserError, match="trained weights of torch.float32, torch.float64.*\n.*--lora"):
        ZeroShards(Odd(), torch.optim.AdamW(trained(Odd())), 2)
