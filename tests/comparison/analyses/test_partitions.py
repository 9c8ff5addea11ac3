"""Parts of the rows, by hand."""

import numpy as np
import pytest

from recalign.comparison.analyses.partitions import PARTITIONS, find_partitions
from recalign.errors import UserError
from tests.comparison.analyses.conftest import LENGTHS


def parts(name, numbers):
    return [(part.label, part.places.tolist()) for part in PARTITIONS[name].parts(np.array(numbers, dtype=float))]


def test_positives_are_counted_in_training_rows_where_they_are_relevant(data):
    numbers = PARTITIONS["cold-groups"].numbers(data, "test")
    assert numbers.tolist() == [7, 7, 3, 3, 1, 1, 0, 0]
    assert PARTITIONS["cold-quartiles"].numbers(data, "test").tolist() == numbers.tolist()


def test_of_several_positives_the_mean_counts_and_a_row_without_one_has_no_number(small):
    # Its training rows are the test rows: item 1 is a positive once, 2 twice, 5 once (and once not relevant).
    numbers = PARTITIONS["cold-groups"].numbers(small, "test")
    np.testing.assert_equal(numbers, [(1 + 2) / 2, 2, 1, np.nan])


def test_the_history_is_counted_as_the_dataset_has_it(data):
    assert PARTITIONS["history"].numbers(data, "test").tolist() == LENGTHS


def test_groups_are_zero_one_to_five_and_more():
    found = parts("cold-groups", [0, 5, 6, 1, 0.5, 100])
    assert found == [("0", [0]), ("1 to 5", [1, 3, 4]), ("more than 5", [2, 5])]
    assert parts("cold-groups", [7, 0]) == [("0", [1]), ("more than 5", [0])]


def test_quarters_are_equal_sorted_and_keep_the_order_of_equal_rows():
    found = parts("cold-quartiles", [9, 0, 0, 3, 0, 9, 2, 9, 1])
    # sorted: rows 1 2 4 (0), 8 (1), 6 (2), 3 (3), 0 5 7 (9); of nine rows the first quarter has three
    assert found == [
        ("quarter 1: 0", [1, 2, 4]),
        ("quarter 2: 1 to 2", [6, 8]),
        ("quarter 3: 3 to 9", [0, 3]),
        ("quarter 4: 9", [5, 7]),
    ]
    assert parts("cold-quartiles", [1, 0]) == [("quarter 1: 0", [1]), ("quarter 2: 1", [0])]


def test_lengths_double_from_part_to_part():
    found = parts("history", [1, 2, 3, 4, 5, 8, 9, 20, 0])
    assert found == [
        ("0", [8]),
        ("1", [0]),
        ("2", [1]),
        ("3 to 4", [2, 3]),
        ("5 to 8", [4, 5]),
        ("9", [6]),
        ("20", [7]),
    ]


def test_names_are_read():
    assert [each.name for each in find_partitions("history, cold-groups")] == ["history", "cold-groups"]
    assert [each.name for each in find_partitions("all")] == list(PARTITIONS) and find_partitions(None) == []
    with pytest.raises(UserError, match="no analysis 'cold-group'") as told:
        find_partitions("cold-group")
    assert "cold-groups" in told.value.hint
    with pytest.raises(UserError, match="asked for twice"):
        find_partitions("history,history")
