"""Self-play: a round is plain fine-tuning and plain DPO, resuming changes nothing, the best round is kept."""

import signal

import numpy as np
import pytest
import torch

from recalign.api import INVALID, UserError
from recalign.decoding.engine import PolicyEngine
from recalign.metrics.expression import parse_expression
from recalign.models.lora import LoraOptions, reference_model, renew_reference
from recalign.models.policy import load_policy
from recalign.plugins.registry import create
from recalign.reading import read_json
from recalign.training.offline import negatives, self_play
from recalign.training.offline.self_play import play
from recalign.training.supervised import SftOptions, train_supervised
from recalign.training.trainer import RecalignTrainer, read_log
from recalign.training.training_options import TrainingOptions
from recalign.training.validation import Validated, Validation
from tests.fake_dataset import TITLES, write_dataset
from tests.fake_models import byte_level_tokenizer, save_model

TRAINING = TrainingOptions(epochs=1, batch_size=8, learning_rate=3e-3, best_metric="reward", log_every=1)


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    """A dataset, and a random model that recommends no training row's target."""
    folder = tmp_path_factory.mktemp("play")
    dataset = write_dataset(folder / "data", task="next")
    for seed in range(100):
        policy = load_policy("builtin:tiny,hidden=16,heads=2", dataset, seed=seed)
        rows = dataset.rows("train")[:]
        found = PolicyEngine(policy, dataset.catalogue, exclude_history=True).greedy(rows, list_length=1).items[:, 0]
        if not any(int(item) in row.targets for item, row in zip(found, rows, strict=True)):
            break
    policy.save(folder / "model")
    return dataset, folder / "model"


def self_play_of(start, out, *, resume=False, model=None, lora=None, **params):
    """Play with a fresh copy of the starting policy; returns results and weights."""
    dataset, saved = start
    policy = load_policy(model or saved, dataset, trainable=True, lora=lora)
    engine = PolicyEngine(policy, dataset.catalogue, exclude_history=True)
    validation = Validation(
        engine, dataset.rows("valid")[:], parse_expression("ndcg@10").bind(dataset.catalogue), "reward"
    )
    objective = create("objective", "sprec", {"rounds": 2, "round_rows": 16, **params})
    results = play(objective, objective.needs.rounds, validation, dataset.rows("train"), out, TRAINING, resume=resume)
    return results, {name: value.clone() for name, value in policy.model.state_dict().items()}


def assert_same(weights, others):
    assert weights.keys() == others.keys()
    for name, value in weights.items():
        assert torch.equal(value, others[name]), name


def test_one_round_is_plain_fine_tuning_and_then_plain_dpo(start, tmp_path, monkeypatch):
    dataset, model = start
    results, weights = self_play_of(start, tmp_path / "play", rounds=1, round_rows=24)
    with np.load(tmp_path / "play" / "rounds" / "1" / "rejected.npz") as stored:
        rejected = stored["items"][:, 0]
    policy = load_policy(model, dataset)
    rows = dataset.rows("train")[:]
    greedy = PolicyEngine(policy, dataset.catalogue, exclude_history=True).greedy(rows, list_length=1).items[:, 0]
    assert rejected.tolist() == greedy.tolist()  # of the policy as it was before the round
    assert results["rounds"][0]["paired"] == 24

    def plain(name, objective, model):
        training = TrainingOptions(epochs=1, batch_size=8, learning_rate=3e-3, best_metric="metric", log_every=1)
        params = {"beta": 0.1} if objective == "dpo" else {}
        options = SftOptions(model=str(model), objective=objective, params=params, training=training, metric="ndcg@10")
        train_supervised(dataset, tmp_path / name, options)
        return tmp_path / name

    tuned = plain("sft", "sft", model)
    monkeypatch.setitem(negatives.SOURCES, "uniform", lambda _, rows, epoch: [rejected[[row.index]] for row in rows])
    preferred = load_policy(plain("dpo", "dpo", tuned), dataset)
    assert_same(weights, preferred.model.state_dict())


def test_rounds_draw_other_rows_and_learn(start, tmp_path):
    results, weights = self_play_of(start, tmp_path / "out")
    first, second = results["rounds"]
    assert (first["round"], second["round"], first["rows"], second["rows"]) == (1, 2, 16, 16)
    log = read_log(tmp_path / "out")
    stages = [(line["round"], line["stage"]) for line in log if "loss" in line]
    assert [stage for place, stage in enumerate(stages) if stage not in stages[:place]] == [
        (1, "sft"),
        (1, "preference"),
        (2, "sft"),
        (2, "preference"),
    ]
    assert results["updates"] == len(stages)
    rejected = [np.load(tmp_path / "out" / "rounds" / str(number) / "rejected.npz")["items"] for number in (1, 2)]
    assert not np.array_equal(*rejected)


def test_the_best_round_is_in_place_at_the_end_and_others_are_tidied(start, tmp_path, monkeypatch):
    rewards = iter([0.1, 0.9, 0.1, 0.5, 0.1, 0.7])
    monkeypatch.setattr(Validation, "decode", lambda self: Validated({"reward": next(rewards)}))
    results, weights = self_play_of(start, tmp_path / "out", rounds=3)
    assert results["best_reward"] == 0.9
    assert results["best_update"] == results["rounds"][0]["updates"]
    best = load_policy(tmp_path / "out" / "rounds" / "1" / "preference" / "model", start[0])
    assert_same(weights, best.model.state_dict())
    models = {path.parent.parent.name for path in (tmp_path / "out").glob("rounds/*/preference/model")}
    assert models == {"1", "3"}
    assert not list((tmp_path / "out").glob("rounds/*/*/checkpoints"))


