"""Rotary positions that depend on the longest sequence of a pass."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from transformers import PreTrainedModel


def steady_positions(model: PreTrainedModel) -> int | None:
    """Return the longest sequence that is computed as if it were alone, whatever else is in a pass; None: any.

    In a pass with a longer one, `dynamic` and `longrope` turn the positions of all sequences by other angles.
    """
    config = model.config.get_text_config()
    found = [
        kind["original_max_position_embeddings"] if kind["rope_type"] == "longrope" else config.max_position_embeddings
        for kind in _rope_parameters(config)
        if kind.get("rope_type") in ("dynamic", "longrope")
    ]
    return min(found, default=None)


def _rope_parameters(config: Any) -> Iterator[dict[str, Any]]:
    """What a configuration says of rotary positions: once, or for each kind of layer."""
    stated = getattr(config, "rope_parameters", None) or {}
    yield stated
    yield from (each for each in stated.values() if isinstance(each, dict))
