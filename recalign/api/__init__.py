"""All that a plugin imports: the four kinds, their parameters, and the batches that they are handed.

Dimension letters, here and everywhere: I items, C genres, U users or rows, P prompts, G completions a prompt (group),
N completions (N = P*G, group by group), T completion tokens, V vocabulary, K titles a list, M reference lists a prompt,
S answer tokens of a batch laid end to end.
"""

from __future__ import annotations

from pydantic import Field

from recalign.api.base import INVALID, NoParams, Plugin
from recalign.api.decoders import Decoder, Predictions, Rescorer, TitleChoices
from recalign.api.objectives import (
    AnswerBatch,
    Credit,
    GroupParams,
    Groups,
    Objective,
    PolicyBatch,
    PreferenceBatch,
    PreferenceObjective,
    PreferenceParams,
    RolloutObjective,
    RolloutParams,
    Rounds,
    SamplingParams,
    TokenObjective,
    ValidTokens,
)
from recalign.api.rewards import ListBatch, Reward
from recalign.api.sources import FileAccount, RawData, Refused, Source
from recalign.data.catalogue import Catalogue
from recalign.data.dataset import Row
from recalign.data.semantic import item_vectors
from recalign.errors import UserError
from recalign.hookspecs import hookimpl
from recalign.params import Params

__all__ = [
    "AnswerBatch",
    "Catalogue",
    "Credit",
    "Decoder",
    "Field",
    "FileAccount",
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
    "PreferenceObjective",
    "PreferenceParams",
    "RawData",
    "Refused",
    "Rescorer",
    "Reward",
    "RolloutObjective",
    "RolloutParams",
    "Rounds",
    "Row",
    "SamplingParams",
    "Source",
    "TitleChoices",
    "TokenObjective",
    "UserError",
    "ValidTokens",
    "hookimpl",
    "item_vectors",
]
