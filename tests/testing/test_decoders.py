"""The trial of decoders: wrong shapes, items that do not exist or are not allowed, lists that change."""

from dataclasses import replace

import numpy as np
import pytest

from recalign.api import Predictions
from recalign.decoders.beam import Beam
from recalign.plugins.check.plugin import problems


def decoder(change):
    """A beam search whose predictions are changed by a function of (predictions, engine, rows)."""

    class Faulty(Beam):
        """A decoder with a fault."""

        tasks = frozenset({"next"})

        def decode(self, engine, rows, size):
            """Decode and change."""
            return change(super().decode(engine, rows, size), engine, rows)

    return Faulty()


def with_items(place, value):
    def change(found, engine, rows):
        items = found.items.copy()
        items[place] = value(engine, rows) if callable(value) else value
        return replace(found, items=items)

    return change


def noise(found, engine, rows):
    items = np.random.default_rng().permuted(found.items, axis=1)
    return replace(found, items=items)


def by_the_batch(found, engine, rows):
    items = np.roll(found.items, len(rows) % 2, axis=1)
    return replace(found, items=items)


FAULTS = {
    "items of a million": (with_items((0, 0), 10**6), "the item 1000000, and the catalogue has the items 0 to 39"),
    "items below -1": (with_items((0, 0), -2), "returned the item -2"),
    "history": (with_items((0, 0), lambda engine, rows: engine.excluded(rows[0])[0]), "must not be recommended"),
    "a row too few": (lambda found, *_: replace(found, items=found.items[1:]), "items [5, 10], scores [6, 10]"),
    "too long": (lambda found, *_: replace(found, lengths=found.lengths + 1), "one length a row"),
    "scores that rise": (lambda found, *_: replace(found, scores=-found.scores), "scores that rise"),
    "NaN": (lambda found, *_: replace(found, scores=found.scores * np.nan), "NaN as a score"),
    "floats": (lambda found, *_: replace(found, items=found.items + 0.5), "not whole numbers"),
    "a tuple": (lambda found, *_: (found.items, found.scores), "returned tuple, not Predictions"),
    "noise": (noise, "two lists for the same row and seed"),
    "the batch": (by_the_batch, "another list for a row alone"),
}


def twice(found, engine, rows):
    items = found.items.copy()
    items[:, 1] = items[:, 0]
    return replace(found, items=items)


FAULTS["an item twice"] = (twice, "an item twice")


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_found(fault):
    change, message = FAULTS[fault]
    found, *_ = problems(decoder(change))
    assert message in found


def test_short_lists_are_no_fault():
    def shorter(found, engine, rows):
        return Predictions(found.items[:, :3], found.scores[:, :3], np.minimum(found.lengths, 3))

    assert problems(decoder(shorter)) == []
