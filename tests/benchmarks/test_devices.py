"""Measuring in bfloat16 and on a GPU: what is compared, what is cast, what the tables say; on the CPU at toy sizes."""

import copy
import importlib
import math
import subprocess
import sys
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

FOLDER = Path(__file__).parents[2] / "benchmarks"
NAMES = ("inference", "machine", "plans", "rates", "run", "setting", "supervised")
TOY = {
    "hidden": 64, "layers": 1, "vocabulary": 800, "titles": 80, "training": 0, "heads": 2, "kv_heads": 1,
    "feed_forward": 96, "tied": True, "adapter": True, "dtype": "bfloat16",
}  # fmt: skip

trl = pytest.mark.skipif(find_spec("trl") is None, reason="trl is not installed")


@pytest.fixture(scope="module")
def modules():
    sys.path.insert(0, str(FOLDER))
    try:
        yield {name: importlib.import_module(name) for name in NAMES}
    finally:
        sys.path.remove(str(FOLDER))


@pytest.fixture(scope="module")
def toy(modules, tmp_path_factory):
    return modules["setting"].make_setting(modules["setting"].Size(**TOY), tmp_path_factory.mktemp("empty") / "none")


@pytest.fixture
def smoke(modules):
    return replace(modules["plans"].PLANS["smoke"], model=TOY)


def dtypes(model, trained):
    return {weight.dtype for weight in model.parameters() if weight.requires_grad == trained}


def test_what_is_timed_is_cast_and_adapters_stay_float32(toy):
    assert {weight.dtype for weight in toy.policy.model.parameters()} == {torch.float32}
    assert {weight.dtype for weight in toy.as_timed.policy.model.parameters()} == {torch.bfloat16}
    assert {buffer.dtype for buffer in toy.as_timed.policy.model.buffers()} == {torch.float32}
    model = toy.trained_as_timed.policy.model
    assert (dtypes(model, trained=False), dtypes(model, trained=True)) == ({torch.bfloat16}, {torch.float32})
    assert dtypes(toy.trained.policy.model, trained=False) == {torch.float32}


def test_in_float32_what_is_timed_is_the_setting_itself(toy):
    plain = replace(toy, dtype=torch.float32, adapter=False)
    assert plain.as_timed is plain
    assert plain.trained_as_timed is plain


def test_results_are_compared_in_float32_and_timed_in_bfloat16(modules, toy):
    ran, checked = [], []

    def works(setting):
        dtype = setting.policy.model.dtype
        return lambda: ran.append(dtype) or dtype, lambda: dtype

    pairs = modules["inference"].compared(toy, works, lambda *both: checked.append(both), 2, math.inf)
    assert checked == [(torch.float32, torch.float32)]
    assert ran == [torch.float32, torch.bfloat16, torch.bfloat16, torch.bfloat16]  # the second warms up
    assert len(pairs.ours) == 2


def test_what_is_mixed_computes_in_bfloat16(toy):
    model = copy.deepcopy(toy.policy.model)
    assert model.dtype == torch.float32
    with toy.precision():
        assert model(input_ids=torch.tensor([[1, 2, 3]])).logits.dtype == torch.bfloat16
    with replace(toy, dtype=torch.float32).precision():
        assert model(input_ids=torch.tensor([[1, 2, 3]])).logits.dtype == torch.float32


@trl
def test_losses_of_updates_in_bfloat16_agree_with_trls(modules, toy):
    pairs = modules["supervised"].update_against_trl(toy.trained_as_timed, toy.train[:2], repeats=2, seconds=math.inf)
    assert len(pairs.ours) == 2


def test_rates_of_a_gpu_stand_beside_its_products_and_count_updates(modules, toy, smoke):
    rates = modules["rates"]
    works = rates._works(toy, smoke)
    chosen = {name: works[name] for name in ("exact", "sft update")}
    decoding, update = table = rates.gpu_rates(toy, chosen, square=64)
    assert (decoding["rows a call"], decoding["rows/s"], decoding["tokens/s"]) == (20, "", "")
    prompts = sum(map(len, toy.prompts(toy.train[:2])))
    answers = sum(len(toy.policy.titles.response(row.targets)) for row in toy.train[:2])
    assert update["rows a call"] == prompts + answers
    assert update["tokens/s"] / update["rows/s"] == pytest.approx((prompts + answers) / 2)
    for row in table:
        assert row["share of the product"] == pytest.approx(row["TFLOP/s"] / row["product TFLOP/s"])
        assert row["share of the ceiling"] == pytest.approx(row["TFLOP/s"] / row["64 x 64 TFLOP/s"])
    weights = 2 * 64 * 64 + 2 * 64 * 32 + 3 * 64 * 96  # of the layer; the forward pass alone takes 2 a weight and token
    assert update["TFLOP"] > 2e-12 * weights * (prompts + answers)


def test_tokens_of_a_rollout_update_are_its_prompts_once_and_its_completions(modules):
    work = modules["rates"].Work(make=lambda: None, passed=100, rows=2, completions=8, lengths=[5.0, 6.0])
    assert work.tokens == 144


def test_llama_1b_has_the_shape_and_the_benchmarks_it_should(modules):
    plans, config = modules["plans"], modules["setting"]
    for mode in ("quick", "full"):
        size = config.Size(**plans.PLANS[f"llama-1b {mode}"].model)
        head = size.hidden // size.heads
        attention = 2 * size.hidden**2 + 2 * size.hidden * size.kv_heads * head
        layer = attention + 3 * size.hidden * size.feed_forward + 2 * size.hidden
        assert size.layers * layer + size.hidden * (size.vocabulary + 1) == 1_235_814_400  # as published
        assert size.adapter
        assert size.tied
    assert set(plans.MODELS["llama-1b"]) - set(plans.TABLES) <= set(plans.GOALS)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_refused():
    command = [sys.executable, str(FOLDER / "run.py"), "--smoke", "--device", "cuda"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "no GPU" in done.stderr


@trl
def test_a_run_in_bfloat16_reports_device_and_dtype(modules, smoke, tmp_path):
    report = modules["run"].measure(smoke, ["beam_renormalised", "rollouts", "grpo_real"], tmp_path / "none", 1)
    assert all(report[name] > 0 for name in ("beam_renormalised", "rollouts", "grpo_real"))
    assert (report["environment"]["device"], report["environment"]["dtype"]) == ("cpu", "bfloat16")
