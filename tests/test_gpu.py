"""On a GPU, what the other tests hold on a CPU: the same numbers in float32, near ones in bfloat16, and every command.

Where there is no GPU these tests are skipped. `RECALIGN_TEST_DEVICE=cpu` runs them on a CPU against itself, through the
branches that a GPU takes, so that a mistake in a test shows before a GPU is at hand.
"""

import json
import os
import signal
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
import torch
from safetensors.torch import load_file

from recalign import cli
from recalign.api import DECISION, RATIONALE
from recalign.data.dataset import PreparedDataset
from recalign.decoding import prompt_cache, shared_attention
from recalign.decoding.engine import PolicyEngine
from recalign.metrics.expression import parse_expression
from recalign.models.hardware import Hardware
from recalign.models.lora import LoraOptions
from recalign.models.policy import load_policy, reference_policy
from recalign.plugins.registry import create
from recalign.training.logprobs.completions import completion_logps
from recalign.training.offline.examples import AnswerExamples, collate
from recalign.training.offline.negatives import Negatives
from recalign.training.offline.preference_step import PreferenceExamples, PreferenceStep
from recalign.training.offline.token_step import TokenStep
from recalign.training.online.prompt_order import PromptOrder
from recalign.training.online.rank_step import RankStep
from recalign.training.online.rollout_step import RolloutStep
from recalign.training.online.rollouts import as_sampled
from recalign.training.trainer import read_log
from recalign.workspace import RunFolder
from tests.decoding.doubles import make_engine, random_paths, row, tiny_model
from tests.fake_dataset import TITLES, write_dataset
from tests.fake_models import byte_level_tokenizer, save_model
from tests.training.updates import gradients, update

DEVICE = os.environ.get("RECALIGN_TEST_DEVICE", "cuda")
pytestmark = pytest.mark.skipif(DEVICE == "cuda" and not torch.cuda.is_available(), reason="no GPU is here")
CLOSE = {"atol": 2e-4, "rtol": 2e-4}
"""How far two machines' sums of float32 products are apart, in nats."""


@pytest.fixture(autouse=True)
def _as_a_gpu_does(monkeypatch):
    """Products of float32 are of float32; the trial on a CPU takes a GPU's branches."""
    torch.set_float32_matmul_precision("highest")
    if DEVICE == "cpu":
        monkeypatch.setattr(shared_attention, "ROW_BY_ROW", set())
        monkeypatch.setattr(prompt_cache, "TOKENS_A_PASS", {True: 32768, False: 32768})


# ---------------------------------------------------------------- decoding

ROWS = [row(place, history) for place, history in enumerate(([0, 1, 2], [3], [4, 5, 6, 7, 8], [9, 2]))]


def engines(kind="llama", dtype=torch.float32, **options):
    """The same random model on the CPU in float32 and on the device in another format."""
    formats = ({"device": "cpu"}, {"device": DEVICE, "dtype": dtype})
    return tuple(make_engine(random_paths(40), model=tiny_model(kind).to(**each), **options) for each in formats)


def assert_same_lists(found, expected, **near):
    """Best-first lists with their scores [U, K]: what is clearly above the last title is in both lists."""
    (items, scores), (wanted, marks) = found[:2], expected[:2]
    assert items.device.type == scores.device.type == "cpu"
    torch.testing.assert_close(scores, marks, **near)
    clear = marks > marks[:, -1:] + near["atol"]
    for line, other, sure in zip(items, wanted, clear, strict=True):
        assert set(other[sure].tolist()) <= set(line.tolist())


@pytest.mark.parametrize("kind", ["llama", "qwen2", "gpt2", "mistral"])
@pytest.mark.parametrize("scoring", ["full", "renormalised"])
def test_searches_find_the_titles_that_they_find_on_a_cpu(kind, scoring):
    here, there = engines(kind, exclude_history=True)
    assert there.policy.model.device.type == DEVICE and there.obstacle == ""
    searches = [
        lambda engine: engine.beam(ROWS, width=6, size=5, scoring=scoring),
        lambda engine: engine.beam(ROWS, width=4, size=4, scoring=scoring, length_penalty=0.7),
        lambda engine: engine.exact(ROWS, size=5, scoring=scoring),
    ]
    for search in searches:
        assert_same_lists(search(there), search(here), **CLOSE)


