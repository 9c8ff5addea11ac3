"""What people run today: Hugging Face `generate` with a Python trie."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from transformers import LogitsProcessor, LogitsProcessorList, PreTrainedModel

from recalign.text.item_tokens import TitleTokens


class DictTrie:
    """Nested dicts of token ids, the fast form of what GENRE, BIGRec, MSL and BEAR pass to `generate`.

    Args:
        titles: the catalogue's titles.
        list_length: titles a response; after a title comes a separator, after the last one the end.
    """

    def __init__(self, titles: TitleTokens, list_length: int = 1) -> None:
        self.end, self.separator, self.list_length = titles.end, titles.separator.tolist(), list_length
        self.root: dict[int, Any] = {}
        self.items: dict[tuple[int, ...], int] = {}
        self.below: Counter[int] = Counter()  # titles below a node, by the node's identity
        for item, path in enumerate(titles.paths):
            node = self.root
            for token in [*path.tolist(), self.end]:
                self.below[id(node)] += 1
                node = node.setdefault(token, {})
            self.below[id(node)] += 1
            self.items[tuple(path.tolist())] = item

    def valid(self, tokens: Sequence[int]) -> list[int]:
        """Valid next tokens after a completion's tokens: titles of the catalogue, none twice."""
        node, start, used = self.root, 0, []
        for place, token in enumerate(tokens):
            if token in node and token != self.end:
                node = node[token]
            elif self.separator and token == self.separator[0] and len(used) < self.list_length - 1:
                used.append([*tokens[start:place], self.end])
                node, start = self.root, place + 1
            else:
                return [self.end]
        tokens = list(tokens[start:])
        spent = Counter(path[len(tokens)] for path in used if path[: len(tokens)] == tokens)
        free = [token for token, child in node.items() if spent[token] < self.below[id(child)]]
        leave = self.end if len(used) == self.list_length - 1 else self.separator[0]
        return [leave if token == self.end else token for token in free] or [self.end]

    def item(self, tokens: Sequence[int]) -> int:
        """The item whose title the tokens are, up to the end token; -1 where there is none."""
        ids = list(tokens)
        return self.items.get(tuple(ids[: ids.index(self.end)] if self.end in ids else ids), -1)

    def after(self, prompt_length: int) -> Callable[[int, torch.Tensor], list[int]]:
        """The `prefix_allowed_tokens_fn` for prompts padded to a length."""
        return lambda _, sequence: self.valid(sequence[prompt_length:].tolist())


class RenormalisedConstraint(LogitsProcessor):
    """Mask first, then renormalise: the customised constrained beam search that MSL's and BEAR's authors publish.

    Args:
        trie: the titles.
        prompt_length: padded length of the prompts.
    """

    def __init__(self, trie: DictTrie, prompt_length: int) -> None:
        self.trie, self.prompt_length = trie, prompt_length

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        mask = torch.full_like(scores, -torch.inf)
        for row, sequence in enumerate(input_ids[:, self.prompt_length :].tolist()):
            mask[row, self.trie.valid(sequence)] = 0.0
        return (scores + mask).log_softmax(dim=-1)


def left_padded(prompts: Sequence[np.ndarray], pad: int, device: torch.device) -> dict[str, torch.Tensor]:
    """Prompts as `generate` takes them: [P, L] ids and attention mask, on a device."""
    longest = max(map(len, prompts))
    ids = torch.full((len(prompts), longest), pad)
    mask = torch.zeros_like(ids)
    for row, prompt in enumerate(prompts):
        ids[row, longest - len(prompt) :] = torch.from_numpy(prompt)
        mask[row, longest - len(prompt) :] = 1
    return {"input_ids": ids.to(device), "attention_mask": mask.to(device)}


@torch.no_grad()
def generate_beams(
    model: PreTrainedModel,
    trie: DictTrie,
    prompts: Sequence[np.ndarray],
    *,
    width: int,
    longest: int,
    renormalised: bool,
) -> tuple[np.ndarray, np.ndarray]:
    """Beam search with `generate`; length normalisation off, so that scores are log-probabilities.

    Args:
        model: the model.
        trie: the titles.
        prompts: [P] token ids.
        width: B.
        longest: tokens of the longest title; a lower `max_new_tokens` would return cut titles.
        renormalised: mask before the softmax; else `prefix_allowed_tokens_fn`, which masks after it.

    Returns:
        Items [P, B] and scores [P, B], best first.
    """
    inputs = left_padded(prompts, model.config.pad_token_id, model.device)
    length = inputs["input_ids"].shape[1]
    if renormalised:
        constraint = {"logits_processor": LogitsProcessorList([RenormalisedConstraint(trie, length)])}
    else:
        constraint = {"prefix_allowed_tokens_fn": trie.after(length)}
    out = model.generate(
        **inputs,
        num_beams=width,
        num_return_sequences=width,
        do_sample=False,
        max_new_tokens=longest + 1,
        length_penalty=0.0,
        early_stopping=False,
        return_dict_in_generate=True,
        output_scores=True,
        **constraint,
    )
    items = [trie.item(sequence) for sequence in out.sequences[:, length:].tolist()]
    return np.array(items).reshape(-1, width), out.sequences_scores.float().cpu().numpy().reshape(-1, width)


@torch.no_grad()
def generate_samples(
    model: PreTrainedModel, trie: DictTrie, prompts: Sequence[np.ndarray], *, group_size: int, longest: int
) -> np.ndarray:
    """Sample G completions a prompt with `generate` and a prefix function; return [P * G, T] tokens."""
    inputs = left_padded(prompts, model.config.pad_token_id, model.device)
    length = inputs["input_ids"].shape[1]
    out = model.generate(
        **inputs,
        do_sample=True,
        top_k=0,
        num_return_sequences=group_size,
        max_new_tokens=longest,
        prefix_allowed_tokens_fn=trie.after(length),
    )
    return out[:, length:].cpu().numpy()
