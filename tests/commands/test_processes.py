"""Two processes end where one does that takes the rows of both at once; on CPUs, by torch's launcher."""

import json
import os
import shutil
import subprocess
import sys
from importlib.util import find_spec

import pytest
import torch
from safetensors.torch import load_file

from recalign.decoding.engine import PolicyEngine
from recalign.models.policy import load_policy
from recalign.workspace import RunFolder
from tests.fake_dataset import write_dataset
from tests.fake_distribution import install
from tests.fake_models import byte_level_tokenizer, save_model

STEPS = ["--prompts-per-step", 24, "--max-steps", 3, "--eval-every", 3]  # of all rows: the order does not matter
ALIGNED = {
    "bear": STEPS,
    "msl": ["-p", "adaptive=true", *STEPS],
    "sprec": ["-p", "rounds=2", "-p", "round_rows=16", "--prompts-per-step", 16],
    "rere": ["--reward", "ranking", "-p", "group_size=4", *STEPS],
}
# Four batches of four rows an update, and two in the last update of an epoch.
ACCUMULATED = ["--batch-size", 4, "--epochs", 2, "--valid-rows", 4, "--learning-rate", 1e-3]


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    """A dataset, and a random model that recommends no training row's target."""
    folder = tmp_path_factory.mktemp("processes")
    dataset = write_dataset(folder / "data", identifier="atomic", task="next")
    rows = dataset.rows("train")[:]
    for seed in range(100):
        policy = load_policy("builtin:tiny,hidden=16,heads=2", dataset, seed=seed)
        found = PolicyEngine(policy, dataset.catalogue, exclude_history=True).beam(rows, width=3, size=3)[0]
        if not any(row.targets[0] in items for row, items in zip(rows, found.tolist(), strict=True)):
            break
    policy.save(folder / "model")
    return folder


FSDP = {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2", "FSDP_STATE_DICT_TYPE": "FULL_STATE_DICT"}
"""What accelerate's launcher sets by recipes/accelerate/fsdp.yaml."""
DEEPSPEED = {"ACCELERATE_USE_DEEPSPEED": "true"}
ENGINES = [
    pytest.param({**FSDP, "said": "(FSDP)"}, id="FSDP"),
    *(
        pytest.param(
            {
                "ACCELERATE_USE_DEEPSPEED": "true",
                "ACCELERATE_DEEPSPEED_ZERO_STAGE": stage,
                "said": f"ZeRO stage {stage}",
            },
            id=f"ZeRO-{stage}",
            marks=pytest.mark.skipif(find_spec("deepspeed") is None, reason="deepspeed is not installed"),
        )
        for stage in "12"
    ),
]
"""Engines that share optimizer states: what the launcher sets, and what is said."""

HEAD = '''"""A head that learns how far an answer has come."""

import torch

from recalign.api import NoParams, TokenNeeds, TokenObjective, hookimpl


class Counting(TokenObjective):
    """Squared error of the head."""

    Params = NoParams
    needs = TokenNeeds(hidden_states=True, responses_only=True)
    module_makers = {"counting": lambda hidden: torch.nn.Linear(hidden, 1)}

    def loss(self, answers):
        _, lengths = answers.rows.unique_consecutive(return_counts=True)
        place = torch.cat([torch.arange(length) for length in lengths.tolist()]).to(answers.hidden)
        said = self.modules["counting"](answers.hidden.float()).squeeze(1)
        return ((said - place) ** 2).mean() + torch.nn.functional.cross_entropy(answers.logits, answers.labels), {}


@hookimpl
def recalign_objective():
    return Counting
'''


def spawn(arguments, path="", said="", **variables):
    command = [sys.executable, "-m", *map(str, arguments)]
    before = os.environ.get("PYTHONPATH", "")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [str(path), before])), **variables}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr[-2000:]
    assert said in done.stderr, done.stderr
    return done.stderr


def assert_same(one, two):
    first, second = (RunFolder(folder).record["results"] for folder in (one, two))
    assert first["updates"] == second["updates"]
    weights, others = (load_file(folder / "model" / "model.safetensors") for folder in (one, two))
    for name, value in weights.items():
        torch.testing.assert_close(others[name], value, atol=1e-4, rtol=0)
    return first, second