def test_models_that_share_no_prompts_are_served_too():
    here, there = engines("bloom")
    assert there.obstacle
    assert_same_lists(there.beam(ROWS, width=5, size=4), here.beam(ROWS, width=5, size=4), **CLOSE)
    assert torch.equal(*(each.sample(ROWS, group_size=2, list_length=3, seed=1).items for each in (here, there)))


def test_thresholds_are_those_of_a_cpu():
    here, there = (engine.thresholds(ROWS, width=4) for engine in engines())
    torch.testing.assert_close(there.going, here.going, **CLOSE)
    torch.testing.assert_close(there.ending, here.ending, **CLOSE)
    assert torch.equal(there.decided, here.decided)


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_lists_are_sampled_with_the_same_random_numbers(kind):
    """Numbers are drawn by address, in NumPy: a token differs only where one falls within rounding of a boundary."""
    here, there = engines(kind, exclude_history=True)
    for constrained in (True, False):
        asked = dict(group_size=4, list_length=3, temperature=0.8, repetition_penalty=1.1, seed=2)
        one, two = (each.sample(ROWS, constrained=constrained, **asked) for each in (here, there))
        assert torch.equal(two.tokens, one.tokens) and torch.equal(two.items, one.items)
        torch.testing.assert_close(two.logps, one.logps, **CLOSE)
        one, two = (each.greedy(ROWS, list_length=3, constrained=constrained) for each in (here, there))
        assert torch.equal(two.tokens, one.tokens)


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_log_probabilities_and_states_are_those_of_a_cpu(kind):
    found = []
    for engine in engines(kind):
        lists = engine.sample(ROWS, group_size=3, list_length=3, seed=3)
        sampled = as_sampled(engine, ROWS, lists, 1.0, 1.1)
        logps = [completion_logps(engine.policy.model, sampled, tree_mask=mask).cpu() for mask in (True, False)]
        after = engine.hidden(ROWS, [np.array([4, 5]), np.array([6])], owners=[2, 0], positions=[[0, 1], [0]])
        found.append((*logps, engine.hidden(ROWS).cpu(), after.cpu()))
    for one, two in zip(*found, strict=True):
        torch.testing.assert_close(two, one, **CLOSE)


@pytest.mark.parametrize("kind", ["llama", "qwen2", "gpt2"])
def test_bfloat16_is_near_float32(kind):
    here, there = engines(kind, dtype=torch.bfloat16)
    assert there.obstacle == ""
    lists = here.sample(ROWS, group_size=3, list_length=3, seed=3)
    one, two = (
        completion_logps(each.policy.model, as_sampled(each, ROWS, lists, 1.0, 1.0)).cpu() for each in (here, there)
    )
    assert two.dtype == torch.float32
    assert (one - two).abs().mean() < 0.05 and (one - two).abs().max() < 0.6
    for scoring in ("full", "renormalised"):
        marks, scores = (each.exact(ROWS, size=4, scoring=scoring)[1] for each in (here, there))
        torch.testing.assert_close(scores, marks, atol=0.6, rtol=0.05)
        items, found = there.beam(ROWS, width=6, size=4, scoring=scoring)
        assert (items >= 0).all() and (found <= 1e-3).all()
    states = [each.hidden(ROWS).cpu().float() for each in (here, there)]
    assert (states[0] - states[1]).norm() < 0.05 * states[0].norm()
    own = there.sample(ROWS, group_size=3, list_length=3, seed=3)
    again = completion_logps(there.policy.model, as_sampled(there, ROWS, own, 1.0, 1.0)).cpu()
    assert (again - own.logps).abs().mean() < 0.05
    assert torch.isfinite(there.thresholds(ROWS, width=4).ending).all()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_candidates_are_judged_as_on_a_cpu(worlds, dtype):
    found = []
    for where, format_ in (("cpu", "float32"), (DEVICE, dtype)):
        engine = engine_of(worlds, "rank", where, dtype=format_, model=worlds["llama"], sharpness=1.0)
        rows = worlds["rank"].rows("test")[:3]
        asked = dict(form=RATIONALE, group_size=2, max_tokens=6, temperature=0.9, seed=1, states="decision")
        answers = engine.questions.rationales(rows, **asked)
        logps, states = engine.questions.logps(
            rows, answers, form=RATIONALE, max_tokens=6, temperature=0.9, states="decision"
        )
        words = engine.questions.word_logits(rows, form=DECISION).cpu()
        found.append((answers, logps.detach().cpu(), answers.states.cpu(), states.detach().cpu(), words))
        bound = 1e-3 if format_ == "float32" else 0.5
        torch.testing.assert_close(found[-1][1], answers.logps, atol=bound, rtol=bound)
    if dtype == "float32":
        assert torch.equal(found[1][0].tokens, found[0][0].tokens)
        for one, two in zip(found[0][1:], found[1][1:], strict=True):
            torch.testing.assert_close(two, one, **CLOSE)
    else:
        torch.testing.assert_close(found[1][4], found[0][4], atol=0.3, rtol=0.1)


