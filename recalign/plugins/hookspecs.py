"""The pluggy hooks by which a plugin module returns its class: one per row of the table of kinds."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import pluggy

from recalign.plugins.kinds import KINDS, Kind

PROJECT = "recalign"


def specifications() -> ModuleType:
    """Return a module of the hooks of all kinds, as `PluginManager.add_hookspecs` takes one."""
    mark, hooks = pluggy.HookspecMarker(PROJECT), ModuleType("recalign_hooks")
    for kind in KINDS.values():
        setattr(hooks, kind.hook, mark(_hook(kind)))
    return hooks


def _hook(kind: Kind) -> Callable[[], Any]:
    def hook() -> Any:
        raise NotImplementedError

    hook.__name__ = kind.hook
    hook.__doc__ = f"Return the {kind.base.partition(':')[2]} class of this module (entry-point group `{kind.group}`)."
    return hook
