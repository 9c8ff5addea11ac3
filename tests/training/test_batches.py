"""Every example of an update is dealt to one process, and all processes have as many batches."""

import pytest

from recalign.training.batches import DealtBatches, SharedUpdates
from recalign.training.offline.examples import EpochSampler


def dealt(size, rows, parts, processes, epoch=0):
    """Batches of each process, as indices, and all of an update together, in the order of the updates."""
    found = []
    for rank in range(processes):
        batches = DealtBatches(EpochSampler(size, rows, seed=3), rows, parts, rank, processes)
        batches.epoch = epoch
        found.append([[index for told, index in batch if told == epoch] for batch in batches])
        assert len(found[-1]) == len(batches)
    return found


@pytest.mark.parametrize("processes", [1, 2, 3, 4])
@pytest.mark.parametrize("parts", [1, 2, 3])
@pytest.mark.parametrize("size", [1, 5, 12, 13, 23, 24, 25, 26, 40])
def test_every_example_comes_once_and_no_process_waits(size, parts, processes):
    if size < processes:
        return
    found = dealt(size, 12, parts, processes)
    assert len({len(batches) for batches in found}) == 1
    assert all(batch for batches in found for batch in batches)
    assert sorted(index for batches in found for batch in batches for index in batch) == list(range(size))


def test_updates_have_the_same_examples_whatever_the_number_of_processes():
    one, two = dealt(24, 12, 4, 1)[0], dealt(24, 12, 2, 2)
    for update in range(2):
        alone = sorted(sum(one[4 * update : 4 * update + 4], []))
        together = sorted(sum((batch for batches in two for batch in batches[2 * update : 2 * update + 2]), []))
        assert alone == together
    assert dealt(24, 12, 4, 1, epoch=1)[0] != one


def test_too_few_examples_for_all_processes_join_the_update_before_them():
    found = dealt(25, 12, 1, 2)  # 12 + 13, not 12 + 12 + 1
    assert [[len(batch) for batch in batches] for batches in found] == [[6, 7], [6, 6]]


def test_an_uneven_last_update_is_smaller_and_repeats_nothing():
    found = dealt(17, 12, 2, 2)  # 12, and 5 in one batch a process
    assert [[len(batch) for batch in batches] for batches in found] == [[3, 3, 3], [3, 3, 2]]


def test_every_process_is_handed_every_update():
    assert list(SharedUpdates(3)) == [[0], [1], [2]] and len(SharedUpdates(3)) == 3
