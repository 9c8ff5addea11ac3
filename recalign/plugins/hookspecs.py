"""The pluggy hooks by which a plugin module hands over its class; one hook a kind."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    from recalign.api import Decoder, Metric, Objective, Source

PROJECT = "recalign"
hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec
def recalign_objective() -> type[Objective]:
    """Return the Objective class of this plugin module (entry-point group `recalign.objectives`)."""
    raise NotImplementedError


@hookspec
def recalign_metric() -> type[Metric]:
    """Return the Metric class of this plugin module (entry-point group `recalign.metrics`)."""
    raise NotImplementedError


@hookspec
def recalign_decoder() -> type[Decoder]:
    """Return the Decoder class of this plugin module (entry-point group `recalign.decoders`)."""
    raise NotImplementedError


@hookspec
def recalign_source() -> type[Source]:
    """Return the Source class of this plugin module (entry-point group `recalign.sources`)."""
    raise NotImplementedError
