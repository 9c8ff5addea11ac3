import numpy as np
import polars as pl
import pytest

from recalign.api import Predictions
from recalign.cli import main
from recalign.commands.compare import compare
from recalign.commands.eval import eval as evaluate
from recalign.errors import UserError
from recalign.evaluation.exact import with_pruning_rates
from recalign.runs.lineage import KEY, Lineage
from recalign.runs.predictions import write_predictions
from recalign.workspace import RunFolder
from tests.evaluation.prepared import write_small

# Row by row, the only target is ranked second by both; third by the model and lost; in neither; not relevant.
EXACT = [[0, 1, 3], [4, 0, 2], [0, 1, 2], [0, 1, 2]]
BEAM = [[0, 1, 2], [4, 0, 1], [0, 1, 3], [3, 4, 5]]


def lists(items):
    return Predictions(np.array(items), np.zeros((len(items), 3)), np.full(len(items), 3))


@pytest.fixture
def dataset(tmp_path):
    return write_small(tmp_path / "data")


def write(folder, dataset, items, decoder, *, rows=None, **changes):
    """Write a decode run as `decode` does; `changes` go into its options, `model` into its inputs."""
    run = RunFolder(folder)
    params = {"scoring": changes.pop("scoring", "renormalised")} if decoder in ("beam", "exact") else {}
    if decoder == "beam":
        params["length_penalty"] = changes.pop("length_penalty", 0.0)
    inputs = {"data": dataset.hash, "model": changes.pop("model", "m")}
    options = {"data": str(dataset.path), "decoder": decoder, "params": params, "split": "test", "size": 3, **changes}
    facts = {name: options[name] for name in ("data", "split", "size", "exclude_history") if name in options}
    run.begin("decode", options, inputs, facts={KEY: Lineage("m", **facts).as_dict()})
    write_predictions(run.path, lists(items), rows or list(dataset.rows("test")), dataset.catalogue)
    run.finish({})
    return run.path


@pytest.fixture
def one_target(tmp_path):
    """Four rows of one target each; the last one's is not relevant."""
    return write_small(tmp_path / "one", targets=[[1], [2], [5], [0]], gains=[[1.0], [1.0], [1.0], [0.0]])


@pytest.fixture
def decoded(tmp_path, one_target):
    """The folders of a beam's and of the exact predictions."""
    return (
        write(tmp_path / "m" / "decode-beam-test", one_target, BEAM, "beam"),
        write(tmp_path / "m" / "decode-exact-test", one_target, EXACT, "exact"),
    )


def test_rates_stand_with_the_other_metrics(decoded):
    results = evaluate(decoded[0], exact=decoded[1], metrics="hit@3,pr@2,pr@3")
    frame = pl.read_parquet(decoded[0] / "eval" / "per_user.parquet")
    assert frame["pr@3"].to_list() == [0.0, 1.0, 0.0, None]
    assert frame["pr@2"].to_list() == [0.0, 0.0, 0.0, None]
    rate = results["metrics"]["pr@3"]
    assert (rate["mean"], rate["n"], rate["left_out"]) == (pytest.approx(1 / 3), 3, 1)
    assert rate["low"] <= rate["mean"] <= rate["high"]
    assert results["baselines"]["popularity"]["metrics"]["pr@3"]["mean"] is None


def test_the_cutoffs_are_those_of_the_metrics_unless_a_rate_is_named(dataset):
    def rates(*names):
        return with_pruning_rates(names, dataset.catalogue, 10)[len(names) :]

    assert rates("ndcg@5", "mgu", "hit@3", "recall@5 - 0.1*mgu") == ["pr@3", "pr@5"]
    assert rates("mgu") == ["pr@10"]
    assert rates("ndcg@5", "pr@10") == []


def test_rates_alone_can_be_asked_for(decoded):
    assert list(evaluate(decoded[0], exact=decoded[1], metrics="pr@3")["metrics"]) == ["pr@3"]


def test_the_exact_predictions_order_does_not_matter(decoded, one_target, tmp_path):
    rows = list(one_target.rows("test"))
    turned = write(tmp_path / "turned", one_target, EXACT[::-1], "exact", rows=rows[::-1])
    assert evaluate(decoded[0], exact=turned, metrics="pr@3")["metrics"]["pr@3"]["mean"] == pytest.approx(1 / 3)


def test_other_exact_predictions_are_another_evaluation(decoded, one_target, tmp_path):
    evaluate(decoded[0], exact=decoded[1])
    other = write(tmp_path / "other", one_target, BEAM, "exact")
    assert evaluate(decoded[0], exact=other)["metrics"]["pr@3"]["mean"] == 0.0


