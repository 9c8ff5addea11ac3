"""What every plugin shares: its declared parameters, its paper, its name, and the marker of its hook."""

from __future__ import annotations

from typing import Any, ClassVar

import pluggy

from recalign.params import Params

AnyParams = Params  # inside a plugin class the name `Params` is the plugin's own declaration

INVALID = -1
"""Item index of a position whose text names no item of the catalogue."""


hookimpl = pluggy.HookimplMarker("recalign")
"""Marks the function of a plugin module that returns its class."""


class NoParams(Params):
    """The declaration of plugins without parameters."""


class Plugin:
    """What all kinds share.

    Attributes:
        Params: the declaration of the plugin's parameters.
        paper: where the method comes from (authors, venue, equation).
        name: the name that the user typed, which is the entry point's.
    """

    Params: ClassVar[type[Params]] = NoParams
    paper: ClassVar[str] = ""

    def __init__(self, params: AnyParams | None = None, *, name: str = "") -> None:
        self.params: Any = params if params is not None else self.Params()
        self.name = name or type(self).__name__.lower()
