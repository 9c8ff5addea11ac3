"""local: any model that recalign loads, a run folder or one of the hub's, sampled on this machine."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from recalign.api import RATIONALE, Case, Field, Params, Reply, Teacher, TeacherContext, UserError, hookimpl

if TYPE_CHECKING:
    from recalign.api import Engine


class LocalParams(Params):
    """Parameters of `local`."""

    model: str = Field("", description="a run folder of sft or align, a Hugging Face folder or a hub name")
    temperature: float = Field(0.7, ge=0, description="temperature of sampling; 0 takes the most probable token")
    max_tokens: int = Field(256, ge=1, description="maximum number of tokens of a rationale")
    batch_size: int = Field(32, ge=1, description="candidates asked about at a time")


class Local(Teacher):
    """Samples rationales from a model on this machine, as recalign's engine samples them in training.

    What the model itself writes counts: where it does not come to a decision within `max_tokens`, there is none.
    """

    Params = LocalParams
    paper = 'Any model in the place of the teacher of "Reasoning to Rank" (R2Rank), Sec. 3.'
    _engine: Engine

    @property
    def model(self) -> str:
        """The model's name."""
        return str(self.params.model)

    @property
    def identity(self) -> dict[str, Any]:
        """All parameters but the size of batches, on which samples do not depend."""
        return dict(self.params.model_dump(exclude={"batch_size"}))

    @property
    def files(self) -> list[Path]:
        """The model's folder, where it is one."""
        return [Path(self.model)] if self.model and Path(self.model).exists() else []

    @property
    def batch_size(self) -> int:
        """Return how many questions are asked at a time, as the parameter says."""
        return int(self.params.batch_size)

    def begin(self, context: TeacherContext) -> None:
        """Load the model.

        Raises:
            UserError: it is not named, or cannot be loaded.
        """
        super().begin(context)
        if not self.model:
            raise UserError("The teacher 'local' has no model.", "Pass -p model=NAME, such as a run folder of sft.")
        self._engine = context.load_engine(self.model)

    def most_tokens(self, case: Case) -> tuple[int, int]:
        """Return 0, for prompts cost nothing here, and what a rationale may have beside its decision."""
        return 0, int(self.params.max_tokens) + len(RATIONALE.line(False).encode()) + 1

    def reply(self, cases: Sequence[Case]) -> Sequence[Reply]:
        """Sample one answer per case, which depends on the seed, the row and the candidate alone."""
        groups = [list(group) for _, group in groupby(cases, key=lambda case: case.row.index)]
        answers = self._engine.questions.rationales(
            [group[0].row for group in groups],
            [np.array([case.item for case in group]) for group in groups],
            form=RATIONALE,
            max_tokens=self.params.max_tokens,
            temperature=self.params.temperature or None,
            seed=self.context.seed,
        )
        own = [
            text if whole else text.partition(RATIONALE.opening)[0]
            for text, whole in zip(answers.texts, answers.well_formed.tolist(), strict=True)
        ]
        return [Reply(text, 0, length) for text, length in zip(own, answers.lengths.tolist(), strict=True)]


@hookimpl
def recalign_teacher() -> type[Teacher]:
    """Return the plugin class to recalign."""
    return Local
