import json

import numpy as np

from recalign.comparison.curves import Curve, gathered, read_curves, thinned, training_curves
from recalign.comparison.systems import compare
from recalign.comparison.trail import trail_of

from .conftest import GOOD, POOR


def test_a_long_curve_is_averaged_in_blocks_of_one_size():
    steps, values = thinned(np.arange(1.0, 6.0), np.array([1.0, 3.0, 5.0, 7.0, 10.0]), points=3)
    assert steps.tolist() == [1.5, 3.5, 5.0] and values.tolist() == [2.0, 6.0, 10.0]
    assert thinned(np.arange(3.0), np.arange(3.0), points=3)[1].tolist() == [0.0, 1.0, 2.0]


def test_runs_are_put_together_at_the_steps_that_all_logged():
    one = Curve("a", "1", np.array([1.0, 2.0, 3.0]), np.array([1.0, 2.0, 3.0]))
    two = Curve("a", "2", np.array([2.0, 3.0, 4.0]), np.array([4.0, 5.0, 6.0]))
    steps, values = gathered([one, two])
    assert steps.tolist() == [2.0, 3.0] and values.tolist() == [[2.0, 3.0], [4.0, 5.0]]
    assert gathered([one, Curve("a", "3", np.array([9.0]), np.array([9.0]))])[1].shape == (2, 0)


def test_logs_become_curves_by_figure_and_system(evaluated):
    runs = {"sft": evaluated("log/sft", POOR), "blade": evaluated("log/blade", GOOD)}
    lines = {
        "sft": [{"step": 1, "loss": 3.0}, {"step": 2, "loss": 2.0}, {"step": 2, "eval_loss": 2.5}],
        "blade": [{"step": 1, "loss": 0.0, "reward": 0.1, "kl": 0.0}, {"step": 2, "loss": 0.0, "reward": 0.2}],
    }
    for name, log in lines.items():
        file = evaluated.folder / "log" / name / "log.jsonl"
        file.write_text("\n".join(map(json.dumps, log)) + '\n{"step": 3, "rew', "utf-8")  # cut off by a crash
    comparison = compare({name: [run] for name, run in runs.items()})
    curves = read_curves(comparison, {name: [trail_of(run)] for name, run in runs.items()})
    assert {name: [(c.system, c.values.tolist()) for c in found] for name, found in curves.items()} == {
        "reward": [("blade", [0.1, 0.2])],
        "loss": [("sft", [3.0, 2.0])],  # of rollouts it says nothing; one point is no curve
    }
    drawn = training_curves(comparison, "reward", curves["reward"])
    assert drawn.notes == {"run-0": "blade, one run, 0.1 to 0.2"}