# ---------------------------------------------------------------- updates


@pytest.fixture(scope="module")
def worlds(tmp_path_factory):
    """A small dataset of each task, and a random model as if it had been downloaded."""
    folder = tmp_path_factory.mktemp("worlds")
    made = {
        "list": write_dataset(folder / "list"),
        "next": write_dataset(folder / "next", task="next"),
        "rank": write_dataset(folder / "rank", task="rank", list_length=4),
    }
    return {**made, "llama": save_model(folder / "llama", byte_level_tokenizer(TITLES), context=2048)}


def engine_of(worlds, task, device, *, dtype="float32", lora=False, model="builtin:tiny,hidden=32", sharpness=0.3):
    """An engine whose model is the same on every device: numbers from the CPU are added to what is trained."""
    options = {"model": worlds["llama"], "lora": LoraOptions(rank=4)} if lora else {"model": model}
    name = options.pop("model")
    policy = load_policy(
        name, worlds[task], trainable=True, dtype=dtype, hardware=Hardware(device=device),
        template=None if str(name).startswith("builtin") else "alpaca", **options,
    )  # fmt: skip
    policy.model.eval()
    shake(policy.model, sharpness)
    return PolicyEngine(policy, worlds[task].catalogue, exclude_history=task != "rank")


@torch.no_grad()
def shake(module, size):
    """Add random numbers, drawn on the CPU, to the matrices that are trained."""
    generator = torch.Generator().manual_seed(1)
    for weight in module.parameters():
        if weight.requires_grad and weight.dim() > 1:
            noise = torch.randn(weight.shape, generator=generator) * weight.shape[1] ** -0.5
            weight.add_(noise.to(weight), alpha=size)


def token_step(worlds, objective, **how):
    engine = engine_of(worlds, "next", **how)
    plugin = create("objective", *objective)
    examples = AnswerExamples(engine.policy, worlds["next"].rows("train"), 1)
    batch = [replace(examples.rows[index], history=examples.rows[index].history[: 2 + index % 3]) for index in range(6)]
    examples.rows = batch
    return TokenStep(engine.policy, plugin, engine), collate(
        [examples[0, i] for i in range(6)], pad=0, all_tokens=False
    )


def preference_step(worlds, objective, **how):
    engine = engine_of(worlds, "next", **how)
    plugin, policy = create("objective", *objective), engine.policy
    reference = reference_policy(policy)
    shake(policy.model, 0.1)  # away from the reference
    negatives = Negatives(engine, plugin.params.source, plugin.params.negatives, 3)
    examples = PreferenceExamples(AnswerExamples(policy, worlds["next"].rows("train"), 1))
    return PreferenceStep(policy, plugin, engine, reference, negatives), [examples[0, index] for index in range(5)]


class _References:
    """Eight stored lists of each row."""

    def of(self, rows):
        return np.random.default_rng(0).integers(0, len(TITLES), size=(len(rows), 8, 3))


def rollout_step(worlds, objective, **how):
    engine, rows = engine_of(worlds, "list", **how), worlds["list"].rows("train")[:5]
    plugin = create("objective", *objective)
    reference = reference_policy(engine.policy)
    shake(engine.policy.model, 0.1)
    order = PromptOrder(np.arange(5), 5, seed=0)
    expression = parse_expression("ndcg").bind(engine.catalogue)
    references = _References() if plugin.needs.reference_lists else None
    step = RolloutStep(engine.policy, engine, plugin, expression, rows, order, references, reference, seed=3)
    return step, [0]


def rank_step(worlds, objective, **how):
    engine, rows = engine_of(worlds, "rank", **how), worlds["rank"].rows("train")[:3]
    plugin = create("objective", *objective)
    plugin.modules = engine.policy.attach(plugin.module_makers)
    for module in plugin.modules.values():
        shake(module, 1.0)
    expression = parse_expression("ndcg@3").bind(engine.catalogue)
    order = PromptOrder(np.arange(3), 3, seed=0)
    return RankStep(engine, plugin, expression, rows, order, reference_policy(engine.policy), seed=3), [0]


