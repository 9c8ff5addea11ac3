import io
import json
import shutil

import polars as pl
import pytest

from recalign.cli import main
from recalign.commands.eval import eval as evaluate
from recalign.errors import UserError
from recalign.evaluation.baselines import RECOMMENDERS
from tests.evaluation.prepared import write_decoded, write_small

LISTS = [[1, 3, 2], [2, 5, 3], [5, 0, 1], [0, 1, 3]]


@pytest.fixture
def dataset(tmp_path):
    return write_small(tmp_path / "data")


@pytest.fixture
def decoded(tmp_path, dataset):
    return write_decoded(tmp_path / "blade", dataset, LISTS, seed=3)


def test_figures_and_files(decoded):
    results = evaluate(decoded)
    assert results["label"] == "blade"
    assert results["rows"] == 4
    recall = results["metrics"]["recall@3"]
    assert (recall["mean"], recall["n"], recall["left_out"]) == (1.0, 3, 1)
    assert recall["low"] <= recall["mean"] <= recall["high"]
    assert results["metrics"]["mrr"]["mean"] == 1.0
    assert results["metrics"]["validity"]["mean"] == 1.0
    assert results["corpus"]["coverage"] == pytest.approx(5 / 6)
    assert results["seed"] == 3
    saved = json.loads((decoded / "eval" / "metrics.json").read_text())
    assert saved["metrics"] == json.loads(json.dumps(results["metrics"]))
    frame = pl.read_parquet(decoded / "eval" / "per_user.parquet")
    assert frame["user_id"].to_list() == ["u0", "u1", "u2", "u3"]
    assert frame["recall@3"].to_list() == [1.0, 1.0, 1.0, None]


def test_the_baselines_stand_beside_the_model(decoded):
    results = evaluate(decoded)
    assert list(results["baselines"]) == [
        "popularity",
        "recent popularity",
        "item-kNN",
        "TF-IDF of titles",
        "random unseen",
    ]
    assert results["baselines"]["random unseen"]["metrics"]["unseen"]["mean"] > 0
    table = pl.read_parquet(decoded / "eval" / "baselines.parquet")
    assert table.group_by("baseline").len()["len"].to_list() == [4] * len(RECOMMENDERS)


def test_other_recommenders_stand_beside_the_model_where_they_are_named(decoded):
    results = evaluate(decoded, recommenders="item-knn,popularity", metrics="ndcg@3")
    assert list(results["baselines"]) == ["item-kNN", "popularity"]
    with pytest.raises(UserError, match="Did you mean 'popularity'"):
        evaluate(decoded, recommenders="populrity", overwrite=True)


def test_corpus_level_metrics_can_be_named(decoded):
    results = evaluate(decoded, metrics="dgu,coverage@1,ndcg@3")
    assert list(results["corpus"]) == ["coverage", "gini", "dgu", "coverage@1"]
    assert results["corpus"]["coverage@1"] == pytest.approx(4 / 6)
    assert list(results["metrics"]) == ["ndcg@3"]
    assert results["baselines"]["popularity"]["corpus"]["coverage@1"] <= 3 / 6
    only = evaluate(decoded, metrics="coverage", overwrite=True)
    assert (only["metrics"], list(only["corpus"])) == ({}, ["coverage", "gini"])


def test_another_question_gets_a_folder_of_its_own_and_finds_it_again(decoded):
    first = evaluate(decoded, metrics="ndcg@3", baselines=False)
    other = evaluate(decoded, metrics="mrr", baselines=False)
    assert first["out"] == str(decoded / "eval")
    assert other["out"].startswith(str(decoded / "eval-"))
    assert evaluate(decoded, metrics="mrr", baselines=False) == json.loads(json.dumps(other))
    assert evaluate(decoded, metrics="ndcg@3", baselines=False) == json.loads(json.dumps(first))
    assert sorted(path.name for path in decoded.iterdir() if path.is_dir()) == ["eval", other["out"].split("/")[-1]]


def test_predictions_that_changed_are_measured_again_in_the_same_place(decoded, dataset, tmp_path):
    first = evaluate(decoded, metrics="recall@3", baselines=False)
    shutil.copy(
        write_decoded(tmp_path / "other", dataset, [[3, 4, 5]] * 4, seed=3) / "predictions.parquet",
        decoded / "predictions.parquet",
    )
    again = evaluate(decoded, metrics="recall@3", baselines=False)
    assert again["out"] == first["out"] == str(decoded / "eval")
    assert again["metrics"]["recall@3"]["mean"] < first["metrics"]["recall@3"]["mean"]


def test_the_directions_that_plugins_declare_are_told(decoded):
    told = evaluate(decoded, metrics="ndcg@3,mgu,popularity,ndcg@3 - mgu")["higher_is_better"]
    assert told == {
        "ndcg@3": True,
        "mgu": False,
        "popularity": None,
        "ndcg@3 - mgu": True,
        "coverage": True,
        "gini": False,
    }


def test_no_baselines_where_they_are_not_wanted(decoded):
    assert evaluate(decoded, baselines=False)["baselines"] == {}
    assert not (decoded / "eval" / "baselines.parquet").exists()


