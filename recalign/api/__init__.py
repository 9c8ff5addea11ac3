"""All that a plugin imports: the four kinds, their parameters, and the batches that they are handed.

Dimension letters, here and everywhere: I items, C genres, U users or rows, P prompts, G completions a prompt (group),
N completions (N = P*G, group by group), T completion tokens, V vocabulary, K titles a list, M reference lists a prompt,
S answer tokens of a batch laid end to end.
"""

from __future__ import annotations

from pydantic import Field

from recalign.api.base import INVALID, NoParams, Plugin
from recalign.api.decoders import Decoder, Predictions, Rescorer, TitleChoices
from recalign.api.engine import Completions, Engine, Scoring, TitleTree
from recalign.api.objectives import Objective
from recalign.api.preference_objectives import (
    PreferenceBatch,
    PreferenceNeeds,
    PreferenceObjective,
    PreferenceParams,
    Rounds,
)
from recalign.api.rewards import ListBatch, Metric
from recalign.api.rollout_objectives import (
    Credit,
    GroupParams,
    Groups,
    PolicyBatch,
    RolloutNeeds,
    RolloutObjective,
    RolloutParams,
    SamplingParams,
)
from recalign.api.sources import RawData, Source
from recalign.api.token_objectives import AnswerBatch, TokenNeeds, TokenObjective, ValidTokens
from recalign.data.catalogue import Catalogue
from recalign.data.dataset import Row
from recalign.data.item_vectors import item_vectors
from recalign.errors import UserError
from recalign.params import Params
from recalign.plugins.hookspecs import hookimpl

__all__ = [
    "AnswerBatch",
    "Catalogue",
    "Completions",
    "Credit",
    "Decoder",
    "Engine",
    "Field",
    "GroupParams",
    "Groups",
    "INVALID",
    "ListBatch",
    "NoParams",
    "Objective",
    "Params",
    "Plugin",
    "PolicyBatch",
    "Predictions",
    "PreferenceBatch",
    "PreferenceNeeds",
    "PreferenceObjective",
    "PreferenceParams",
    "RawData",
    "Rescorer",
    "Metric",
    "RolloutNeeds",
    "RolloutObjective",
    "RolloutParams",
    "Scoring",
    "Rounds",
    "Row",
    "SamplingParams",
    "Source",
    "TitleChoices",
    "TitleTree",
    "TokenNeeds",
    "TokenObjective",
    "UserError",
    "ValidTokens",
    "hookimpl",
    "item_vectors",
]
