from recalign.comparison.sweeps import Sweep, find_sweeps
from recalign.comparison.systems import compare

from .conftest import FAIR, GOOD, POOR


def test_systems_that_differ_in_one_number_are_a_sweep_in_ascending_order(evaluated):
    def run(name, lists, **params):
        return [
            evaluated(f"sweep/{name}", lists, model_options={"objective": params.pop("objective"), "params": params})
        ]

    groups = {
        "high": run("high", GOOD, objective="blade", tau=1.0),
        "low": run("low", POOR, objective="blade", tau="0.1"),  # as it is typed on a command line
        "middle": run("middle", FAIR, objective="blade", tau=0.3),
        "other": run("other", FAIR, objective="grpo", tau=0.5),
        "both": run("both", FAIR, objective="blade", tau=0.7, beta=0.2),
    }
    assert find_sweeps(compare(groups).systems) == [Sweep("tau", (0.1, 0.3, 1.0), ("low", "middle", "high"))]


def test_seeds_and_names_are_no_sweep(evaluated):
    groups = {
        name: [evaluated(f"none/{name}", FAIR, seed=seed, model_options={"objective": objective})]
        for name, seed, objective in (("a", 0, "grpo"), ("b", 1, "blade"), ("c", 2, "grpo"))
    }
    assert find_sweeps(compare(groups).systems) == []
