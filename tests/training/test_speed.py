"""What steps cost, counted by hand."""

import time

import numpy as np
import pytest
import torch

from recalign.runs.cost import PEAK_OF_PROCESS, MemoryWatch
from recalign.training.rows import affordable, drawn_rows, validation_rows
from recalign.training.speed import Meter, Spent, Stopwatch, Work, cost_line, seconds_by_part
from tests.fake_dataset import write_dataset

CPU = torch.device("cpu")


class Clock:
    """The time as a test says it is."""

    def __init__(self, monkeypatch):
        self.now = 100.0
        monkeypatch.setattr(time, "perf_counter", lambda: self.now)


def test_an_update_counts_its_rows_and_tokens_and_no_others(monkeypatch):
    ticking = Clock(monkeypatch)
    work = Work()
    work.add([np.zeros(100)], 0)  # before the first update: a survey, say
    meter = Meter(CPU, work)
    for prompts in (2, 4):
        meter.begin()
        work.add([np.zeros(5)] * prompts, 3 * prompts)
        ticking.now += 2
        meter.end()
        ticking.now += 8  # a validation, say
    figures = meter.report(updates_left=3)
    assert figures["rows_per_second"] == pytest.approx(6 / 4)
    assert figures["tokens_per_second"] == pytest.approx(6 * 8 / 4)
    assert (figures["rows_per_update"], figures["seconds_per_update"]) == (3, 2)
    assert figures["seconds_left"] == pytest.approx(6)
    assert meter.report(3) == {}  # nothing since
    meter.begin()
    work.add([np.zeros(1)], 0)
    ticking.now += 6
    meter.end()
    assert meter.report(2)["rows_per_second"] == pytest.approx(1 / 6)
    assert meter.total.figures()["rows_per_second"] == pytest.approx(7 / 10)


def test_what_happens_inside_a_part_is_charged_to_the_inner_one(monkeypatch):
    clock, watch = Clock(monkeypatch), Stopwatch()
    clock.now += 64  # nothing runs yet
    watch.switch("data")
    clock.now += 1
    watch.switch("forward")
    clock.now += 2
    with watch.timing("backward"):
        clock.now += 4
        with watch.timing("reference"):
            clock.now += 8
        clock.now += 16
    clock.now += 32
    watch.switch(None)
    clock.now += 64
    assert dict(watch.seconds) == {"data": 1, "forward": 34, "backward": 20, "reference": 8}


def test_the_parts_of_updates_are_told_as_means_and_only_those_there_were(monkeypatch):
    clock, work = Clock(monkeypatch), Work()
    meter = Meter(CPU, work)
    for seconds in (2, 4):
        meter.begin()
        clock.now += 1
        work.watch.switch("forward")
        clock.now += seconds
        meter.end()
    figures = meter.report(1)
    assert {name: value for name, value in figures.items() if name.startswith("seconds_")} == {
        "seconds_per_update": 4,
        "seconds_data": 1,
        "seconds_forward": 3,
        "seconds_left": 4,
    }


def test_a_log_gives_the_mean_of_each_part_whatever_its_lines_span():
    log = [
        {"step": 10, "seconds_per_update": 1.0, "seconds_forward": 1.0, "seconds_reference": 3.0},
        {"step": 10, "eval_loss": 0.5},
        {"step": 12, "seconds_per_update": 7.0, "seconds_forward": 7.0},
    ]
    assert seconds_by_part(log) == {"forward": 2.0, "reference": 2.5}
    assert seconds_by_part([]) == {}


@pytest.mark.skipif(not PEAK_OF_PROCESS.exists(), reason="other systems know the peak of the whole process alone")
def test_the_peak_is_that_of_the_stretch_not_of_the_process():
    held = np.ones(2**24)  # 128 MB
    assert held[-1] == 1.0
    del held
    watch = MemoryWatch(CPU)
    before = watch.peak_mb()
    again = np.ones(2**23)  # 64 MB
    assert 50 <= watch.peak_mb() - before <= 100
    assert again[-1] == 1.0


def test_the_peak_of_several_updates_is_the_largest():
    spent = Spent()
    for peak in (3.0, 9.0, 5.0):
        spent.add(Spent(1, 1.0, 1, 10, peak))
    assert spent.figures()["peak_memory_mb"] == 9.0
    assert "10 tokens and 1.0 rows a second, at most 9 MB" in cost_line(spent.figures(), {})
    assert cost_line(spent.figures(), {"forward": 0.7, "backward": 0.304}).startswith(
        "A step: 1 s (forward 0.7, backward 0.3), "
    )


class Sized:
    """A policy as `affordable` sees it."""

    def __init__(self, parameters, device="cpu"):
        self.device = torch.device(device)
        self.model = torch.nn.ParameterList([torch.nn.Parameter(torch.empty(parameters, device="meta"))])


@pytest.mark.parametrize(
    ("parameters", "device", "count", "expected"),
    [
        (1_000, "cpu", 512, 512),
        (10_000_000, "cpu", 512, 512),
        (20_000_000, "cpu", 512, 256),
        (135_000_000, "cpu", 512, 37),
        (10**9, "cpu", 512, 32),
        (10**9, "cpu", 20, 20),
        (135_000_000, "cuda", 512, 512),
        (4 * 10**9, "cuda", 512, 128),
    ],
)
def test_a_dear_model_answers_fewer_rows(parameters, device, count, expected):
    assert affordable(Sized(parameters, device), count) == expected


def test_what_the_user_says_of_validation_rows_holds_and_the_default_is_told(capsys):
    rows = list(range(1000))
    assert len(validation_rows(Sized(1000), rows, None)) == 512
    assert capsys.readouterr().err == ""
    assert len(validation_rows(Sized(20_000_000), rows, None)) == 256
    assert "Validation is on 256 of 1000 rows" in capsys.readouterr().err
    assert len(validation_rows(Sized(20_000_000), rows, 700)) == 700


def test_training_rows_are_drawn_by_seed_and_keep_their_order(tmp_path):
    rows = write_dataset(tmp_path / "data").rows("train")
    some, again, other = (drawn_rows(rows, 3, seed) for seed in (0, 0, 1))
    numbers = [row.index for row in some]
    assert numbers == sorted(set(numbers)) and len(numbers) == 3
    assert numbers == [row.index for row in again] != [row.index for row in other]
    assert drawn_rows(rows, None, 0) is rows
