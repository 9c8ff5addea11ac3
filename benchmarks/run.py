"""Benchmarks: ours and what people use today, in turns, in one process; see docs/performance.md.

python benchmarks/run.py --quick --json     # three minutes on two cores, one JSON object on stdout
python benchmarks/run.py                    # more repetitions, and how costs grow
python benchmarks/run.py --only beam_full --only grpo_real
python benchmarks/run.py --model smollm2 --quick   # on a pretrained model, adapters where something is trained
python benchmarks/run.py --model llama-1b --quick --device cuda --dtype bfloat16
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import json
import os
import sys
import time
import warnings
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

from plans import FULL, GOALS, MODELS, PLANS, PRETRAINED_GOALS, QUICK, TABLES, Plan
from recalign import huge_pages

if TYPE_CHECKING:
    from recalign.api import Row


@dataclass(frozen=True)
class Result:
    """One benchmark's outcome.

    Args:
        value: the median ratio, or seconds where the name says so; None where it could not run.
        ours: median seconds of ours.
        peer: median seconds of the peer.
        note: what else there is to say.
    """

    value: float | None
    ours: float | None = None
    peer: float | None = None
    pairs: int = 0
    note: str = ""


class Bench:
    """The benchmarks by name, on one setting.

    Args:
        plan: how much.
        office: folder of Amazon Office.
    """

    def __init__(self, plan: Plan, office: Path | None) -> None:
        from setting import OFFICE, Size, make_setting

        self.plan, self.office = plan, office
        self.setting = make_setting(Size(**plan.model), office or OFFICE)
        self.rows = self.setting.test[-plan.prompts :]
        self.on_gpu = self.setting.policy.device.type == "cuda"

    def run(self, name: str) -> Result:
        """Run one benchmark."""
        gc.collect()  # a trainer holds its model until then
        return getattr(self, name)()

    def beam_full(self) -> Result:
        """Beam search on full-vocabulary scores."""
        return self._beam("full", self.rows)

    def beam_renormalised(self) -> Result:
        """Beam search on scores renormalised over the valid tokens."""
        return self._beam("renormalised", self.rows[: self.plan.few_prompts])

    def _beam(self, scoring: str, rows: list[Row]) -> Result:
        from inference import beam

        width = min(10, len(self.setting.catalogue))
        limits = {"repeats": self.plan.repeats, "seconds": self.plan.seconds}
        pairs = beam(self.setting, rows, scoring=scoring, width=width, **limits)
        return _ratio(pairs, f"{len(rows)} prompts; same items, order and scores")

    def one_prompt(self) -> Result:
        """Beam search for one prompt alone, as a service would ask, on full-vocabulary scores."""
        return self._beam("full", self.rows[:1])

    def exact_over_beam(self) -> Result:
        """Exact top-10 against our own beam of 10."""
        from inference import exact_over_beam

        pairs = exact_over_beam(self.setting, self.rows, repeats=3 * self.plan.repeats, seconds=self.plan.seconds)
        return _ratio(pairs, inverse=True)

    def rollouts(self) -> Result:
        """Constrained samples."""
        from inference import rollouts

        rows = self.rows[: self.plan.step_prompts]
        limits = {"repeats": self.plan.repeats, "seconds": self.plan.seconds}
        return _ratio(rollouts(self.setting, rows, group_size=self.plan.group_size, **limits))

    def grpo_full(self) -> Result:
        """GRPO on lists of three titles; the peer's completions are cut at the mean length of ours."""
        return self._grpo(3)

    def grpo_real(self) -> Result:
        """GRPO on one title, at the lengths that titles have."""
        return self._grpo(1)

    def _grpo(self, list_length: int) -> Result:
        if find_spec("trl") is None:
            return Result(None, note="trl is not installed: pip install recalign[bench]")
        import grpo

        setting, group_size = self.setting.trained_as_timed.for_lists(list_length), self.plan.group_size
        rows = setting.train[: self.plan.step_prompts]
        grpo.losses_agree(self.setting.trained.for_lists(list_length), rows[:2], group_size=2)
        longest = 96
        if list_length > 1:
            longest = round(grpo.mean_length(setting, rows, group_size))
        pairs, lengths = grpo.step_against_trl(
            setting,
            rows,
            group_size=group_size,
            longest=longest,
            repeats=self.plan.repeats,
            seconds=self.plan.seconds,
            warm_up=int(self.on_gpu),
        )
        return _ratio(pairs, "tokens a completion: " + ", ".join(f"{who} {mean:.0f}" for who, mean in lengths.items()))

    def sft_step(self) -> Result:
        """A supervised update against TRL's SFTTrainer."""
        if find_spec("trl") is None:
            return Result(None, note="trl is not installed: pip install recalign[bench]")
        from supervised import update_against_trl

        setting, rows = self.setting.trained_as_timed, self.setting.train[: self.plan.batch]
        pairs = update_against_trl(setting, rows, repeats=self.plan.repeats, seconds=self.plan.seconds)
        return _ratio(pairs, f"{len(rows)} rows; same tokens, same losses")

    def sft_memory(self) -> Result:
        """Most memory of a supervised update, ours over TRL's."""
        return self._memory("sft")

    def grpo_memory(self) -> Result:
        """Most memory of a GRPO update, ours over TRL's."""
        return self._memory("grpo")

    def _memory(self, what: str) -> Result:
        if find_spec("trl") is None:
            return Result(None, note="trl is not installed: pip install recalign[bench]")
        from machine import in_fresh_process
        from memory import peak_memory, peak_on_gpu

        if self.on_gpu:
            setting, included = self.setting.trained_as_timed, "weights"
            ours, peer = (peak_on_gpu(setting, what, who, self.plan) for who in ("ours", "peer"))
        else:
            included = "weights and libraries"
            ours = in_fresh_process(peak_memory, what, "ours", self.plan, self.office)
            with mock.patch.dict(os.environ, {huge_pages.VARIABLE: "0"}):  # as TRL runs where nobody sets it
                peer = in_fresh_process(peak_memory, what, "peer", self.plan, self.office)
        return Result(ours / peer, note=f"{ours:,.0f} MB against {peer:,.0f} MB, {included} included")

    def rank_decode(self) -> Result:
        """Greedy rationales about the candidates of some rows against `generate`, all in one batch each."""
        from rank_decode import decode_against_generate
        from rank_update import ranking_rows

        setting = self.setting.for_lists(self.plan.candidates, task="rank")
        rows = ranking_rows(setting, self.plan.ranked, self.plan.candidates, history=self.plan.candidates)
        limits = {"repeats": self.plan.repeats, "seconds": self.plan.seconds}
        pairs = decode_against_generate(setting, rows, length=self.plan.rationale, **limits)
        return _ratio(pairs, f"{len(rows)} rows, {self.plan.candidates} candidates, {self.plan.rationale} tokens")

    def rank_step(self) -> Result:
        """The passes of an R2Rank update against padded ones of the same loss, one row of K rationales at a time."""
        from rank_update import ranking_rows, step_against_padded

        setting = self.setting.for_lists(self.plan.candidates, task="rank")
        rows = ranking_rows(setting, 2, self.plan.candidates, history=self.plan.candidates)
        limits = {"repeats": self.plan.repeats, "seconds": self.plan.seconds}
        pairs = step_against_padded(setting, rows, length=self.plan.rationale, **limits)
        note = f"{self.plan.candidates} candidates, rationales of {self.plan.rationale} tokens; float32"
        return _ratio(pairs, note)

    def bear_over_sft(self) -> Result:
        """A BEAR update against a plain one."""
        return self._supervised("bear")

    def msl_over_sft(self) -> Result:
        """An MSL update against a plain one."""
        return self._supervised("msl")

    def _supervised(self, objective: str) -> Result:
        from supervised import objective_over_sft

        rows = self.setting.train[: self.plan.batch]
        limits = {"repeats": 3 * self.plan.repeats, "seconds": self.plan.seconds}
        return _ratio(objective_over_sft(self.setting, rows, objective, **limits), inverse=True)

    def help_seconds(self) -> Result:
        """Start-up of the command line."""
        from machine import help_seconds

        seconds = help_seconds(self.plan.repeats)
        return Result(seconds, ours=seconds)

    def trie_seconds(self) -> Result:
        """The trie of a large catalogue, in a process of its own."""
        from machine import in_fresh_process, trie_build

        facts = in_fresh_process(trie_build, self.plan.titles)
        note = f"{facts['titles']:,} titles, {facts['nodes']:,} nodes, {facts['megabytes']:.0f} MB"
        return Result(facts["seconds"], ours=facts["seconds"], note=f"{note}, peak {facts['peak_megabytes']:.0f} MB")

    def prepare(self) -> Result:
        """`recalign prepare` and a pandas script."""
        if find_spec("pandas") is None:
            return Result(None, note="pandas is not installed: pip install recalign[bench]")
        from machine import prepare_against_pandas

        pairs = prepare_against_pandas(self.plan.interactions, min(self.plan.repeats, 2), self.plan.seconds)
        return _ratio(pairs, f"{self.plan.interactions:,} interactions")


