"""What a step would refuse once those before it have run is told by `run --dry-run`, with the step's name."""

from pathlib import Path

import pytest

from recalign.errors import UserError
from recalign.workflow.plan import plan
from recalign.workflow.recipe import load_recipe

RECIPE = """
[[step]]
name = "data"
command = "prepare"
source = "synthetic"
task = "list"
list-length = 5

[[step]]
command = "sft"
data = "@data"

[[step]]
command = "align"
data = "@data"
model = "@sft"
reward = "ndcg@5"

[[step]]
command = "decode"
data = "@data"
model = "@align/model"

[[step]]
command = "baseline"
data = "@data"
recommender = "popularity"
size = 3

[[step]]
command = "eval"
predictions = "@decode"
metrics = "ndcg@5,coverage"

[[step]]
name = "eval-popular"
command = "eval"
predictions = "@baseline"
metrics = "ndcg@3"

[[step]]
command = "compare"
runs = ["@eval", "@eval-popular"]
"""


def steps(*overrides):
    Path("x.toml").write_text(RECIPE)
    return plan(load_recipe("x.toml", overrides), Path("runs/x"))


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_what_fits_together_is_planned():
    assert len(steps()) == 8
    assert len(steps("decode.size=3", "eval.metrics=ndcg@3", "align.reward=ndcg")) == 8
    assert len(steps("data.task=next", "data.list-length=1", "align.objective=rere", "align.reward=ndcg")) == 8


MISTAKES = {
    "prepare": (["data.targets=3"], "Step 'data': --list-length 5 is more than --targets 3", "--list-length"),
    "contradiction": (["data.split=time", "data.fold=2"], "--fold", ""),
    "validation": (["sft.metric=ndgc"], "Step 'sft': There is no metric named 'ndgc'", "ndcg"),
    "validation beyond": (["sft.metric=ndcg@9"], "Step 'sft': ndcg@9 looks at 9 positions, and the lists have 5", ""),
    "reward": (["align.reward=ndcg@9"], "Step 'align': ndcg@9 looks at 9 positions, and the lists have 5", "ndcg@5"),
    "size": (["decode.size=10"], "Step 'decode': The decoder 'greedy' writes the model's own lists", "--size 5"),
    "metric": (["eval.metrics=ndgc@5"], "Step 'eval': There is no metric named 'ndgc'", "ndcg"),
    "cutoff": (["eval.metrics=ndcg@10"], "Step 'eval': ndcg@10 looks at 10 positions, and the lists have 5", ""),
    "cutoff of less": (["decode.size=3"], "Step 'eval': ndcg@5 looks at 5 positions, and the lists have 3", "ndcg@3"),
    "cutoff of a baseline": (["eval-popular.metrics=hit@5"], "Step 'eval-popular': hit@5 looks at 5 positions", ""),
    "pruning": (["eval.metrics=pr@5"], "Step 'eval': pr@5 needs the model's exact best titles", "--exact"),
    "analysis": (["eval.analyses=histroy"], "Step 'eval': There is no analysis 'histroy'", "history"),
    "recommender": (["eval.recommenders=sasrek"], "Step 'eval': There is no recommender named 'sasrek'", "sasrec"),
    "compared": (["compare.metrics=ndgc@5"], "Step 'compare': There is no metric named 'ndgc'", "ndcg"),
    "gate": (['compare.fail-if=["ndgc@5 < 0.1"]'], "Step 'compare': There is no metric named 'ndgc'", "ndcg"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_what_does_not_fit_is_told_before_anything_runs(mistake):
    overrides, what, hint = MISTAKES[mistake]
    with pytest.raises(UserError) as error:
        steps(*overrides)
    assert what in error.value.what
    assert hint in error.value.hint
    assert not Path("runs").exists()


def test_a_dataset_that_is_not_there_yet_leaves_its_lists_unknown():
    """Only its files tell what the source suggests; names are checked all the same."""
    assert len(steps("data.source=recbole", "data.path=nowhere", "eval.metrics=ndcg@10")) == 8
    with pytest.raises(UserError, match="There is no metric"):
        steps("data.source=recbole", "data.path=nowhere", "eval.metrics=ndgc@10")
