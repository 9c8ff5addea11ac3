"""How many threads a model takes: the user's number, the environment's, or the free cores."""

import psutil
import pytest
import torch

from recalign import threads


@pytest.fixture(autouse=True)
def _alone(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    before = torch.get_num_threads()
    yield
    threads.ask(None)
    torch.set_num_threads(before)


@pytest.fixture
def machine(monkeypatch):
    """A machine of eight cores, some of which are busy."""

    def make(*busy, usable=8):
        percent = [100.0 if core in busy else 3.0 for core in range(8)]
        monkeypatch.setattr(psutil, "cpu_percent", lambda interval, percpu: percent)
        monkeypatch.setattr(threads.os, "cpu_count", lambda: 8)
        monkeypatch.setattr(threads, "usable_cores", lambda: usable)

    return make


def test_a_model_takes_the_cores_that_are_free(machine):
    machine()
    assert threads.choose(small=False) == (8, "all cores are free")
    machine(0, 1, 5)
    assert threads.choose(small=False) == (5, "5 of 8 cores are free")
    machine(*range(8))
    assert threads.choose(small=False)[0] == 1


def test_no_more_than_the_container_allows(machine):
    machine(0, 1, usable=2)
    assert threads.choose(small=False) == (2, "all cores are free")


def test_a_small_model_takes_one(machine):
    machine()
    assert threads.choose(small=True) == (1, "the model is small")


def test_what_the_user_says_goes_first(machine, monkeypatch):
    machine(0)
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert threads.choose(small=True) == (3, "OMP_NUM_THREADS")
    threads.ask(6)
    assert threads.choose(small=True) == (6, "--threads")


def test_the_number_is_used_and_told_once(machine, capsys):
    threads._tell.cache_clear()
    threads.ask(2)
    assert threads.use(small=False) == 2 == torch.get_num_threads()
    threads.use(small=False)
    assert capsys.readouterr().err.count("CPU threads: 2 (--threads)") == 1


def test_a_quota_of_a_container_counts(tmp_path, monkeypatch):
    monkeypatch.setattr(threads.os, "sched_getaffinity", lambda pid: set(range(16)), raising=False)
    monkeypatch.setattr(threads, "QUOTA", tmp_path / "cpu.max")
    assert threads.usable_cores() == 16
    (tmp_path / "cpu.max").write_text("150000 100000\n")
    assert threads.usable_cores() == 2
    (tmp_path / "cpu.max").write_text("max 100000\n")
    assert threads.usable_cores() == 16
