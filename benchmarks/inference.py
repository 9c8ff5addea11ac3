"""Beam search, exact top-K and sampling for rollouts against `generate`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from peers import DictTrie, generate_beams, generate_samples
from recalign.api import Completions, Row
from setting import Setting
from timing import Pairs, alternate

Works = tuple[Callable[[], Any], Callable[[], Any]]
"""Ours and the peer's."""


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
    trie, renormalised = DictTrie(setting.policy.titles), scoring == "renormalised"
    prompts, longest = setting.prompts(rows), max(map(len, setting.policy.titles.paths))

    def works(setting: Setting) -> Works:
        engine, model = setting.engine(), setting.policy.model
        return (
            lambda: engine.beam(rows, width=width, size=width, scoring=scoring),
            lambda: generate_beams(model, trie, prompts, width=width, longest=longest, renormalised=renormalised),
        )

    return compared(setting, works, lambda ours, peer: same_lists(*ours, *peer), repeats, seconds)


def compared(
    setting: Setting, works: Callable[[Setting], Works], check: Callable[[Any, Any], None], repeats: int, seconds: float
) -> Pairs:
    """Compare the results of ours and of the peer in float32, and time both in the dtype that is timed.

    Args:
        setting: model and titles.
        works: what ours and the peer do with a setting.
        check: raises an AssertionError where their results differ.
        repeats: pairs of timings.
        seconds: begin no further pair after this time.
    """
    ours, peer = works(setting)
    check(ours(), peer())
    if setting.mixed:
        ours, peer = works(setting.as_timed)
        ours(), peer()
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
    engine = setting.as_timed.engine()

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
    trie, seeds = DictTrie(setting.policy.titles), iter(range(10**9))
    prompts, longest = setting.prompts(rows), setting.policy.titles.longest_response(1)

    def works(setting: Setting) -> Works:
        engine, model = setting.engine(), setting.policy.model
        return (
            lambda: engine.sample(rows, group_size=group_size, list_length=1, seed=next(seeds)),
            lambda: generate_samples(model, trie, prompts, group_size=group_size, longest=longest),
        )

    def check(completions: Completions, tokens: np.ndarray) -> None:
        if (completions.items < 0).any() or any(trie.item(each) < 0 for each in tokens.tolist()):
            raise AssertionError("a sample is no title of the catalogue")

    return compared(setting, works, check, repeats, seconds)
