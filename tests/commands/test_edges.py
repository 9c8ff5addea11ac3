"""Objectives and decoders of the next task at the edge, at the command line: beams, titles, negatives, assistants."""

import polars as pl
import pytest

from recalign.data.dataset import PreparedDataset
from recalign.models.policy import load_policy
from recalign.training.trainer import read_log
from tests.fake_dataset import TITLES, write_dataset

MODEL = "builtin:tiny,hidden=16,heads=2"
SHORT = ["A", "B", "A B", "A B C", "C", "D", "D A", "Long Title Here"]  # some of one token, some begin others
ON_DATA = ["sft", "msl", "bear", "beam-exact", "cft", "igd", "dpo", "dmpo", "s-dpo", "bear-s-dpo"]
QUICK = ["--max-steps", 2, "--eval-every", 2, "--prompts-per-step", 8, "--no-report"]


def written(folder, **options):
    dataset = write_dataset(folder / "data", task="next", **options)
    load_policy(MODEL, dataset).save(folder / "model")
    return ["--data", folder / "data", "--model", folder / "model"]


@pytest.fixture(scope="module")
def usual(tmp_path_factory):
    return written(tmp_path_factory.mktemp("usual"))


@pytest.fixture(scope="module")
def short(tmp_path_factory):
    return written(tmp_path_factory.mktemp("short"), titles=SHORT, history=2)


@pytest.fixture(scope="module")
def forced(tmp_path_factory):
    """Two titles, of which one is in the history: nothing is a choice."""
    return written(tmp_path_factory.mktemp("forced"), titles=["Red Ship", "Old Ship"], history=1)


def losses(out):
    return [line["loss"] for line in read_log(out) if "loss" in line]


# ------------------------------------------------------------ titles


@pytest.mark.parametrize("objective", ON_DATA)
def test_titles_of_one_token_are_learnt_by_every_objective(call, short, tmp_path, objective):
    code, told = call("align", *short, "--objective", objective, *QUICK, "--out", tmp_path / "out")
    assert code == 0, told
    assert all(0 < loss < 50 for loss in losses(tmp_path / "out"))


def test_titles_of_one_token_are_searched_and_played_with(call, short, tmp_path):
    code, told = call("align", *short, "--objective", "rere", "-p", "group_size=4", *QUICK, "--out", tmp_path / "rere")
    assert (code, len(losses(tmp_path / "rere"))) == (0, 2), told
    params = ["-p", "rounds=1", "-p", "round_rows=8", "--no-report"]
    code, told = call("align", *short, "--objective", "sprec", *params, "--out", tmp_path / "sprec")
    assert (code, "of 8 rows have a rejected title" in told) == (0, True), told


@pytest.mark.parametrize("objective", ["msl", "bear", "beam-exact"])
def test_forced_titles_teach_nothing_over_valid_tokens(call, forced, tmp_path, objective):
    code, told = call("align", *forced, "--objective", objective, *QUICK, "--out", tmp_path / "out")
    assert code == 0, told
    assert set(losses(tmp_path / "out")) == {0.0}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["dpo"], "User u0 has 0 items left to reject, and 1 negatives are asked for."),
        (["s-dpo", "-p", "negatives=1", "-p", "source=self"], "has 0 items left to reject"),
        (["rere", "-p", "group_size=2"], "only 1 items may be recommended to user 'u1'. Leave such users out"),
    ],
)
def test_forced_titles_leave_nothing_to_reject_or_to_rank(call, forced, tmp_path, arguments, said):
    code, told = call("align", *forced, "--objective", *arguments, *QUICK, "--out", tmp_path / "out")
    assert (code, said in told) == (2, True), told


def test_what_equals_the_target_is_never_rejected(call, forced, tmp_path):
    arguments = ["--objective", "dpo", "-p", "source=greedy", *QUICK]  # the policy can decode nothing but the target
    code, told = call("align", *forced, *arguments, "--out", tmp_path / "out")
    assert code == 0, told
    lines = [line for line in read_log(tmp_path / "out") if "loss" in line]
    assert [(line["loss"], line["rejected"]) for line in lines] == [(0.0, 0.0)] * len(lines)
    code, told = call("align", *forced, "--objective", "sprec", "-p", "rounds=1", "-p", "round_rows=4", "--no-report")
    assert (code, "0 of 4 rows have a rejected title" in told) == (0, True), told


@pytest.mark.parametrize("objective", ["msl", "bear", "beam-exact", "igd", "s-dpo"])
def test_targets_that_users_had_before_are_learnt_where_the_history_is_excluded(call, tmp_path, objective):
    events = [
        (user, (7 * user + step * step) % 12) for user in range(10) for step in range(8)
    ]  # 0, 1, 4, 9, 4, 1, 0, 1
    lines = [f"u{user},i{item},{time}" for time, (user, item) in enumerate(events)]
    (tmp_path / "events.csv").write_text("\n".join(["user_id,item_id,timestamp", *lines]))
    split = ["--task", "next", "--split", "leave-one-out", "--out", tmp_path / "data"]
    assert call("prepare", "table", tmp_path / "events.csv", *split)[0] == 0
    given = ["--data", tmp_path / "data", "--model", tmp_path / "model", "--exclude-history", "yes", *QUICK]
    load_policy(MODEL, PreparedDataset(tmp_path / "data")).save(tmp_path / "model")
    code, told = call("align", *given, "--objective", objective, "--out", tmp_path / "out")
    assert code == 0, told
    assert all(loss > 0 for loss in losses(tmp_path / "out"))


# ------------------------------------------------------------ beams