@pytest.mark.parametrize("stage", [2, 3, 4])
def test_a_run_that_stopped_between_stages_ends_where_the_uninterrupted_one_does(start, tmp_path, monkeypatch, stage):
    expected, weights = self_play_of(start, tmp_path / "whole")
    run, begun = RecalignTrainer.run, []

    def cut(self, **options):
        begun.append(self)
        if len(begun) == stage:
            raise KeyboardInterrupt
        return run(self, **options)

    monkeypatch.setattr(RecalignTrainer, "run", cut)
    with pytest.raises(KeyboardInterrupt):
        self_play_of(start, tmp_path / "cut")
    monkeypatch.setattr(RecalignTrainer, "run", run)
    results, resumed = self_play_of(start, tmp_path / "cut", resume=True)
    assert results["best_reward"] == expected["best_reward"]
    assert_same(weights, resumed)


@pytest.mark.parametrize("update", [1, 5])
def test_a_run_that_stopped_within_a_stage_ends_where_the_uninterrupted_one_does(start, tmp_path, monkeypatch, update):
    _, weights = self_play_of(start, tmp_path / "whole", round_rows=24)
    compute, calls = RecalignTrainer.training_step, []

    def interrupted(self, *arguments, **keywords):
        calls.append(1)
        if len(calls) == update:
            signal.raise_signal(signal.SIGINT)
        return compute(self, *arguments, **keywords)

    monkeypatch.setattr(RecalignTrainer, "training_step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        self_play_of(start, tmp_path / "cut", round_rows=24)
    monkeypatch.setattr(RecalignTrainer, "training_step", compute)
    _, resumed = self_play_of(start, tmp_path / "cut", round_rows=24, resume=True)
    assert_same(weights, resumed)


def test_a_finished_run_is_read_and_not_played_again(start, tmp_path, monkeypatch):
    expected, weights = self_play_of(start, tmp_path / "out")
    monkeypatch.setattr(self_play, "_play_round", None)
    results, again = self_play_of(start, tmp_path / "out", resume=True)
    assert results == expected
    assert_same(weights, again)


def test_a_policy_that_recommends_every_target_is_only_fine_tuned(start, tmp_path, monkeypatch):
    monkeypatch.setitem(negatives.SOURCES, "greedy", lambda _, rows, epoch: [np.zeros(0, dtype=np.int64) for _ in rows])
    results, _ = self_play_of(start, tmp_path / "out", rounds=1)
    assert results["rounds"][0]["paired"] == 0
    assert results["rounds"][0]["reward"] == results["rounds"][0]["reward_fine_tuned"]
    assert read_json(tmp_path / "out" / "rounds" / "1" / "preference" / "results.json")["updates"] == 0
    assert (np.load(tmp_path / "out" / "rounds" / "1" / "rejected.npz")["items"] == INVALID).all()


def test_several_negatives_come_from_the_beam(start, tmp_path):
    results, _ = self_play_of(start, tmp_path / "out", rounds=1, source="self", negatives=2)
    assert results["rounds"][0]["paired"] == 16
    with pytest.raises(UserError, match="decodes one title greedily"):
        self_play_of(start, tmp_path / "greedy", negatives=2)


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    return save_model(tmp_path_factory.mktemp("hub"), byte_level_tokenizer(TITLES), family="qwen2")


@pytest.mark.parametrize("identifier", ["title", "atomic"])  # atomic: the rows of new tokens are trained too
def test_an_adapters_reference_is_its_state_when_it_was_renewed(tmp_path, hub, identifier):
    dataset = write_dataset(tmp_path / "data", task="next", identifier=identifier)
    policy = load_policy(hub, dataset, lora=LoraOptions(rank=2), trainable=True)
    model, tokens = policy.model.eval(), torch.arange(5, 15)[None]

    def shift(size):
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.requires_grad:
                    parameter.add_(size * torch.ones_like(parameter))

    def reference_logits():
        with torch.no_grad(), reference_model(model)() as reference:
            return reference(input_ids=tokens).logits

    for _ in range(2):  # renewed again after further updates
        shift(0.05)
        expected = model(input_ids=tokens).logits.detach()
        renew_reference(model)
        torch.testing.assert_close(reference_logits(), expected)
        shift(0.05)
        torch.testing.assert_close(reference_logits(), expected)
        assert not torch.allclose(model(input_ids=tokens).logits, expected, atol=1e-3)
    trainable = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    assert trainable and all(".default" in name for name in trainable)


def test_an_adapter_is_trained_saved_and_resumed(start, hub, tmp_path, monkeypatch):
    options = {"model": hub, "lora": LoraOptions(rank=2)}
    expected, weights = self_play_of(start, tmp_path / "whole", **options)
    play_round = self_play._play_round

    def cut(this, *arguments):
        if this.number == 2:
            raise KeyboardInterrupt
        play_round(this, *arguments)

    monkeypatch.setattr(self_play, "_play_round", cut)
    with pytest.raises(KeyboardInterrupt):
        self_play_of(start, tmp_path / "cut", **options)
    monkeypatch.setattr(self_play, "_play_round", play_round)
    results, resumed = self_play_of(start, tmp_path / "cut", resume=True, **options)
    assert results["best_reward"] == expected["best_reward"]
    assert_same(weights, resumed)
