"""Small comparisons, evaluated from lists written by hand."""

import pytest

from recalign.commands.eval import eval as evaluate
from recalign.comparison.evaluations import Evaluation
from recalign.comparison.systems import compare
from tests.evaluation.prepared import write_decoded, write_small

POOR, FAIR, GOOD = [[3, 4]] * 4, [[1, 3], [3, 2], [5, 0], [0, 1]], [[1, 2], [2, 5], [5, 0], [0, 1]]
HOSTILE = "</script><img src=x onerror=\"document.title='owned'\"> $\\alpha_{1}$ & 'x' _y\u2028"


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory):
    """Evaluate lists as a model run of some name; `data` is the dataset, `folder` where all lies."""
    folder = tmp_path_factory.mktemp("comparison")
    data = write_small(folder / "data")

    def make(name, lists, *, label=None, metrics="ndcg@2,recall@2,mgu,validity", baselines=False, **options):
        dataset = options.pop("dataset", data)
        decoded = write_decoded(folder / name, dataset, lists, **options)
        evaluate(decoded, metrics=metrics, baselines=baselines, label=label)
        return Evaluation.find(folder / name)

    make.data, make.folder = data, folder
    return make


@pytest.fixture(scope="module")
def hostile(evaluated):
    """A comparison with a label that is markup and mathematics; an oracle, a sweep and baselines are in it."""
    sweep = {
        f"blade {tau}": [evaluated(f"blade-{tau}", lists, model_options={"objective": "blade", "params": {"tau": tau}})]
        for tau, lists in (("0.1", FAIR), ("1.0", GOOD))
    }
    sft = evaluated("sft", POOR, baselines=True, model_options={"objective": "sft"})
    return compare({HOSTILE: [sft], **sweep, "bon": [evaluated("bon", GOOD, oracle=True)]})
