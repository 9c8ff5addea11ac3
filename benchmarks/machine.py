"""What needs no peer model: start-up time, the machine's matrix rate, the trie of a large catalogue, `prepare`."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch

from recalign.models.prepacked import prepacked
from recalign.text.item_tokens import TitleTokens
from recalign.text.trie import TitleTrie
from timing import Pairs, alternate, timed


def help_seconds(repeats: int) -> float:
    """Median seconds of `recalign --help` in a fresh process."""
    command = [sys.executable, "-m", "recalign", "--help"]
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def gemm_ceiling(rows: int, width: int = 256, seconds: float = 0.3) -> tuple[float, float]:
    """GFLOP/s of a feed-forward layer, [rows, width] x [width, 2.7 width]: PyTorch's, and ours for inference."""
    inputs, layer = torch.randn(rows, width), torch.nn.Linear(width, int(width * 2.7), bias=False)
    rates = []
    with torch.no_grad():
        for way in (contextlib.nullcontext(), prepacked(layer)):
            times: list[float] = []
            with way:
                while sum(times) < seconds:
                    started = time.perf_counter()
                    layer(inputs)
                    times.append(time.perf_counter() - started)
            rates.append(2e-9 * rows * layer.weight.numel() / statistics.median(times))
    return rates[0], rates[1]


def product_rate(
    rows: int, inner: int, outer: int, device: torch.device, dtype: torch.dtype, seconds: float = 0.2
) -> float:
    """TFLOP/s of the product [rows, inner] x [inner, outer] on a device, the median of its repetitions."""
    inputs, weight = (torch.randn(size, inner, device=device, dtype=dtype) for size in (rows, outer))
    repeats = 10  # a call, so that starting them is not what is timed

    def products() -> None:
        for _ in range(repeats):
            torch.nn.functional.linear(inputs, weight)

    products()
    times: list[float] = []
    while sum(times) * repeats < seconds:
        times.append(timed(products)[0] / repeats)
    return 2e-12 * rows * inner * outer / statistics.median(times)


def generated_paths(count: int, seed: int = 0, vocabulary: int = 8000) -> list[np.ndarray]:
    """Token paths of many titles, about 20 tokens each; they share beginnings as titles of one brand do."""
    generator = np.random.default_rng(seed)
    lengths = np.clip(generator.poisson(17, count) + 3, 4, 60)
    words = vocabulary - 90  # the first ids are special tokens
    tokens = generator.zipf(1.25, int(lengths.sum())) % words + 90
    starts = lengths.cumsum() - lengths
    brands = np.minimum(generator.zipf(1.1, count), 5000)
    tokens[starts] = 90 + brands % words
    tokens[starts + 1] = 90 + brands * 7 % words  # a brand of two tokens
    serial, base = np.arange(count), min(1000, words)  # the last tokens tell all titles apart
    ends = lengths.cumsum()
    for place in range(3):
        tokens[ends - 1 - place] = 90 + serial // base**place % base
    return np.split(tokens.astype(np.int64), ends[:-1])


def trie_build(count: int) -> dict[str, float]:
    """Seconds to build the trie of many titles, its bytes, and the peak of memory above that of the titles."""
    titles = TitleTokens(paths=generated_paths(count), separator=np.array([3]), end=2)
    before = _reset_peak()
    started = time.perf_counter()
    trie = TitleTrie.build(titles)
    seconds = time.perf_counter() - started
    return {
        "titles": count,
        "nodes": trie.nodes,
        "seconds": seconds,
        "megabytes": trie.bytes / 2**20,
        "peak_megabytes": _memory("VmHWM") - before,
    }


def _reset_peak() -> float:
    """Set the kernel's mark of peak memory to the present (Linux); return the present MB."""
    Path("/proc/self/clear_refs").write_text("5")
    return _memory("VmRSS")


def _memory(field: str) -> float:
    """A memory figure of this process in MB: VmRSS now, VmHWM at its highest (Linux)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 2**10 for line in lines if line.startswith(field))


def in_fresh_process(work: Callable[..., Any], *arguments: Any) -> Any:
    """Run in a new process and return the result."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(work, *arguments).result()


def write_interactions(file: Path, count: int, seed: int = 0) -> None:
    """Write synthetic interactions: user_id, item_id, timestamp, rating, title, as CSV."""
    import polars as pl

    generator = np.random.default_rng(seed)
    users, items = max(10, count // 50), max(10, count // 250)
    item = np.minimum(generator.zipf(1.2, count) * 7919 % items, items - 1)
    pl.DataFrame(
        {
            "user_id": generator.integers(0, users, count),
            "item_id": item,
            "timestamp": generator.integers(1_000_000_000, 1_600_000_000, count),
            "rating": generator.integers(1, 6, count),
        }
    ).with_columns(title=pl.concat_str(pl.lit("Item number "), pl.col("item_id"))).write_csv(file)


def prepare_against_pandas(count: int, repeats: int, seconds: float) -> Pairs:
    """Time `recalign prepare table` on synthetic interactions, and a pandas script for the same windows."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "interactions.csv"
        write_interactions(file, count)
        turn = iter(range(10**6))
        ours = _ours(file, Path(folder), turn)

        def peer() -> None:
            pandas_pipeline(file, Path(folder) / f"pandas-{next(turn)}")

        return alternate(ours, peer, repeats, seconds)


def _ours(file: Path, folder: Path, turn: Iterator[int]) -> Callable[[], None]:
    def ours() -> None:
        out = folder / f"ours-{next(turn)}"
        command = [sys.executable, "-m", "recalign", "prepare", "table", str(file), "--out", str(out), "--quiet"]
        command += ["--task", "next", "--history", "10", "--k-core", "5"]
        subprocess.run(command, check=True, env={**os.environ, "RECALIGN_HOME": str(folder)})

    return ours


def pandas_pipeline(file: Path, out: Path) -> None:
    """5-core, global time split 8:1:1, sliding windows of at most ten items of history and one target."""
    import pandas as pd

    frame = pd.read_csv(file).sort_values("timestamp", kind="stable")
    while True:
        before = len(frame)
        frame = frame[frame.groupby("user_id")["item_id"].transform("size") >= 5]
        frame = frame[frame.groupby("item_id")["user_id"].transform("size") >= 5]
        if len(frame) == before:
            break
    frame["item"] = pd.factorize(frame["item_id"])[0]
    first, second = frame["timestamp"].quantile([0.8, 0.9])
    rows = []
    for user, events in frame.groupby("user_id", sort=False):
        items, times = events["item"].tolist(), events["timestamp"].tolist()
        for target in range(1, len(items)):
            rows.append((user, items[max(0, target - 10) : target], [items[target]], times[target]))
    windows = pd.DataFrame(rows, columns=["user_id", "history", "targets", "timestamp"])
    out.mkdir()
    for name, part in (
        ("train", windows[windows["timestamp"] <= first]),
        ("valid", windows[(windows["timestamp"] > first) & (windows["timestamp"] <= second)]),
        ("test", windows[windows["timestamp"] > second]),
    ):
        part.to_parquet(out / f"{name}.parquet")
