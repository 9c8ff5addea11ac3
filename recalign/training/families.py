"""The families of objectives, by the name that an objective's base class states. A new family is one line here."""

from __future__ import annotations

from typing import Any

from recalign.api import Objective
from recalign.training.family import Family
from recalign.training.offline.preference_family import PreferenceFamily
from recalign.training.offline.token_family import TokenFamily
from recalign.training.online.rank_family import RankFamily
from recalign.training.online.rollout_family import RolloutFamily

ALL: tuple[Family[Any], ...] = (TokenFamily(), PreferenceFamily(), RolloutFamily(), RankFamily())
FAMILIES = {family.name: family for family in ALL}


def family_of(objective: Objective) -> Family[Any]:
    """Return the family that trains an objective."""
    return FAMILIES[objective.family]