@pytest.mark.slow
def test_modules_beside_the_model(start, tmp_path):
    install(tmp_path / "site", "counting", {"recalign.objectives": {"counting": "counting"}}, {"counting": HEAD})
    given = ["sft", "--data", start / "data", "--model", start / "model", "--objective", "counting", *ACCUMULATED]
    given += ["--backbone", "item-vectors", "--backbone-param", "dimensions=4"]
    spawn(["recalign", *given, "--gradient-accumulation", 4, "--out", tmp_path / "one"], tmp_path / "site")
    launcher = ["torch.distributed.run", "--standalone", "--nproc_per_node", 2, "-m", "recalign"]
    spawn([*launcher, *given, "--gradient-accumulation", 2, "--out", tmp_path / "two"], tmp_path / "site")
    assert_same(tmp_path / "one", tmp_path / "two")
    modules, others = (load_file(tmp_path / run / "model" / "modules.safetensors") for run in ("one", "two"))
    assert {"counting.weight", "item_embeddings.projector.weight"} <= set(modules)
    for name, value in modules.items():
        torch.testing.assert_close(others[name], value, atol=1e-4, rtol=0)


@pytest.mark.slow
def test_rankings(call, tmp_path):
    """The head and the model, by rewards that are compared with those of the other process's rows too."""
    dataset = write_dataset(tmp_path / "data", identifier="atomic", task="rank", list_length=5)
    load_policy("builtin:tiny,hidden=16,heads=2", dataset).save(tmp_path / "model")
    given = ["align", "--data", dataset.path, "--model", tmp_path / "model", "--objective", "r2rank", "--no-report"]
    given += ["-p", "max_tokens=5", "--reward", "ndcg@5", *STEPS]
    code, told = call(*given, "--out", tmp_path / "one")
    assert code == 0, told
    spawn(["recalign", *given, "--num-processes", 2, "--out", tmp_path / "two"])
    first, second = assert_same(tmp_path / "one", tmp_path / "two")
    heads, others = (load_file(tmp_path / run / "model" / "modules.safetensors") for run in ("one", "two"))
    for name, value in heads.items():
        torch.testing.assert_close(others[name], value, atol=1e-4, rtol=0)
    assert second["best_reward"] == pytest.approx(first["best_reward"], abs=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("objective", ALIGNED)
def test_sharded(call, start, tmp_path, objective, engine):
    """Whole weights are those of one process, in checkpoints and at the end, and the optimizer's state is."""
    given = ["align", "--data", start / "data", "--model", start / "model", "--objective", objective, "--no-report"]
    given += ALIGNED[objective]
    code, told = call(*given, "--out", tmp_path / "one")
    assert code == 0, told
    spawn(["recalign", *given, "--num-processes", 2, "--out", tmp_path / "two"], **engine)
    assert_same(tmp_path / "one", tmp_path / "two")
    for one in (tmp_path / "one").glob("checkpoints/*/optimizer.pt"):
        state, other = (torch.load(run / one.relative_to(tmp_path / "one"))["state"] for run in
                        (tmp_path / "one", tmp_path / "two"))  # fmt: skip
        torch.testing.assert_close(other, state, atol=1e-5, rtol=0)


@pytest.mark.slow
@pytest.mark.parametrize("engine", ENGINES)
def test_a_sharded_adapter(call, tmp_path, engine):
    """An adapter's base is whole in every process; its own matrices are sharded, and the reference is the base."""
    dataset = write_dataset(tmp_path / "data", task="next")
    save_model(tmp_path / "hub", byte_level_tokenizer(dataset.catalogue.titles))
    given = ["align", "--data", dataset.path, "--model", tmp_path / "hub", "--lora", "--lora-rank", 2, "--no-report"]
    given += ["--objective", "grpo", "-p", "group_size=4", *STEPS, "--learning-rate", 1e-3]
    code, told = call(*given, "--out", tmp_path / "one")
    assert code == 0, told
    spawn(["recalign", *given, "--num-processes", 2, "--out", tmp_path / "two"], **engine)
    adapter, other = (load_file(tmp_path / run / "model" / "adapter_model.safetensors") for run in ("one", "two"))
    assert any("lora_B" in name and value.any() for name, value in adapter.items())
    for name, value in adapter.items():
        torch.testing.assert_close(other[name], value, atol=1e-4, rtol=0)


def interrupted(run, updates):
    """Make a finished run one that stopped after so many updates."""
    for folder in (run / "checkpoints").glob("checkpoint-*"):
        if int(folder.name.rpartition("-")[2]) > updates:
            shutil.rmtree(folder)
    shutil.rmtree(run / "model")
    record = json.loads((run / "run.json").read_text("utf-8"))
    (run / "run.json").write_text(json.dumps({**record, "status": "interrupted", "results": {}}), "utf-8")


@pytest.mark.slow
@pytest.mark.parametrize("engine", ENGINES)
def test_a_run_goes_on_with_other_numbers_of_processes(call, start, tmp_path, engine):
    """Sharded by two up to the second update, then alone; and alone up to the second, then sharded."""
    given = ["align", "--data", start / "data", "--model", start / "model", "--objective", "rere", "--no-report"]
    given += ["--reward", "ranking", "-p", "group_size=4", "--prompts-per-step", 8, "--max-steps", 4]
    given += ["--eval-every", 2, "--keep-checkpoints", 5, "--learning-rate", 1e-3]
    code, told = call(*given, "--out", tmp_path / "one")
    assert code == 0, told
    for name in ("alone", "again"):
        shutil.copytree(tmp_path / "one", tmp_path / name)
    spawn(["recalign", *given, "--num-processes", 2, "--out", tmp_path / "two"], **engine)
    assert_same(tmp_path / "one", tmp_path / "two")
    for name in ("two", "again"):
        interrupted(tmp_path / name, 2)
    code, told = call(*given, "--resume", "--out", tmp_path / "two")
    assert code == 0, told
    assert_same(tmp_path / "one", tmp_path / "two")
    spawn(["recalign", *given, "--num-processes", 2, "--resume", "--out", tmp_path / "again"], **engine)
    assert_same(tmp_path / "one", tmp_path / "again")


@pytest.mark.slow
def test_updates_that_would_have_other_rows_are_not_gone_on_with(call, start, tmp_path):
    given = ["sft", "--data", start / "data", "--model", start / "model", *ACCUMULATED, "--out", tmp_path / "run"]
    spawn(["recalign", *given, "--num-processes", 2])
    interrupted(tmp_path / "run", 3)
    code, told = call(*given, "--resume")
    assert code == 2 and "Updates had 8 rows" in told and "as many processes as before" in told


@pytest.mark.slow
@pytest.mark.parametrize("objective", ALIGNED)
def test_align(call, start, tmp_path, objective):
    given = ["align", "--data", start / "data", "--model", start / "model", "--objective", objective, "--no-report"]
    given += ALIGNED[objective]
    code, told = call(*given, "--out", tmp_path / "one")
    assert code == 0, told
    spawn(["recalign", *given, "--num-processes", 2, "--out", tmp_path / "two"])
    first, second = assert_same(tmp_path / "one", tmp_path / "two")
    assert all(each["paired"] == 16 for each in first.get("rounds", []))
    assert second["best_reward"] == pytest.approx(first["best_reward"], abs=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("engine", [pytest.param({}, id="DDP"), *ENGINES])
@pytest.mark.parametrize("objective", ["dpo", "bear"])
def test_accumulated_batches(call, start, tmp_path, objective, engine):
    given = ["sft", "--data", start / "data", "--model", start / "model", "--objective", objective, *ACCUMULATED]
    code, told = call(*given, "--gradient-accumulation", 4, "--out", tmp_path / "one")
    assert code == 0, told
    launcher = ["torch.distributed.run", "--standalone", "--nproc_per_node", 2, "-m", "recalign"]
    spawn([*launcher, *given, "--gradient-accumulation", 2, "--out", tmp_path / "two"], **engine)
    assert_same(tmp_path / "one", tmp_path / "two")
