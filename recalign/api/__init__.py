"""All that a plugin imports: the base classes of all kinds, their parameters, and the batches that they get.

Dimension letters, here and everywhere: I items, C genres, U users or rows, P prompts, G completions per prompt (group),
N completions (N = P*G, group by group), T completion tokens, V vocabulary, K titles per list, M reference lists per
prompt, S answer tokens of a batch laid end to end.
"""

from __future__ import annotations

from pydantic import Field

from recalign.api.backbones import Backbone
from recalign.api.base import INVALID, NoParams, Plugin, hookimpl
from recalign.api.decoders import Decoder, Predictions, Rescorer, ValidContinuations
from recalign.api.engine import (
    Completions,
    Engine,
    Questions,
    Rationales,
    Scoring,
    TitleTree,
)
from recalign.api.lists import CutLists, Relevance, cut_lists, distinct_rows, first_positions, flatten, seeded_order
from recalign.api.metrics import AnyMetric, CorpusMetric, ListBatch, Metric
from recalign.api.objectives import Objective
from recalign.api.preference_objectives import (
    PreferenceBatch,
    PreferenceNeeds,
    PreferenceObjective,
    PreferenceParams,
    Rounds,
)
from recalign.api.rank_objectives import RankBatch, RankCredit, Rankings, RankNeeds, RankObjective, RankParams
from recalign.api.ranking_head import RANKING_HEAD, ranking_head
from recalign.api.recommenders import Recommender, TrainingData
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
from recalign.api.sources import FileAccount, RawData, Refused, Source
from recalign.api.teachers import Case, Reply, Teacher, TeacherContext
from recalign.api.token_objectives import AnswerBatch, TokenNeeds, TokenObjective, ValidTokens
from recalign.data.catalogue import Catalogue
from recalign.data.dataset import Row
from recalign.data.item_vectors import item_vectors, truncated_svd
from recalign.data.questions import (
    DECISION,
    PARTS,
    RATIONALE,
    Answer,
    AnswerFormat,
    Answering,
    Question,
    StateAt,
)
from recalign.data.saved_arrays import read_arrays, write_arrays
from recalign.data.vectors import cooccurrence, tfidf
from recalign.errors import UserError
from recalign.params import Params

__all__ = [
    "Answer",
    "AnswerBatch",
    "AnswerFormat",
    "Answering",
    "AnyMetric",
    "Backbone",
    "Case",
    "Catalogue",
    "Completions",
    "CorpusMetric",
    "Credit",
    "CutLists",
    "DECISION",
    "Decoder",
    "Engine",
    "Field",
    "FileAccount",
    "GroupParams",
    "Groups",
    "INVALID",
    "ListBatch",
    "Metric",
    "NoParams",
    "Objective",
    "PARTS",
    "Params",
    "Plugin",
    "PolicyBatch",
    "Predictions",
    "PreferenceBatch",
    "PreferenceNeeds",
    "PreferenceObjective",
    "PreferenceParams",
    "Question",
    "Questions",
    "RANKING_HEAD",
    "RATIONALE",
    "RankBatch",
    "RankCredit",
    "RankNeeds",
    "RankObjective",
    "RankParams",
    "Rankings",
    "Rationales",
    "RawData",
    "Recommender",
    "Relevance",
    "Refused",
    "Reply",
    "Rescorer",
    "RolloutNeeds",
    "RolloutObjective",
    "RolloutParams",
    "Rounds",
    "Row",
    "SamplingParams",
    "Scoring",
    "Source",
    "Teacher",
    "TeacherContext",
    "StateAt",
    "ValidContinuations",
    "TitleTree",
    "TokenNeeds",
    "TokenObjective",
    "TrainingData",
    "UserError",
    "ValidTokens",
    "cooccurrence",
    "cut_lists",
    "distinct_rows",
    "first_positions",
    "flatten",
    "hookimpl",
    "item_vectors",
    "ranking_head",
    "read_arrays",
    "seeded_order",
    "tfidf",
    "truncated_svd",
    "write_arrays",
]