def _ratio(pairs: Any, note: str = "", *, inverse: bool = False) -> Result:
    """Peer over ours, or ours over the other where `inverse`."""
    ours, peer = pairs.seconds
    return Result(1 / pairs.ratio if inverse else pairs.ratio, ours, peer, len(pairs.ours), note)


def main(arguments: list[str] | None = None) -> None:
    """Parse the command line, run, print."""
    huge_pages.ask()  # both sides have them
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--quick", action="store_true", help="few repetitions: three minutes on two cores")
    size.add_argument("--smoke", action="store_true", help="toy sizes: does it run at all")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout instead of a table")
    parser.add_argument("--only", action="append", choices=[*GOALS, *TABLES], help="run only this one; repeatable")
    parser.add_argument("--model", choices=[*MODELS], help="a pretrained or a large model in place of the small one")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu", help="where both sides run")
    dtypes = ["float32", "bfloat16"]
    parser.add_argument("--dtype", choices=dtypes, default="float32", help="what is timed; compared in float32 before")
    clocks = ["wall", "processor"]
    parser.add_argument("--clock", choices=clocks, default="wall", help="processor: for a machine that others use too")
    parser.add_argument("--office", type=Path, help="folder of Amazon Office (else generated titles)")
    parser.add_argument("--threads", type=int, default=1, help="threads of each side")
    options = parser.parse_args(arguments)
    mode = "quick" if options.quick else "smoke" if options.smoke else "full"
    if options.model and options.smoke:
        parser.error("--smoke has a toy model of its own; use --quick with --model")
    names = options.only or (MODELS[options.model] if options.model else FULL if mode == "full" else QUICK)
    if options.device == "cuda" and not _has_gpu():
        parser.error("--device cuda: PyTorch finds no GPU here; leave it out to measure on the CPU")
    plan = PLANS[f"{options.model} {mode}" if options.model else mode]
    plan = replace(plan, model={**plan.model, "device": options.device, "dtype": options.dtype})
    with _quiet_stdout() as stdout:
        report = measure(plan, names, options.office, options.threads, options.clock)
        if options.json:
            stdout.write(json.dumps(report, allow_nan=False) + "\n")
        else:
            show(report, stdout)


