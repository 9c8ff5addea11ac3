"""A third party's recommender works by its name wherever a built-in one does."""

import numpy as np
import pytest

from recalign.api import ListBatch
from recalign.commands.baseline import baseline
from recalign.commands.compare import compare
from recalign.commands.decode import decode
from recalign.commands.eval import eval as evaluate
from recalign.data.dataset import PreparedDataset
from recalign.errors import UserError
from recalign.plugins.registry import create
from recalign.preparation.pipeline import prepare_dataset
from recalign.runs.predictions import read_predictions
from tests.fake_distribution import install

ROUND = '''"""round-robin: a made-up recommender."""
import numpy as np
from recalign.api import Field, Params, Recommender, hookimpl


class RoundParams(Params):
    """Parameters."""

    step: int = Field(1, ge=1, description="how far the best item is from the last one")


class Round(Recommender):
    """Scores the item that comes `step` numbers after the history's last one highest, then the next ones."""

    Params = RoundParams
    display_name = "round robin"

    def fit(self, data, seed):
        self.size = len(data.catalogue)
        self.fitted = {"items": self.size}

    def scores(self, rows):
        last = np.array([row.history[-1] for row in rows])[:, None]
        return -((np.arange(self.size) - last - self.params.step) % self.size).astype(float)

    def save(self, folder):
        (folder / "size.txt").write_text(str(self.size))

    def load(self, folder, catalogue):
        self.size = int((folder / "size.txt").read_text())


@hookimpl
def recalign_recommender():
    return Round
'''


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    out = tmp_path_factory.mktemp("third") / "data"
    params = {"users": 60, "events": 16, "items": 40, "genres": 4}
    prepare_dataset("synthetic", None, out, params=params, options={"task": "next"})
    return PreparedDataset(out)


@pytest.fixture
def run(dataset, tmp_path, monkeypatch):
    """A run of `recalign baseline round-robin -p step=3`."""
    install(tmp_path / "site", "fake-round", {"recalign.recommenders": {"round-robin": "fake_round"}}, {})
    (tmp_path / "site" / "fake_round.py").write_text(ROUND, "utf-8")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    monkeypatch.setenv("RECALIGN_HOME", str(tmp_path / "runs"))
    told = baseline(
        "round-robin", data=dataset.path, param=["step=3"], size=5, exclude_history="no", out=tmp_path / "r"
    )
    assert told["fit"] == {"items": 40}
    return tmp_path / "r"


def test_it_recommends_by_its_name_and_parameters(run, dataset):
    predictions, rows = read_predictions(run, dataset, "test", 5)
    last = np.array([row.history[-1] for row in rows])
    assert predictions.items.tolist() == [[(item + 3 + place) % 40 for place in range(5)] for item in last]


def test_it_stands_beside_another_system_and_in_comparisons(run, dataset, tmp_path):
    baseline("popularity", data=dataset.path, size=5, exclude_history="no", out=tmp_path / "popularity")
    results = evaluate(tmp_path / "popularity", metrics="hit@5", recommenders="round-robin")
    assert list(results["baselines"]) == ["round robin"]
    evaluate(run, metrics="hit@5", baselines=False)
    systems = compare([tmp_path / "popularity", run], out=tmp_path / "c")["systems"]
    assert [system["name"] for system in systems] == ["popularity", "round-robin", "round robin"]


def test_it_assists_decoders(run, dataset, tmp_path):
    param = [f"assistant={run}", "alpha=0", "width=40"]
    decode(
        data=dataset.path,
        model="builtin:tiny,hidden=32,layers=1",
        decoder="d3",
        param=param,
        size=5,
        exclude_history="no",
        out=tmp_path / "d3",
    )
    found, wanted = (read_predictions(folder, dataset, "test", 5)[0].items for folder in (tmp_path / "d3", run))
    assert np.array_equal(found, wanted)


def test_it_assists_rewards(run, dataset):
    metric = create("metric", "assistant", {"run": str(run)})
    metric.bind(dataset.catalogue)
    row = dataset.rows("train")[0]
    items = (row.history[-1] + np.array([[3], [4], [2]])) % 40
    best, second, last = metric.score(ListBatch(items, np.ones(3, dtype=int), [row] * 3, np.arange(3)))
    assert best > second > 0 > last


def test_an_assistant_whose_package_is_gone_is_told(run, dataset, monkeypatch):
    import sys

    monkeypatch.setattr(sys, "path", [folder for folder in sys.path if not folder.endswith("site")])
    metric = create("metric", "assistant", {"run": str(run)})
    with pytest.raises(UserError, match="There is no recommender named 'round-robin'"):
        metric.bind(dataset.catalogue)
