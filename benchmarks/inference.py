"""Beam search, exact top-K and sampling for rollouts against `generate`."""

from __future__ import annotations

import numpy as np

from peers import DictTrie, generate_beams, generate_samples
from recalign.api import Row
from setting import Setting
from timing import Pairs, alternate


def beam(setting: Setting, rows: list[Row], *, scoring: str, repeats: int, seconds: float, width: int = 10) -> Pairs:
    """Our beam search and `generate(num_beams=width)`, which must return the same items, order and scores.

    Args:
        setting: model and titles.
        rows: what to answer, in one batch.
        scoring: `full` or `renormalised`.
        repeats: pairs of timings.
        seconds: begin no further pair after this time.
        width: B.
    """
    engine, trie = setting.engine(), DictTrie(setting.policy.titles)
    prompts, longest = setting.prompts(rows), max(map(len, setting.policy.titles.paths))

    def ours() -> tuple[np.ndarray, np.ndarray]:
        return engine.beam(rows, width=width, size=width, scoring=scoring)

    def peer() -> tuple[np.ndarray, np.ndarray]:
        return generate_beams(
            setting.policy.model, trie, prompts, width=width, longest=longest, renormalised=scoring == "renormalised"
        )

    same_lists(*ours(), *peer())
    return alternate(ours, peer, repeats, seconds)


def same_lists(
    items: np.ndarray, scores: np.ndarray, peer_items: np.ndarray, peer_scores: np.ndarray, tolerance: float = 1e-4
) -> None:
    """Refuse to compare the speed of unlike results: scores must agree, and items wherever scores are no near-ties."""
    if not np.allclose(scores, peer_scores, atol=tolerance, rtol=1e-5):
        raise AssertionError(f"scores differ by {np.abs(scores - peer_scores).max():.2g}")
    gaps = np.abs(np.diff(scores, axis=1)) > 2 * tolerance
    edge = np.ones((len(scores), 1), dtype=bool)
    clear = np.concatenate([edge, gaps], axis=1) & np.concatenate([gaps, edge], axis=1)
    if not (items == peer_items)[clear].all():
        raise AssertionError("items differ where scores are no ties")


def exact_over_beam(setting: Setting, rows: list[Row], *, repeats: int, seconds: float, size: int = 10) -> Pairs:
    """Exact top-K (as `ours`) and our own beam search of the same width, both renormalised."""
    engine = setting.engine()

    def exact() -> object:
        return engine.exact(rows, size=size)

    def beams() -> object:
        return engine.beam(rows, width=size, size=size, scoring="renormalised")

    exact(), beams()
    return alternate(exact, beams, repeats, seconds)


def rollouts(setting: Setting, rows: list[Row], *, group_size: int, repeats: int, seconds: float) -> Pairs:
    """G constrained samples a prompt, ours and `generate(do_sample=True, num_return_sequences=G)`.

    What both sample are valid titles; that ours follow the constrained distribution is a test of the engine.
    """
    engine, trie = setting.engine(), DictTrie(setting.policy.titles)
    prompts, longest = setting.prompts(rows), setting.policy.titles.longest_response(1)
    seeds = iter(range(10**9))

    def ours() -> np.ndarray:
        return engine.sample(rows, group_size=group_size, list_length=1, seed=next(seeds)).items.numpy()

    def peer() -> np.ndarray:
        return generate_samples(setting.policy.model, trie, prompts, group_size=group_size, longest=longest)

    if (ours() < 0).any() or any(trie.item(tokens) < 0 for tokens in peer().tolist()):
        raise AssertionError("a sample is no title of the catalogue")
    return alternate(ours, peer, repeats, seconds)
