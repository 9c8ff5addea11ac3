"""What all objectives share: the tasks that they fit, what they are to be handed, and their own state."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from recalign.api.base import Plugin


class Objective(Plugin, ABC):
    """What is optimised.

    Subclass `TokenObjective` (the answers of the data), `PreferenceObjective` (answers against rejected ones),
    `RolloutObjective` (sampled groups) or `RankObjective` (scores of a row's candidates).

    An update's batch may be cut: into accumulated micro-batches, over processes, to fit memory. The loss over all of it
    is the mean of the parts' losses (`loss`) by their weights (`weight`), and so is its gradient. A loss that is a mean
    over what its family counts (answer tokens, rows that have a rejected title, completions) has nothing to do for
    that; one that is divided by something else overrides `weight` to return it.

    Attributes:
        family: how it is trained: `token`, `preference`, `rollout` or `rank`; the base class of the family says it.
        tasks: names of the tasks that it fits.
        modules: the trained modules of `module_makers`, once training begins.
        from_scratch: parameters that suit a small model trained from random weights, where the user names none.
    """

    family: ClassVar[str]
    tasks: ClassVar[frozenset[str]] = frozenset({"next", "list"})
    from_scratch: ClassVar[dict[str, Any]] = {}
    modules: Mapping[str, Any]

    @property
    @abstractmethod
    def needs(self) -> Any:
        """What the trainer must hand over, in its family's own terms (TokenNeeds, PreferenceNeeds and so on)."""

    @property
    def holds_constant(self) -> bool:
        """Whether `loss` takes a part of itself, such as a weight, for constant on purpose (`detach`).

        The gradient is then not that of the value, and `plugins check` does not hold it against finite differences.
        """
        return False

    @property
    def module_makers(self) -> Mapping[str, Callable[[int], Any]]:
        """Trained modules that it needs beside the model: name -> what makes one (a torch module) for a hidden size.

        They are trained, saved, resumed and exported with the model. Before training, `modules` holds them by name.
        """
        return {}

    def state_dict(self) -> dict[str, Any]:
        """The objective's own state, saved with every checkpoint (JSON-serialisable)."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