def _has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()


def measure(
    plan: Plan, names: list[str] | tuple[str, ...], office: Path | None, threads: int, clock: str = "wall"
) -> dict[str, Any]:
    """Run benchmarks; return their values by name, with seconds, notes and the environment under `details`."""
    os.environ["OMP_NUM_THREADS"] = str(threads)
    import torch
    from transformers.utils import logging

    from timing import measure_by

    measure_by(clock)
    torch.set_num_threads(threads)
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    warnings.filterwarnings("ignore")
    started = time.perf_counter()
    bench = Bench(plan, office)
    _say(f"setting: {bench.setting.source}, {time.perf_counter() - started:.0f} s")
    results: dict[str, Result] = {}
    for name in names:
        if name in TABLES:
            continue
        results[name] = bench.run(name)
        _say(f"{_line(name, results[name])}  ({time.perf_counter() - started:.0f} s)")
    report: dict[str, Any] = {name: result.value for name, result in results.items()}
    goals = GOALS | (PRETRAINED_GOALS if plan.model.get("adapter") else {})
    report["details"] = {name: _detail(goals[name], result) for name, result in results.items()}
    if set(TABLES) & {*names}:
        from growth import growth
        from rates import rates

        table = growth if "growth" in names else rates
        report["growth"] = table(bench.setting, plan)
    report["environment"] = environment(bench, threads, time.perf_counter() - started)
    return report


def _line(name: str, result: Result) -> str:
    """What is said of a benchmark when it is done, for a run may end before its report."""
    value = "-" if result.value is None else f"{result.value:.2f}"
    sides = [f"{seconds:.3f} s" for seconds in (result.ours, result.peer) if seconds is not None]
    return "  ".join(part for part in (f"{name}: {value}", " against ".join(sides), result.note) if part)


def _detail(goal: str, result: Result) -> dict[str, Any]:
    return {
        "goal": goal,
        "ours_seconds": result.ours,
        "peer_seconds": result.peer,
        "pairs": result.pairs,
        "note": result.note,
    }


def environment(bench: Bench, threads: int, seconds: float) -> dict[str, Any]:
    """What the figures were measured with."""
    from importlib.metadata import PackageNotFoundError, version

    import torch

    versions = {}
    for package in ("torch", "transformers", "trl", "pandas", "polars"):
        with contextlib.suppress(PackageNotFoundError):
            versions[package] = version(package)
    model = bench.setting.policy.model
    return {
        "device": torch.cuda.get_device_name(model.device) if bench.on_gpu else "cpu",
        "dtype": str(bench.setting.dtype).removeprefix("torch."),
        "titles": bench.setting.source,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "threads": threads,
        "load": os.getloadavg()[0],
        "seconds": seconds,
        "versions": versions,
    }


def show(report: dict[str, Any], stdout: Any) -> None:
    """Print tables."""
    from rich.console import Console
    from rich.table import Table

    console = Console(file=stdout)
    table = Table("benchmark", "value", "goal", "ours s", "peer s", "pairs", "note")
    for name, detail in report["details"].items():
        seconds = ("" if detail[key] is None else f"{detail[key]:.3f}" for key in ("ours_seconds", "peer_seconds"))
        value = "-" if report[name] is None else f"{report[name]:.2f}"
        table.add_row(name, value, detail["goal"], *seconds, str(detail["pairs"]), detail["note"])
    console.print(table)
    for title, rows in report.get("growth", {}).items():
        table = Table(*rows[0], title=title)
        for row in rows:
            table.add_row(*(f"{value:.4g}" if isinstance(value, float) else str(value) for value in row.values()))
        console.print(table)


@contextlib.contextmanager
def _quiet_stdout():
    """Send everything that libraries print to stderr; yield the real stdout."""
    stdout, sys.stdout = sys.stdout, sys.stderr
    try:
        yield stdout
    finally:
        sys.stdout = stdout


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