def test_a_lower_rate_is_the_better_one(decoded, one_target, tmp_path):
    better = write(tmp_path / "b" / "decode-beam-test", one_target, EXACT, "beam")
    for folder, label in ((decoded[0], "sft"), (better, "bear")):
        evaluate(folder, exact=decoded[1], metrics="hit@3,pr@3", label=label, baselines=False)
    compare([decoded[0], better], out=tmp_path / "c")
    lines = (tmp_path / "c" / "table.md").read_text().splitlines()
    hits, rates = (line for line in lines if line.startswith("| bear |") and line.endswith("% |"))
    assert hits.endswith("| 1/0 | 67% |")  # of three users with a target two have equal values
    assert rates.endswith("| 1/0 | 67% |")


def test_compare_holds_rates_against_each_other(decoded, one_target, tmp_path, capsys):
    evaluate(decoded[0], exact=decoded[1], metrics="hit@3,pr@3", label="sft")
    better = write(tmp_path / "b" / "decode-beam-test", one_target, EXACT, "beam")
    evaluate(better, exact=decoded[1], metrics="hit@3,pr@3", label="bear")
    results = compare([decoded[0], better])
    difference = results["systems"][1]["against_reference"]["pr@3"]["difference"]
    assert difference["mean"] == pytest.approx(-1 / 3)
    assert difference["n"] == 3
    popularity = next(system for system in results["systems"] if system["name"] == "popularity")
    assert popularity["metrics"]["pr@3"]["mean"] is None
    assert popularity["metrics"]["hit@3"]["mean"] is not None
    assert "pr@3" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": "n"}, "are of different models: 'n' and 'm'"),
        ({"scoring": "full"}, "are of different scores: 'full log-probability' and 'renormalised log-probability'"),
        ({"exclude_history": True}, "are of different rules on history items"),
        ({"dtype": "bfloat16"}, "are of different dtypes"),
        ({"size": 2}, r"pr@3 looks at 3 positions, and the lists of .* have 2"),
        ({"decoder": "beam"}, "was decoded by 'beam', whose lists need not be the most probable ones"),
    ],
)
def test_predictions_that_do_not_belong_together_are_refused(decoded, one_target, tmp_path, changes, message):
    changes = {"decoder": "exact", **changes}
    other = write(tmp_path / "other", one_target, EXACT, **changes)
    with pytest.raises(UserError, match=message):
        evaluate(decoded[0], exact=other)
    assert not (decoded[0] / "eval").exists()


@pytest.mark.parametrize("decoder", ["d3", "greedy"])
def test_other_decoders_than_a_beam_prune_nothing(decoded, one_target, tmp_path, decoder):
    other = write(tmp_path / "other", one_target, BEAM, decoder)
    with pytest.raises(UserError, match=f"was decoded by '{decoder}' .*, which ranks by something else"):
        evaluate(other, exact=decoded[1])


def test_other_rows_and_datasets_are_refused(decoded, one_target, tmp_path):
    rows = list(one_target.rows("test"))
    part = write(tmp_path / "part", one_target, EXACT[1:], "exact", rows=rows[1:])
    with pytest.raises(UserError, match="leaves out 1 of the 4 rows of 'test' in .*, such as row 0"):
        evaluate(decoded[0], exact=part)
    foreign = write(tmp_path / "foreign", write_small(tmp_path / "two", digest="two"), EXACT, "exact")
    with pytest.raises(UserError, match="are of different datasets: 'two' and 'abc'"):
        evaluate(decoded[0], exact=foreign)


def test_a_length_penalty_ranks_by_something_else(decoded, one_target, tmp_path):
    beam = write(tmp_path / "long", one_target, BEAM, "beam", length_penalty=1.0)
    with pytest.raises(UserError, match="length_penalty=1.0"):
        evaluate(beam, exact=decoded[1])


def test_a_rate_needs_exact_predictions(decoded):
    with pytest.raises(UserError, match="pr@3 needs the model's exact best titles"):
        evaluate(decoded[0], metrics="pr@3")


def test_rates_given_twice_or_beyond_the_lists_are_refused(decoded):
    with pytest.raises(UserError, match="pr@3 is asked for twice"):
        evaluate(decoded[0], exact=decoded[1], metrics="pr@3,pr@3")
    with pytest.raises(UserError, match="pr@4 looks at 4 positions, and the lists have 3"):
        evaluate(decoded[0], exact=decoded[1], metrics="pr@4")


def test_the_command_line_says_it(decoded, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["eval", str(decoded[0]), "--exact", str(decoded[1]), "--metrics", "hit@3"])
    assert stop.value.code in (0, None)
    assert "pr@3" in capsys.readouterr().out
