"""The kinds of plugins: one table from which hooks, the registry, `recalign plugins` and the scaffolds follow.

A new kind is one row, a base class in `recalign.api`, a template folder `templates/NAME` (`plugin.py.tmpl` and
`test.py.tmpl`) and, where its plugins can be tried on made-up data, a module in `check/`. Nothing is imported here: a
row names its classes and functions by dotted paths, so that listing plugins stays light.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

from recalign.errors import UserError, did_you_mean

if TYPE_CHECKING:
    from recalign.api import Plugin


GROUPS = "recalign."
"""What the names of entry-point groups begin with."""


@dataclass(frozen=True)
class Kind:
    """One kind of plugin.

    Args:
        name: what users type after `plugins new` and `--kind`; it names the entry-point group and the hook.
        base: dotted path of the class in the api that all plugins of the kind inherit from, `module:Class`.
        argument: the argument or option of commands by which users name a plugin of the kind; a recipe that does so
            is checked before anything runs.
        trial: dotted path of the function that tries a plugin on made-up data, `module:function`; it takes the plugin
            and yields one line per problem. Empty: `plugins check` looks at the declarations alone.
        words: other names that users may type for the kind: a reward is a metric.
        assignments: the option of commands that holds the parameters of such a plugin.
    """

    name: str
    base: str
    argument: str
    trial: str = ""
    words: tuple[str, ...] = ()
    assignments: str = "param"

    @property
    def group(self) -> str:
        """The entry-point group, such as `recalign.metrics`."""
        return f"{GROUPS}{self.name}s"

    @property
    def hook(self) -> str:
        """The hook by which a plugin module returns its class, such as `recalign_metric`."""
        return f"recalign_{self.name}"

    def base_class(self) -> type[Plugin]:
        """Import and return the base class."""
        return _imported(self.base)  # type: ignore[no-any-return]

    def problems(self, plugin: Plugin) -> Iterator[str]:
        """Try a plugin on made-up data; yield one line per problem."""
        if self.trial:
            run: Callable[[Plugin], Iterator[str]] = _imported(self.trial)
            yield from run(plugin)


KINDS: dict[str, Kind] = {
    kind.name: kind
    for kind in (
        Kind("objective", "recalign.api:Objective", "objective", trial="recalign.plugins.check.objectives:problems"),
        Kind(
            "metric",
            "recalign.api:AnyMetric",
            "reward",
            trial="recalign.testing.metrics:problems",
            words=("reward",),
        ),
        Kind("decoder", "recalign.api:Decoder", "decoder", trial="recalign.testing.decoders:problems"),
        Kind("source", "recalign.api:Source", "source", trial="recalign.testing.sources:problems"),
        Kind(
            "recommender",
            "recalign.api:Recommender",
            "recommender",
            trial="recalign.testing.recommenders:problems",
            words=("baseline",),
        ),
        Kind(
            "backbone",
            "recalign.api:Backbone",
            "backbone",
            trial="recalign.plugins.check.backbones:problems",
            assignments="backbone_param",
        ),
        Kind("teacher", "recalign.api:Teacher", "teacher", trial="recalign.plugins.check.teachers:problems"),
    )
}

WORDS = ", ".join(word for kind in KINDS.values() for word in (kind.name, *kind.words))
"""All that users may type for a kind, for help texts."""


def find_kind(word: str) -> Kind:
    """Return the kind that a user means.

    Raises:
        UserError: no kind is called that; the nearest are named.
    """
    known = {each: kind for kind in KINDS.values() for each in (kind.name, *kind.words)}
    if word not in known:
        raise UserError(f"There is no kind of plugin '{word}'.", did_you_mean(word, known))
    return known[word]


def _imported(path: str) -> Any:
    module, _, name = path.partition(":")
    return getattr(import_module(module), name)
