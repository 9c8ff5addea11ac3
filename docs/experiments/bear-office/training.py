"""Means of what BEAR's training logs say: choices below the beam's threshold, and how much tokens weigh.

python docs/experiments/bear-office/training.py runs/bear-office/bear
"""

import json
import statistics
import sys
from pathlib import Path

KEYS = ("pruned_share", "mean_weight", "choice_share")

for log in sorted(Path(sys.argv[1]).glob("**/log.jsonl")):
    lines = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    steps = [line for line in lines if KEYS[0] in line]
    means = ", ".join(f"{key} {statistics.fmean(step[key] for step in steps):.3f}" for key in KEYS)
    shares = [step[KEYS[0]] for step in steps]
    print(f"{log.parent.name}: {means}; {KEYS[0]} of ten updates from {min(shares):.3f} to {max(shares):.3f}")
