"""Every objective on the command line, in `sft` and in `align` where it makes sense, on a tiny dataset."""

import json
import math

import pytest

from recalign.cli import main
from recalign.models.policy import load_policy
from recalign.training.trainer import read_log
from tests.fake_dataset import write_dataset

TOKEN = ["sft", "msl", "bear", "beam-exact", "cft", "igd"]
PREFERENCE = ["dpo", "dmpo", "s-dpo", "bear-s-dpo"]


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    folder = tmp_path_factory.mktemp("objectives")
    dataset = write_dataset(folder / "data", task="next")
    load_policy("builtin:tiny,hidden=16,heads=2", dataset).save(folder / "model")
    return folder


@pytest.fixture
def call(start, tmp_path, capsys):
    def run(command, *arguments, data=start / "data"):
        arguments = [command, "--data", data, "--out", tmp_path / "out", *arguments]
        with pytest.raises(SystemExit) as stop:
            main([*map(str, arguments), "--json"])
            raise SystemExit(0)
        captured = capsys.readouterr()
        return stop.value.code or 0, json.loads(captured.out), captured.err

    return run


@pytest.mark.parametrize("objective", TOKEN)
def test_sft_learns_by_every_token_objective_from_scratch(call, tmp_path, objective):
    quick = ["--model", "builtin:tiny,hidden=16,heads=2", "--epochs", 4, "--batch-size", 8, "--valid-rows", 4]
    code, result, _ = call("sft", *quick, "--objective", objective)
    assert code == 0 and result["updates"] == 12
    losses = [line["eval_loss"] for line in read_log(tmp_path / "out") if "eval_loss" in line]
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("objective", [*TOKEN, *PREFERENCE])
def test_align_goes_on_by_every_objective_on_the_data(call, start, tmp_path, objective):
    quick = ["--max-steps", 4, "--eval-every", 2, "--prompts-per-step", 8, "--no-report"]
    code, result, _ = call("align", "--model", start / "model", "--objective", objective, "--reward", "ndcg@5", *quick)
    assert code == 0 and result["updates"] == 4
    log = read_log(tmp_path / "out")
    assert result["best_reward"] == max(line["eval_reward"] for line in log if "eval_reward" in line)
    assert (tmp_path / "out" / "model" / "recalign.json").is_file()


def test_align_plays_sprec_and_reports_on_the_test_split(call, start):
    params = ["-p", "rounds=2", "-p", "round_rows=8", "--prompts-per-step", 4]
    code, result, _ = call("align", "--model", start / "model", "--objective", "sprec", *params)
    assert code == 0
    assert [each["round"] for each in result["rounds"]] == [1, 2]
    assert "ndcg@3" in result["report"]


def test_align_searches_for_rere(call, start):
    quick = ["--max-steps", 2, "--eval-every", 2, "--prompts-per-step", 4, "--no-report", "-p", "group_size=4"]
    code, result, _ = call("align", "--model", start / "model", "--objective", "rere", "--reward", "ranking", *quick)
    assert code == 0 and "entropy" not in result["diagnostics"]


def test_align_prefers_the_best_of_sampled_lists(call, tmp_path):
    dataset = write_dataset(tmp_path / "lists")
    load_policy("builtin:tiny,hidden=16,heads=2", dataset).save(tmp_path / "start")
    quick = ["--max-steps", 3, "--eval-every", 3, "--prompts-per-step", 4, "--no-report", "-p", "group_size=6"]
    code, result, _ = call(
        "align", "--model", tmp_path / "start", "--objective", "list-dpo", *quick, data=tmp_path / "lists"
    )
    first = next(line for line in read_log(tmp_path / "out") if "loss" in line)
    assert code == 0 and result["updates"] == 3
    assert first["reward_gap"] > 0
    assert first["loss"] == pytest.approx(
        math.log(2) * (1 - first["zero_variance"]), abs=1e-4
    )  # groups without a pair: 0


def test_prompts_limit_the_rows(call, start):
    quick = ["--objective", "sft", "--epochs", 1, "--rows", 10, "--prompts-per-step", 5, "--no-report"]
    code, result, _ = call("align", "--model", start / "model", *quick)
    assert code == 0 and (result["prompts"], result["updates"]) == (10, 2)


@pytest.mark.parametrize(
    ("command", "arguments", "message"),
    [
        ("sft", ["--objective", "sprec"], "recalign align --objective sprec"),
        ("sft", ["--objective", "rere"], "recalign align --objective rere"),
        ("sft", ["--objective", "beam-exact", "--loss-on", "all"], "responses only"),
        ("sft", ["--objective", "bear", "-p", "weight=9"], "less than or equal to 5"),
        ("align", ["--objective", "sprec", "--max-steps", 5], "set -p rounds"),
        ("align", ["--objective", "sprec", "-p", "negatives=2"], "decodes one title greedily"),
        ("align", ["--objective", "bear", "--updates-per-rollout", 2], "makes no rollouts"),
        ("align", ["--objective", "grpo", "--reward", "ranking"], "Use --objective rere"),
        ("align", ["--objective", "rere", "-p", "group_size=16"], "group_size=15"),
        ("align", ["--objective", "rere", "-p", "group_size=1"], "greater than or equal to 2"),
        ("align", ["--objective", "dpo", "--model", "builtin:tiny"], "starts from a supervised model"),
        ("align", ["--objective", "bear", "--reward", "ndcg@11"], "looks at 11 positions, and the lists have 10"),
        ("align", ["--reward", "assistant"], "recalign baseline sasrec"),
    ],
)
def test_bad_input_is_said_with_exit_code_2(call, start, command, arguments, message):
    model = [] if "builtin:tiny" in arguments else ["--model", start / "model"]
    code, result, err = call(command, *model, *arguments)
    assert code == 2
    assert message in f"{result['error']} {result.get('hint')}".replace("\n", " ")
    assert "Traceback" not in err