UPDATES = [
    (token_step, "sft", {}),
    (token_step, "msl", {"adaptive": True}),
    (token_step, "bear", {}),
    (token_step, "beam-exact", {}),
    (token_step, "cft", {}),
    (preference_step, "s-dpo", {}),
    (preference_step, "s-dpo", {"constrained": True}),
    (preference_step, "bear-s-dpo", {}),
    (rollout_step, "grpo", {"group_size": 4}),
    (rollout_step, "bon", {"group_size": 4}),
    (rollout_step, "blade", {"group_size": 4}),
    (rank_step, "r2rank", {"max_tokens": 5, "sets": 2, "kl_beta": 0.1}),
    (rank_step, "r2rank", {"max_tokens": 5, "through_head": True}),
    (rank_step, "list-mle", {"max_tokens": 5}),
]
NAMES = ["-".join([name, *params]) for _, name, params in UPDATES]


def updated(build, worlds, objective, **how):
    """Loss, figures and gradients of one update, on the CPU."""
    step, batch = build(worlds, objective, **how)
    loss, figures = update(step, batch)
    return loss.cpu(), figures, {name: each.float().cpu() for name, each in gradients(step.policy.model).items()}


def distance(found, expected):
    """Norm of the difference of two sets of gradients, as a share of the norm of the second."""
    assert found.keys() == expected.keys()
    size = sum(each.square().sum() for each in expected.values()).sqrt()
    assert size > 0
    return float(sum((found[name] - each).square().sum() for name, each in expected.items()).sqrt() / size)


@pytest.mark.parametrize(("build", "name", "params"), UPDATES, ids=NAMES)
@pytest.mark.parametrize("lora", [False, True])
def test_an_update_has_the_loss_and_gradient_of_a_cpu(worlds, build, name, params, lora):
    here, there = (updated(build, worlds, (name, params), device=where, lora=lora) for where in ("cpu", DEVICE))
    torch.testing.assert_close(there[0], here[0], atol=1e-4, rtol=1e-3)
    assert distance(there[2], here[2]) < 2e-3
    assert there[1].get("sampling_gap", 0.0) < 1e-3
    for figure, value in here[1].items():
        assert there[1][figure] == pytest.approx(value, abs=1e-3, rel=1e-2), figure


@pytest.mark.parametrize(("build", "name", "params"), UPDATES, ids=NAMES)
def test_an_update_in_bfloat16_is_near_that_in_float32(worlds, build, name, params):
    """What was sampled may be other lists, whose losses are compared with nothing."""
    how = {"device": DEVICE, "lora": True}
    loss, figures, found = updated(build, worlds, (name, params), dtype="bfloat16", **how)
    assert torch.isfinite(loss) and all(torch.isfinite(each).all() for each in found.values())
    assert sum(each.abs().sum() for each in found.values()) > 0
    assert figures.get("sampling_gap", 0.0) < 0.5
    if build in (token_step, preference_step):
        expected = updated(build, worlds, (name, params), **how)
        torch.testing.assert_close(loss, expected[0], atol=0.1, rtol=0.1)
        assert distance(found, expected[2]) < 0.5


# ---------------------------------------------------------------- commands


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """The embedded dataset by task, and a model of each task after two updates."""
    folder = tmp_path_factory.mktemp("prepared")
    size = ["-p", "users=60", "-p", "items=40", "-p", "genres=4", "-p", "events=14", "--quiet"]
    sizes = {"next": [], "list": ["--list-length", 3], "rank": ["--candidates", 4]}
    for task, options in sizes.items():
        assert run("prepare", "synthetic", *size, "--task", task, *options, "--out", folder / task) == 0
    for task in ("next", "list"):
        options = ["--data", folder / task, "--out", folder / f"sft-{task}", *TINY]
        assert run("sft", *options) == 0
    titles = PreparedDataset(folder / "next").catalogue.titles
    save_model(folder / "hub", byte_level_tokenizer(list(titles)), hidden=32, context=2048)
    return folder


ON = ["--device", DEVICE, "--quiet"]
TINY = [*ON, "--model", "builtin:tiny,hidden=32,layers=1", "--max-steps", 2, "--batch-size", 8, "--valid-rows", 8]
ROLLOUTS = ["--max-steps", 4, "--eval-every", 1, "--prompts-per-step", 4, "--no-report", "--valid-rows", 8,
            "--learning-rate", 0.003]  # fmt: skip
