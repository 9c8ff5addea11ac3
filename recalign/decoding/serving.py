"""Recommending to one person: a history of titles in, a described list out, with a model that is loaded once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from recalign.api import Decoder, Row
from recalign.data.dataset import ExcludeHistory, PreparedDataset
from recalign.data.item_names import ONCE, ItemNames
from recalign.decoding.batches import check_task, decode_rows
from recalign.decoding.engine import PolicyEngine
from recalign.errors import UserError
from recalign.models.hardware import ANY, Dtype, Hardware
from recalign.models.policy import load_policy
from recalign.models.trained_on import dataset_of_model
from recalign.models.weights import modules_of
from recalign.plugins import registry
from recalign.runs.predictions import described_list
from recalign.tasks import find_task
from recalign.text.chat_templates import Scalar

SOMEBODY = "somebody"
"""User id of a history that is handed in; what is drawn for ties depends on it, so it is the same for all."""


class ListService:
    """A model that answers histories of titles by lists of titles.

    Args:
        dataset: whose items are recommended; it says how much of a history prompts show.
        decoder: how lists are made.
        load: loads the model and binds it to the dataset's catalogue; it is called once, by `load` or by the first
            history that can be answered.
        allow_repeats: whether a history may name an item more than once.

    Raises:
        UserError: the decoder does not serve the task, or reads targets, which are not known here.
    """

    def __init__(
        self,
        dataset: PreparedDataset,
        decoder: Decoder,
        load: Callable[[], PolicyEngine],
        *,
        allow_repeats: bool = False,
    ) -> None:
        self.dataset, self.decoder, self.allow_repeats, self._load = dataset, decoder, allow_repeats, load
        self.task = find_task(dataset.task)
        check_task(decoder, self.task)
        if decoder.oracle:
            raise UserError(
                f"The decoder '{decoder.name}' reads what users went on to, which nobody knows here.",
                f"Use another decoder, such as {', '.join(self.task.decoders)}.",
            )
        self.names = ItemNames(dataset.catalogue)

    @cached_property
    def engine(self) -> PolicyEngine:
        """The model."""
        return self._load()

    def load(self) -> ListService:
        """Load the model now, and return the service; errors are those of `load_policy`."""
        assert self.engine is not None
        return self

    def recommend(
        self,
        history: Sequence[str],
        *,
        candidates: Sequence[str] | None = None,
        size: int | None = None,
        profile: str = "",
    ) -> dict[str, Any]:
        """Recommend items to whoever has this history.

        Args:
            history: titles or ids, oldest first (see `ItemNames`).
            candidates: titles or ids of the only items that may be recommended; None: all. The rank task needs them.
            size: K, items of the list; None: the task's, or all candidates where the task ranks those.
            profile: what is known of the person, in words, where prompts show it.

        Returns:
            A JSON-serialisable table: `history`, the items as they were understood, and `recommended`, best first:
            rank, item, item_id, title, genres, score, and the rationale where the decoder writes one, else None.

        Raises:
            UserError: an empty history, a name that is no item's or several's, an item twice, no candidates where the
                task ranks them, or more items than there are.
        """
        row = self._row(history, candidates, profile)
        predictions = decode_rows(self.engine, self.decoder, [row], self._size(row, size))
        catalogue = self.dataset.catalogue
        return {
            "history": [catalogue.describe(item) for item in row.consumed.tolist()],
            "recommended": described_list(predictions, 0, catalogue),
        }

    def _row(self, history: Sequence[str], candidates: Sequence[str] | None, profile: str) -> Row:
        """Find the items; what is older than the histories of the dataset is told to no prompt."""
        if not history:
            raise UserError("The history is empty.", "Name one item or more, oldest first, by title or id.")
        if candidates is not None and not candidates:
            raise UserError("The list of candidates is empty.", "Name one item or more, or leave candidates out.")
        if self.task.ranks_candidates and candidates is None:
            raise UserError(
                f"A model of the task '{self.task.name}' orders candidates, and none are named.",
                "Name what to rank by --candidate, once per title or id.",
            )
        hint = f"{ONCE} Where users do return to items, --allow-repeats takes such histories."
        items = self.names.find_all(history, "The history", repeats=self.allow_repeats, hint=hint)
        shown = int(self.dataset.info["options"].get("history", len(items)))
        return Row(
            index=0,
            user_id=SOMEBODY,
            history=items[-shown:],
            targets=np.zeros(0, dtype=np.int64),
            gains=np.zeros(0),
            timestamp=np.inf,
            candidates=None if candidates is None else self.names.find_all(candidates, "The list of candidates"),
            earlier=items[:-shown],
            profile=profile,
        )

    def _size(self, row: Row, size: int | None) -> int:
        """Return how many items the list has, which are no more than are left.

        Raises:
            UserError: the user asks for more.
        """
        items = len(self.dataset.catalogue)
        usual = self.task.checked_size(size, self.dataset.list_length, items)
        left = items - len(np.unique(self.engine.excluded(row)))
        if size is None and self.task.ranks_candidates:
            usual = left
        if left == 0 or (size is not None and size > left):
            among = f"{items} items of the catalogue" if row.candidates is None else f"{len(row.candidates)} candidates"
            raise UserError(
                f"A list of {usual} is asked for; {left} of the {among} can be recommended, history left out.",
                "Ask for fewer with --size, name more candidates, or let the history come again: --exclude-history no.",
            )
        return min(usual, left)


def load_service(
    model: str | Path,
    data: str | Path | None = None,
    *,
    decoder: str | None = None,
    params: Mapping[str, Any] | None = None,
    exclude_history: ExcludeHistory = "auto",
    allow_repeats: bool = False,
    template_vars: Mapping[str, Scalar] | None = None,
    seed: int = 0,
    token_budget: int = 32768,
    dtype: Dtype = "auto",
    hardware: Hardware = ANY,
    trust_remote_code: bool = False,
) -> ListService:
    """Find a model, its dataset and a decoder, to recommend with; weights are read when they are needed.

    Args:
        model: as `load_policy` takes it.
        data: prepared dataset whose items are recommended; None: the one that the model was trained on.
        decoder: its name; None: the task's.
        params: the decoder's parameters.
        exclude_history: whether items of the history are never recommended; auto: as the dataset was prepared.
        allow_repeats: whether a history may name an item more than once.
        template_vars: as `load_policy` takes them.
        seed: of what decoders sample with, and of new weights.
        token_budget: maximum number of prompt and list tokens in memory at once.
        dtype: of the weights.
        hardware: device, attention, quantised weights.
        trust_remote_code: run code that comes with the model.

    Raises:
        UserError: no such model, dataset or decoder, or those that do not fit each other.
    """
    dataset = dataset_of_model(model) if data is None else PreparedDataset(Path(data))
    usual = find_task(dataset.task).default_decoder(modules_of(model))
    chosen = registry.create("decoder", decoder or usual, dict(params or {}))
    exclude = dataset.excludes_history(exclude_history)

    def load() -> PolicyEngine:
        policy = load_policy(
            model,
            dataset,
            template_vars=template_vars,
            seed=seed,
            dtype=dtype,
            trust_remote_code=trust_remote_code,
            hardware=hardware,
            transfer=data is not None,
        )
        return PolicyEngine(policy, dataset.catalogue, exclude_history=exclude, token_budget=token_budget, seed=seed)

    return ListService(dataset, chosen, load, allow_repeats=allow_repeats)
