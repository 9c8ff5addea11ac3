"""Processor time of one update of each objective over one of SFT: the same batch in turn, medians over batches.

python docs/experiments/bear-office/step_time.py runs/bear-office/data runs/bear-office/base/seed=0
"""

import copy
import statistics
import sys
import time
from dataclasses import replace

import torch  # noqa: TID253

from recalign.data.dataset import PreparedDataset
from recalign.decoding.engine import PolicyEngine
from recalign.models.policy import load_policy
from recalign.plugins import registry
from recalign.training.accumulation import Accumulation
from recalign.training.offline.examples import AnswerExamples, collate
from recalign.training.offline.token_step import TokenStep

OBJECTIVES, BATCHES, SIZE = ("sft", "msl", "bear", "beam-exact"), 60, 64

torch.set_num_threads(1)
dataset = PreparedDataset(sys.argv[1])
policy = load_policy(sys.argv[2], dataset, trainable=True)
rows = dataset.rows("train")[: BATCHES * SIZE]
examples = AnswerExamples(policy, rows, 1)
steps, seconds = {}, {name: [] for name in OBJECTIVES}
for name in OBJECTIVES:
    own = replace(policy, model=copy.deepcopy(policy.model))
    engine = PolicyEngine(own, dataset.catalogue, exclude_history=dataset.excludes_history())
    optimizer = torch.optim.AdamW(own.model.parameters(), lr=1e-6)
    steps[name] = (own.model, TokenStep(own, registry.create("objective", name), engine), optimizer)
for start in range(0, len(rows), SIZE):
    picked = [examples[0, index] for index in range(start, min(start + SIZE, len(rows)))]
    batch = collate(picked, pad=policy.titles.end, all_tokens=False)
    for name, (model, step, optimizer) in steps.items():
        began = time.process_time()
        update = Accumulation(model)
        step.accumulate(model, batch, update)
        update.finish()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        seconds[name].append(time.process_time() - began)
for name in OBJECTIVES:
    ratios = [ours / plain for ours, plain in zip(seconds[name][1:], seconds["sft"][1:], strict=True)]
    print(f"{name}: {1000 * statistics.median(seconds[name]):.0f} ms, {statistics.median(ratios):.2f} times SFT")
