"""`recalign prepare` on large dumps, against a pandas script for the same job: seconds, their ratio, peak memory.

python benchmarks/formats.py --records 1000000                  # Amazon 2023: JSON lines, gz, with metadata
python benchmarks/formats.py --records 1000000 --form csv       # the same log as CSV; or parquet
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

WORDS = "good bad fine quite very sturdy broken soft color size works stopped after week would buy again never".split()
CHUNK = 100_000


def write(folder: Path, records: int, form: str) -> Path:
    """Reviews of the 2023 kind, and metadata beside them; users and items are as skewed as theirs."""
    random = np.random.default_rng(0)
    users, items = max(1, records // 8), max(1, records // 40)
    user = (random.beta(1, 3, records) * users).astype(int)
    item = (random.beta(1, 4, records) * items).astype(int)
    when = np.sort(random.integers(10**9, 17 * 10**8, records))
    stars = random.integers(1, 6, records)
    with gzip.open(folder / "meta_Made_Up.jsonl.gz", "wt", compresslevel=1) as file:
        for number in range(items):
            words = " ".join(random.choice(WORDS, 40))
            row = {"main_category": "Made Up", "title": f"Thing {number} of {words[:30]}", "features": [words, words],
                   "description": [words], "categories": ["Made Up", f"Kind {number % 40}"], "details": {"Brand": "B"},
                   "parent_asin": f"B{number:09d}"}  # fmt: skip
            file.write(json.dumps(row) + "\n")
    if form != "jsonl":
        import polars as pl

        columns = {"user_id": user, "parent_asin": item, "rating": stars.astype(float), "timestamp": when * 1000}
        frame = pl.DataFrame(columns).with_columns(
            pl.format("AE{}", pl.col("user_id").cast(pl.String).str.zfill(26)),
            pl.format("B{}", pl.col("parent_asin").cast(pl.String).str.zfill(9)),
        )
        file = folder / f"Made_Up.{form}"
        frame.write_csv(file) if form == "csv" else frame.write_parquet(file)
        return file
    texts = [" ".join(random.choice(WORDS, 45)) for _ in range(2000)]
    file = folder / "Made_Up.jsonl.gz"
    with gzip.open(file, "wt", compresslevel=1) as out:
        for n in range(records):
            row = {"rating": float(stars[n]), "title": "Five \"stars\"", "text": texts[n % 2000], "images": [],
                   "asin": f"B{item[n]:09d}", "parent_asin": f"B{item[n]:09d}", "user_id": f"AE{user[n]:026d}",
                   "timestamp": int(when[n]) * 1000, "helpful_vote": 0, "verified_purchase": True}  # fmt: skip
            out.write(json.dumps(row) + "\n")
    return file


def pandas_script(file: Path, out: Path) -> None:
    """Read, keep the log's columns, 5-core, time split, windows of ten; titles and categories of what is left."""
    import pandas as pd

    from machine import pandas_pipeline

    columns = ["user_id", "parent_asin", "rating", "timestamp"]
    if file.suffix == ".gz":
        frame = pd.concat(chunk[columns] for chunk in pd.read_json(file, lines=True, chunksize=CHUNK, dtype=False))
    else:
        frame = pd.read_csv(file) if file.suffix == ".csv" else pd.read_parquet(file)
    meta = file.parent / "meta_Made_Up.jsonl.gz"
    kept = ["parent_asin", "title", "categories", "description"]
    items = pd.concat(chunk[kept] for chunk in pd.read_json(meta, lines=True, chunksize=CHUNK, dtype=False))
    log = file.parent / "log.csv"
    frame.rename(columns={"parent_asin": "item_id"}).to_csv(log, index=False)
    pandas_pipeline(log, out)
    items[items["parent_asin"].isin(frame["parent_asin"].unique())].to_parquet(out / "items.parquet")


def run(command: list[str], home: Path) -> tuple[float, float, float]:
    """Seconds of a command, seconds of its processors' time, and MB that it held at most."""
    started = time.perf_counter()
    process = subprocess.Popen(command, env={**os.environ, "RECALIGN_HOME": str(home)}, stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{' '.join(command)} failed")
    return time.perf_counter() - started, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024


def main() -> None:
    """Print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=1_000_000, help="reviews")
    parser.add_argument("--form", choices=["jsonl", "csv", "parquet"], default="jsonl", help="of the reviews")
    parser.add_argument("--no-pandas", action="store_true", help="only ours")
    parser.add_argument("--pandas-script", nargs=2, metavar=("FILE", "OUT"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.pandas_script:
        pandas_script(*map(Path, options.pandas_script))
        return
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        file = write(folder, options.records, options.form)
        ours = [sys.executable, "-m", "recalign", "prepare", "amazon", str(file), "--task", "next", "--k-core", "5"]
        seconds, cpu, memory = run([*ours, "--out", str(folder / "ours"), "--quiet"], folder)
        report = {"records": options.records, "form": options.form, "MB": file.stat().st_size >> 20}
        report |= {"seconds": round(seconds, 1), "cpu_seconds": round(cpu, 1), "peak_mb": round(memory)}
        if not options.no_pandas:
            peer = [sys.executable, __file__, "--pandas-script", str(file), str(folder / "pandas")]
            theirs, their_cpu, held = run(peer, folder)
            report |= {"pandas_seconds": round(theirs, 1), "pandas_cpu_seconds": round(their_cpu, 1)}
            report |= {"pandas_peak_mb": round(held), "pandas_over_ours": round(theirs / seconds, 2)}
            report["pandas_cpu_over_ours"] = round(their_cpu / cpu, 2)
        print(json.dumps(report))


if __name__ == "__main__":
    main()
