"""What steps cost, counted by hand."""

import time

import numpy as np
import pytest
import torch

from recalign.runs.cost import PEAK_OF_PROCESS, MemoryWatch
from recalign.training.rows import affordable, drawn_rows, validation_rows
from recalign.training.speed import Meter, Spent, Work, cost_line
from tests.fake_dataset import write_dataset

CPU = torch.device("cpu")


def test_an_update_counts_its_rows_and_tokens_and_no_others(monkeypatch):
    clock = iter([0.0, 10.0, 12.0, 20.0, 22.0, 30.0, 36.0])
    monkeypatch.setattr(time, "perf_counter", lambda: next(clock))
    work = Work()
    work.add([np.zeros(100)], 0)  # before the first update: a survey, say
    meter = Meter(CPU, work)
    for prompts in (2, 4):
        meter.begin()
        work.add([np.zeros(5)] * prompts, 3 * prompts)
        meter.end()
    figures = meter.report(updates_left=3)
    assert figures["rows_per_second"] == pytest.approx(6 / 4)
    assert figures["tokens_per_second"] == pytest.approx(6 * 8 / 4)
    assert (figures["rows_per_update"], figures["seconds_per_update"]) == (3, 2)
    assert figures["seconds_left"] == pytest.approx(6)
    assert meter.report(3) == {}  # nothing since
    meter.begin()
    work.add([np.zeros(1)], 0)
    meter.end()
    assert meter.report(2)["rows_per_second"] == pytest.approx(1 / 6)
    assert meter.total.figures()["rows_per_second"] == pytest.approx(7 / 10)


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
    assert "10 tokens and 1.0 rows a second, at most 9 MB" in cost_line(spent.figures())


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
