"""Small tables of interactions for tests of `prepare`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl


def random_world(folder: Path, *, users: int = 40, items: int = 60, events: int = 20, seed: int = 0) -> Path:
    """Write a csv of users who consume distinct items at increasing times, rows in random order; returns its path."""
    random = np.random.default_rng(seed)
    rows = []
    for user in range(users):
        times = np.sort(random.choice(10_000, events, replace=False))
        for item, time in zip(random.permutation(items)[:events], times, strict=True):
            rows.append((f"u{user}", f"i{item}", int(time), int(random.integers(1, 6))))
    frame = pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp", "rating"], orient="row")
    folder.mkdir(parents=True, exist_ok=True)
    frame.sample(fraction=1.0, shuffle=True, seed=seed).write_csv(folder / "events.csv")
    return folder / "events.csv"


def write_csv(file: Path, text: str) -> Path:
    """Write lines that are indented in the test."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("\n".join(line.strip() for line in text.strip().splitlines()) + "\n", encoding="utf-8")
    return file