FEW = ["-p", "group_size=4", "-p", "reference_lists=4"]


def run(*arguments):
    with pytest.raises(SystemExit) as stop:
        cli.main([*map(str, arguments)])
    return stop.value.code or 0


def assert_memory(megabytes):
    """Of a GPU's own memory a tiny model takes little; the process around it takes gigabytes."""
    assert 0 < megabytes < (500 if DEVICE == "cuda" else 64_000)


def test_supervised_training_computes_in_bfloat16_and_keeps_float32(prepared):
    record = RunFolder(prepared / "sft-next").record
    assert record["status"] == "done" and record["results"]["updates"] == 2
    assert_memory(record["results"]["cost"]["peak_memory_mb"])
    weights = load_file(prepared / "sft-next" / "model" / "model.safetensors")
    assert {each.dtype for each in weights.values()} == {torch.float32}
    assert all(torch.isfinite(each).all() for each in weights.values())


@pytest.mark.parametrize("dtype", ["auto", "bfloat16", "float32"])
def test_an_adapter_is_trained_and_aligned(prepared, tmp_path, dtype):
    training = [*ON, "--data", prepared / "list", "--model", prepared / "hub", "--lora", "--lora-rank", 4]
    options = ["--max-steps", 2, "--batch-size", 4, "--valid-rows", 4, "--dtype", dtype]
    assert run("sft", *training, *options, "--out", tmp_path / "sft") == 0
    align = ["--data", prepared / "list", "--model", tmp_path / "sft", "--reward", "ndcg", "--dtype", dtype]
    assert run("align", *ON, *align, *ROLLOUTS, *FEW, "--objective", "blade", "--out", tmp_path / "align") == 0
    assert (tmp_path / "align" / "model" / "adapter_model.safetensors").is_file()
    assert max(line["sampling_gap"] for line in read_log(tmp_path / "align") if "sampling_gap" in line) < 0.5


def test_alignment_samples_and_learns_in_the_same_numbers(prepared, tmp_path):
    options = ["--data", prepared / "list", "--model", prepared / "sft-list", "--reward", "ndcg", *ROLLOUTS, *FEW]
    assert run("align", *ON, *options, "--objective", "blade", "--out", tmp_path / "align") == 0
    record, log = RunFolder(tmp_path / "align").record, read_log(tmp_path / "align")
    assert record["results"]["updates"] == 4
    assert_memory(record["results"]["memory"]["peak_memory_mb"])
    assert max(line["sampling_gap"] for line in log if "sampling_gap" in line) < 0.1
    assert run("decode", *ON, "--data", prepared / "list", "--model", tmp_path / "align", "--decoder", "bon",
               "--limit", 8, "--out", tmp_path / "bon") == 0  # fmt: skip
    assert run("eval", tmp_path / "bon", "--quiet") == 0


@pytest.mark.filterwarnings("ignore")
def test_an_interrupted_alignment_ends_where_the_uninterrupted_one_does(prepared, tmp_path, monkeypatch):
    """Kernels that add in any order differ by rounding; a lost state of the optimizer would differ by whole steps."""
    options = ["--data", prepared / "list", "--model", prepared / "sft-list", "--reward", "ndcg", *ROLLOUTS, *FEW]
    command = ["align", *ON, *options, "--objective", "blade", "--dtype", "float32"]
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        assert run(*command, "--out", tmp_path / "whole") == 0
        accumulate = RolloutStep.accumulate

        def interrupted(self, model, batch, update):
            if int(batch[0]) == 2:
                signal.raise_signal(signal.SIGINT)
            return accumulate(self, model, batch, update)

        monkeypatch.setattr(RolloutStep, "accumulate", interrupted)
        assert run(*command, "--out", tmp_path / "cut") == 130
        monkeypatch.setattr(RolloutStep, "accumulate", accumulate)
        assert run(*command, "--out", tmp_path / "cut", "--resume") == 0
    finally:
        torch.use_deterministic_algorithms(False)
    whole, cut = (read_log(tmp_path / name) for name in ("whole", "cut"))
    rewards = [[line["reward"] for line in log if "reward" in line] for log in (whole, cut)]
    assert len(rewards[0]) == 4
    assert rewards[1] == pytest.approx(rewards[0], abs=1e-6)
    files = [load_file(tmp_path / name / "model" / "model.safetensors") for name in ("whole", "cut")]
    moved = load_file(prepared / "sft-list" / "model" / "model.safetensors")
    apart = torch.cat([(files[0][name] - files[1][name]).abs().flatten() for name in moved]).mean()
    assert apart < 0.02 * torch.cat([(files[0][name] - moved[name]).abs().flatten() for name in moved]).mean()