def test_baselines_are_computed_once_for_the_same_rows(decoded, monkeypatch):
    first = evaluate(decoded)
    monkeypatch.setattr("recalign.evaluation.baselines.recommend", lambda *_, **__: pytest.fail("computed again"))
    again = evaluate(decoded, metrics="ndcg@3", overwrite=True)
    assert again["baselines"]["item-kNN"]["metrics"]["ndcg@3"] == first["baselines"]["item-kNN"]["metrics"]["ndcg@3"]


def test_a_broken_baseline_cache_is_made_anew(decoded, tmp_path):
    first = evaluate(decoded)
    cache = next((tmp_path / "runs" / "baselines").iterdir())
    cache.write_bytes(b"cut off")
    assert evaluate(decoded, overwrite=True)["baselines"] == first["baselines"]


def test_cost_is_gathered_from_decoding_and_training(decoded):
    cost = evaluate(decoded)["cost"]
    assert cost == {
        "decode_seconds": 2.0,
        "prompts_per_second": 2.0,
        "forward_passes": 12.0,
        "training_seconds": 60.0,
    }


def test_metrics_are_chosen_and_composites_allowed(decoded):
    results = evaluate(decoded, metrics="ndcg@3, ndcg@3 - 0.5*mgu,hit@1")
    assert list(results["metrics"]) == ["ndcg@3", "ndcg@3 - 0.5*mgu", "hit@1"]


def test_a_finished_evaluation_is_not_repeated(decoded, monkeypatch):
    first = evaluate(decoded)
    monkeypatch.setattr("recalign.evaluation.evaluate.measure", lambda *_, **__: pytest.fail("computed again"))
    assert evaluate(decoded) == json.loads(json.dumps(first))


def test_the_same_seed_gives_the_same_figures(decoded, tmp_path):
    first = evaluate(decoded)
    again = evaluate(decoded, out=tmp_path / "again")
    assert first["metrics"] == again["metrics"]
    assert first["baselines"] == again["baselines"]


def test_the_last_line_says_what_was_measured_and_where_the_figures_are(decoded, capsys):
    evaluate(decoded, metrics="ndcg@3", targets="all")
    said = f"{decoded}: 4 rows of test; the figures of every row are in {decoded / 'eval'}."
    assert capsys.readouterr().err.splitlines()[-1] == said


def test_a_narrow_terminal_folds_names_instead_of_cutting_them(tmp_path, dataset, monkeypatch):
    from rich.console import Console

    out = io.StringIO()
    monkeypatch.setattr("recalign.commands.eval.console.stdout", Console(file=out, width=70))
    evaluate(write_decoded(tmp_path / "align-list-dpo-ndcg5", dataset, LISTS), metrics="popularity")
    assert "…" not in out.getvalue()
    assert "│ popularity │" in out.getvalue()


def test_brackets_in_names_are_no_markup(decoded, capsys):
    evaluate(decoded, metrics="ndcg@3", label="[bold]x[/]")
    assert "[bold]x[/]" in capsys.readouterr().out


def test_a_hint_with_a_path_can_be_typed(tmp_path):
    (tmp_path / "my runs").mkdir()
    with pytest.raises(UserError) as error:
        evaluate(tmp_path / "my runs")
    assert f"--model '{tmp_path}/my runs'`" in error.value.hint


def test_oracles_are_marked(tmp_path, dataset, capsys):
    folder = write_decoded(tmp_path / "bon", dataset, LISTS, oracle=True)
    assert evaluate(folder, label="BoN")["oracle"] is True
    assert "(oracle)" in capsys.readouterr().out


def test_json_prints_one_object(decoded, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["eval", str(decoded), "--json", "--metrics", "recall@3"])
    assert stop.value.code in (0, None)
    assert json.loads(capsys.readouterr().out)["metrics"]["recall@3"]["mean"] == 1.0


def test_predictions_for_another_dataset_are_refused(tmp_path, decoded):
    write_small(tmp_path / "other", digest="other")
    with pytest.raises(UserError, match=r"for another dataset \(abc\) than .*other \(other\)"):
        evaluate(decoded, data=tmp_path / "other")


@pytest.mark.parametrize(
    ("metrics", "message"),
    [("ndcg@4", "looks at 4 positions, and the lists have 3"), ("ndgc@3", "Did you mean 'ndcg'"), ("", "No metric")],
)
def test_metrics_that_cannot_be_measured_leave_nothing_behind(decoded, metrics, message):
    with pytest.raises(UserError, match=message):
        evaluate(decoded, metrics=metrics)
    assert not (decoded / "eval").exists()


def test_genre_metrics_need_genres(tmp_path):
    dataset = write_small(tmp_path / "bare", bare=True)
    folder = write_decoded(tmp_path / "run", dataset, LISTS)
    assert "mgu" not in evaluate(folder)["metrics"]
    with pytest.raises(UserError, match="'ild' reads genres"):
        evaluate(folder, metrics="ild", overwrite=True)


def test_no_predictions_anywhere(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["eval"])
    assert stop.value.code == 2
    assert "holds no predictions" in capsys.readouterr().err