@pytest.mark.parametrize("objective", ["bear", "beam-exact", "bear-s-dpo"])
@pytest.mark.parametrize("beam", [1, 1000])
def test_objectives_take_a_beam_of_one_and_beams_above_the_catalogue(call, short, tmp_path, objective, beam):
    arguments = ["--objective", objective, "-p", f"beam={beam}", *QUICK]
    code, told = call("align", *short, *arguments, "--out", tmp_path / "out")
    assert code == 0, told
    shares = [line["pruned_share"] for line in read_log(tmp_path / "out") if "loss" in line]
    assert all(0 <= share <= 1 for share in shares)
    if beam == 1000:
        assert set(shares) == {0.0}  # a beam that holds everything drops nothing


@pytest.mark.parametrize("decoder", ["beam", "d3", "igd"])
def test_decoders_take_a_beam_of_one_and_beams_above_the_catalogue(call, short, tmp_path, decoder):
    items = {}
    for width, size in ((1, 1), (8, 6), (1000, 6)):
        arguments = ["--decoder", decoder, "-p", f"width={width}", "--size", size, "--out", tmp_path / str(width)]
        code, told = call("decode", *short, *arguments)
        assert code == 0, told
        items[width] = pl.read_parquet(tmp_path / str(width) / "predictions.parquet")["items"].to_list()
    assert items[8] == items[1000]
    assert [len(row) for row in items[1]] == [1] * 6
    code, told = call("decode", *short, "--decoder", decoder, "-p", "width=1", "--size", 3, "--out", tmp_path / "no")
    assert (code, "A beam of width 1 cannot return 3 items." in told) == (2, True)
    assert not (tmp_path / "no").exists()
    code, told = call("decode", *short, "--decoder", decoder, "-p", "width=0", "--out", tmp_path / "no")
    assert (code, "width = '0' is refused: input should be greater than or equal to 1" in told) == (2, True)


@pytest.mark.parametrize("objective", ["bear", "beam-exact", "bear-s-dpo"])
@pytest.mark.parametrize("value", ["weight=5.5", "weight=nan", "temperature=0.2", "temperature=4", "beam=0"])
def test_lambda_xi_and_beam_out_of_range(call, usual, tmp_path, objective, value):
    code, told = call("align", *usual, "--objective", objective, "-p", value, "--out", tmp_path / "out")
    name, _, given = value.partition("=")
    assert (code, f"objective '{objective}': {name} = '{given}' is refused" in told) == (2, True), told
    assert f"recalign plugins show {objective}" in told
    assert not (tmp_path / "out").exists()


# ------------------------------------------------------------ negatives


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["-p", "negatives=20"], "20 negatives are asked for, and the catalogue has 20 items"),
        (["-p", "negatives=15"], "User u0 has 14 items left to reject, and 15 negatives are asked for."),
        (["-p", "negatives=15", "-p", "source=self"], "User u0 has 14 items left to reject"),
        (["-p", "negatives=15", "-p", "source=popularity"], "User u0 has 14 items left to reject"),
        (
            ["-p", "source=batch", "--batch-size", 3],
            "3 negatives are asked for, and in a batch of 3 a row has 2 others.",
        ),
        (["-p", "source=greedy"], "3 negatives are asked for, and the policy decodes one title greedily."),
        (["-p", "negatives=0"], "negatives = '0' is refused"),
        (["-p", "negatives=65"], "negatives = '65' is refused"),
    ],
)
def test_fewer_negatives_than_asked_for(call, usual, tmp_path, arguments, said):
    code, told = call("sft", *usual, "--objective", "s-dpo", *arguments, "--out", tmp_path / "out")
    assert (code, said in told) == (2, True), told
    assert not (tmp_path / "out").exists()


# ------------------------------------------------------------ assistants


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory):
    """Runs of a conventional recommender on another catalogue, and on other interactions with the same items."""
    from recalign.commands.baseline import baseline

    folder = tmp_path_factory.mktemp("elsewhere")
    for name, titles, count in (("other", TITLES[:12], 1), ("fold", TITLES, 2)):
        data = write_dataset(folder / name, task="next", titles=titles).path
        items = pl.read_parquet(data / "items.parquet")
        items.with_columns(popularity=pl.lit(count, dtype=pl.Int64)).write_parquet(data / "items.parquet")
        events = {"user_id": ["a", "a", "b"], "item": [0, 1, 2], "timestamp": [0.0, 1.0, 2.0]}
        events |= {"rating": [None] * 3, "gain": [1.0] * 3}
        pl.DataFrame(events, schema_overrides={"rating": pl.Float64}).write_parquet(data / "interactions.parquet")
        baseline("popularity", data=data, size=5, out=folder / f"run-{name}")
    return folder


@pytest.mark.parametrize(
    ("run", "said"),
    [
        ("run-other", "was made for another catalogue"),
        ("run-fold", "has seen other training interactions"),
        ("nowhere", "is no run folder"),
    ],
)
def test_an_assistant_of_another_dataset(call, usual, elsewhere, tmp_path, run, said):
    arguments = ["--decoder", "d3", "-p", f"assistant={elsewhere / run}", "--out", tmp_path / "out"]
    code, told = call("decode", *usual, *arguments)
    assert (code, said in told, "recalign baseline" in told) == (2, True, True), told
    reward = ["--objective", "rere", "--reward", f"ranking + assistant(run='{elsewhere / run}')"]
    code, told = call("align", *usual, *reward, "-p", "group_size=4", *QUICK, "--out", tmp_path / "out")
    assert (code, said in told) == (2, True), told
    assert not (tmp_path / "out").exists()