def test_decoders_and_recommenders_make_lists_that_are_measured(prepared, tmp_path):
    data = ["--data", prepared / "next", "--quiet"]
    assert run("baseline", "sasrec", *data, "-p", "epochs=2", "-p", "hidden=16", "--out", tmp_path / "sasrec") == 0
    made = {"sasrec": tmp_path / "sasrec"}
    for decoder, *options in (["beam"], ["beam", "-p", "scoring=full"], ["exact"], ["igd"], ["greedy"], ["sample"],
                              ["d3", "-p", f"assistant={tmp_path / 'sasrec'}"]):  # fmt: skip
        out = made[f"{decoder}{len(options)}"] = tmp_path / f"{decoder}{len(options)}"
        decode = ["--model", prepared / "sft-next", "--decoder", decoder, *options, "--limit", 16, "--out", out]
        assert run("decode", *ON, "--data", prepared / "next", *decode) == 0
        assert_memory(RunFolder(out).record["results"]["cost"]["peak_memory_mb"])
    for out in made.values():
        assert run("eval", out, "--quiet", "--metrics", "ndcg@3,recall@3") == 0
        measured = json.loads((out / "eval" / "metrics.json").read_text())["metrics"]
        assert 0 <= measured["ndcg@3"]["mean"] <= 1
    lists = [pl.read_parquet(made[name] / "predictions.parquet")["items"].to_list() for name in ("beam0", "exact0")]
    assert np.mean([one[0] == two[0] for one, two in zip(*lists, strict=True)]) >= 0.75


@pytest.mark.parametrize("name", ["sasrec", "bert4rec"])
def test_recommenders_score_as_on_a_cpu(name):
    from recalign.recommenders.sequential_model import SequentialModel
    from recalign.recommenders.sequential_params import SequentialParams

    torch.manual_seed(0)
    masked = None if name == "sasrec" else 0.2
    here = SequentialModel(40, SequentialParams(hidden=16, heads=2, layers=2), masked_share=masked)
    with torch.no_grad():
        for weight in here.parameters():
            weight.add_(torch.randn(weight.shape), alpha=0.3)
    there = SequentialModel(40, here.params, masked_share=masked)
    there.load_state_dict(here.state_dict())
    there.to(DEVICE)
    np.testing.assert_allclose(there.scores(ROWS), here.scores(ROWS), atol=1e-3, rtol=1e-3)
    sequences = [each.history for each in ROWS if len(each.history) > 1]
    for model in (here, there):
        model.eval()  # no dropout
        model.loss(sequences, np.random.default_rng(0)).backward()
    grads = [{key: each.grad.cpu() for key, each in model.named_parameters()} for model in (here, there)]
    assert distance(grads[1], grads[0]) < 2e-3


def test_a_ranker_is_trained_and_aligned(prepared, tmp_path):
    judge = ["--objective", "judge", "--data", prepared / "rank", "--out", tmp_path / "sft"]
    assert run("sft", *TINY, *judge) == 0
    align = ["--data", prepared / "rank", "--model", tmp_path / "sft", "--objective", "r2rank", "--reward", "ndcg@3"]
    assert run("align", *ON, *align, *ROLLOUTS, "-p", "max_tokens=6", "--out", tmp_path / "align") == 0
    assert max(line["sampling_gap"] for line in read_log(tmp_path / "align") if "sampling_gap" in line) < 0.1
    assert run("decode", *ON, "--data", prepared / "rank", "--model", tmp_path / "align", "--limit", 8,
               "--out", tmp_path / "lists") == 0  # fmt: skip
    assert run("eval", tmp_path / "lists", "--quiet", "--metrics", "ndcg@3,auc") == 0


def test_doctor_shows_where_models_compute(capsys):
    assert run("doctor", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["devices"][0]["device"].startswith(DEVICE)
    if DEVICE == "cuda":
        assert 0 < found["devices"][0]["free_gb"] <= found["devices"][0]["total_gb"]
        assert found["devices"][0]["name"] == torch.cuda.get_device_name(0)
