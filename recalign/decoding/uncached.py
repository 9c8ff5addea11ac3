"""The fallback without a KV cache: prompts and completions are encoded again in every forward pass."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from transformers import PreTrainedModel

from recalign.decoding.positions import steady_positions
from recalign.decoding.prompt_cache import Cost, PromptCache
from recalign.decoding.scoring import selects_logits
from recalign.decoding.shared_attention import own


class UncachedPrompts(PromptCache):
    """Prompts and completions encoded by full forward passes, for models that do not take the shared attention."""

    def __init__(self, model: PreTrainedModel, cost: Cost, token_budget: int) -> None:
        self.model, self.cost = model, cost
        self.token_budget = token_budget
        self.selects = selects_logits(model)
        self.steady = steady_positions(model)

    def begin(self, prompts: Sequence[np.ndarray], segments: int = 1, *, branching: bool = False) -> torch.Tensor:
        """Encode the prompts as a padded batch."""
        self.prompts = [np.asarray(prompt, dtype=np.int64) for prompt in prompts for _ in range(segments)]
        self.sequences: list[list[np.ndarray]] = [[] for _ in self.prompts]
        self.segments = len(self.prompts)
        self.cost.prompts += len(prompts)
        self.cost.prompt_tokens += sum(map(len, prompts))
        return self._forward([np.asarray(prompt, dtype=np.int64) for prompt in prompts])

    def extend(
        self,
        segments: torch.Tensor,
        parents: torch.Tensor,
        tokens: torch.Tensor,
        counts: torch.Tensor,
        *,
        every: bool = False,
        columns: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Encode every completion again from its prompt's first token."""
        slots, inputs = [], []
        for segment, parent, row, count in zip(
            segments.tolist(), parents.tolist(), tokens.cpu().numpy(), counts.tolist(), strict=True
        ):
            known = self.sequences[segment]
            before = self.prompts[segment] if parent < 0 else known[parent]
            known.extend(np.concatenate([before, row[: step + 1]]) for step in range(count))
            slots.append(len(known) - 1)
            inputs.extend(known[-count:] if every else known[-1:])
        logits = self._forward(inputs)
        return logits if columns is None else logits[:, columns], torch.tensor(slots, device=self.model.device)

    def prune(self, slots: torch.Tensor) -> None:
        """Do nothing: tokens that no completion goes on from cost nothing."""

    def retain(self, segments: torch.Tensor) -> None:
        """Drop the others' tokens."""
        self.segments = len(segments)
        self.prompts = [self.prompts[segment] for segment in segments.tolist()]
        self.sequences = [self.sequences[segment] for segment in segments.tolist()]

    def _forward(self, inputs: list[np.ndarray]) -> torch.Tensor:
        longest = max(map(len, inputs))
        if self.steady is not None and longest > self.steady:
            return self._by_length(inputs)
        batch = max(1, self.token_budget // longest)
        logits = [self._padded(inputs[start : start + batch]) for start in range(0, len(inputs), batch)]
        return torch.cat(logits)

    def _by_length(self, inputs: list[np.ndarray]) -> torch.Tensor:
        """Encode sequences whose positions depend on the longest of a batch: with those of equal length alone."""
        lengths = np.array([len(tokens) for tokens in inputs])
        parts, order = [], []
        for length in np.unique(lengths):
            members = np.flatnonzero(lengths == length)
            order.append(members)
            for some in np.array_split(members, -(-len(members) // max(1, self.token_budget // int(length)))):
                parts.append(self._padded([inputs[member] for member in some]))
        return torch.cat(parts)[torch.from_numpy(np.concatenate(order).argsort()).to(self.model.device)]

    def _padded(self, inputs: list[np.ndarray]) -> torch.Tensor:
        lengths = torch.tensor([len(tokens) for tokens in inputs])
        padded = torch.zeros(len(inputs), int(lengths.max()), dtype=torch.long)
        for row, tokens in zip(padded, inputs, strict=True):
            row[: len(tokens)] = torch.from_numpy(tokens)
        mask = (torch.arange(padded.shape[1]) < lengths[:, None]).long()
        last, place = torch.unique(lengths - 1, return_inverse=True)  # logits of all tokens would take L times as much
        device = self.model.device
        chosen = {"logits_to_keep": last.to(device)} if self.selects else {}
        self.cost.forward_passes += 1
        with own(self.model):
            out = self.model(input_ids=padded.to(device), attention_mask=mask.to(device), use_cache=False, **chosen)
        return out.logits[torch.arange(len(inputs)), place if self.selects else lengths - 1]
