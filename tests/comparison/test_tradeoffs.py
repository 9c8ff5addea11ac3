import warnings

import pytest

from recalign.comparison.tradeoffs import Axis, _span, axes_of, metric_named, pareto_front, tradeoff

POINTS = {"a": (1.0, 1.0), "b": (2.0, 3.0), "c": (3.0, 2.0), "d": (2.0, 2.0), "e": (3.0, 2.0)}


@pytest.mark.parametrize(
    ("better", "front"),
    [
        ((True, True), ["b", "c", "e"]),  # d is beaten by b; c and e are alike, so neither beats the other
        ((False, True), ["a", "b"]),
        ((True, False), ["a", "c", "e"]),
        ((False, False), ["a"]),
    ],
)
def test_pareto_front(better, front):
    assert pareto_front(POINTS, better) == front


def test_accuracy_is_held_against_metrics_that_do_not_read_the_targets_and_against_cost(hostile):
    axes = {axis.name: axis for axis in axes_of(hostile)}
    assert set(axes) == {"mgu", "coverage", "gini"}  # validity and the cost are the same for all
    assert (axes["mgu"].better, axes["coverage"].better) == (False, True)
    assert axes["coverage"].values["blade 1.0"] == hostile.systems[2].corpus["coverage"]


def test_an_uninstalled_metric_is_no_axis():
    assert metric_named("a_metric_of_nobody@5") is None
    assert metric_named("ndcg@5").text == "ndcg@5"


def test_points_say_what_they_are_and_a_baseline_far_off_stands_at_the_edge(hostile):
    drawn = tradeoff(hostile, "ndcg@2", axes_of(hostile)[0], [])
    systems = {system.name: system for system in hostile.systems}
    one = next(note for note in drawn.notes.values() if note.startswith("blade 1.0"))
    assert f"ndcg@2 {systems['blade 1.0'].summary['ndcg@2'].mean:.4f}" in one
    assert "on the Pareto front" not in next(note for note in drawn.notes.values() if note.startswith("bon"))  # oracle


@pytest.mark.parametrize("shortest", [1e-12, 1e-9, 0.003, 50.0])
def test_a_time_near_zero_has_its_place_on_a_logarithmic_axis(hostile, shortest):
    values = {system.name: 100.0 * 2.0**place for place, system in enumerate(hostile.systems)}
    first = next(system.name for system in hostile.systems if not system.baseline)
    axis = Axis("seconds", False, {**values, first: shortest}, logarithmic=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # matplotlib ignores ends that it cannot draw, with a warning
        drawn = tradeoff(hostile, "ndcg@2", axis, [])
    assert any(note.startswith(f"{first}: ndcg@2") for note in drawn.notes.values())


def test_the_margins_of_a_logarithmic_axis_are_factors(hostile):
    models = [system for system in hostile.systems if not system.baseline][:2]
    values = dict(zip([system.name for system in models], [0.01, 100.0], strict=True))
    low, high = _span(models, values, logarithmic=True)
    assert (low, high) == pytest.approx((10**-2.4, 10**2.4))  # a tenth of four decades on either side
