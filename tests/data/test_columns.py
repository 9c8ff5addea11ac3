import numpy as np
import pyarrow as pa
import pytest

from recalign.data.columns import Columns

VALUES = {
    "user_id": (pa.string(), ["a", "\u00e9", "", "d", "e"]),
    "timestamp": (pa.float64(), [874965678.0, 1e9 + 1, 0.0, -1.0, 5.5]),
    "history": (pa.list_(pa.int32()), [[1, 2], [], [3], [4, 5, 6], [7]]),
    "times": (pa.large_list(pa.float64()), [[874965678.0, 1e9 + 1], [], [1.5], [0.0, 1.0, 2.0], [3.0]]),
    "ratings": (pa.list_(pa.float32()), [[1.0, None], [], None, [2.0, 3.0, 4.0], None]),
    "profile": (pa.string(), [None, "old", None, "", "new"]),
    "candidates": (pa.list_(pa.int32(), 2), [[1, 2], [3, 4], [5, 6], [7, 8], [9, 10]]),
}


def table():
    return pa.table({name: pa.array(values, kind) for name, (kind, values) in VALUES.items()})


@pytest.mark.parametrize(
    "made",
    [
        table(),
        pa.concat_tables([table()[:2], table()[2:2], table()[2:]]),
        pa.concat_tables([table(), table()])[5:],
        pa.concat_tables([table(), table()])[3:8].take([2, 3, 4, 0, 1])[:0],
    ],
    ids=["one chunk", "chunks, of which one is empty", "a slice", "no rows"],
)
def test_values_are_those_of_arrow(made):
    columns = Columns(made)
    for name in made.column_names:
        for row, expected in enumerate(made[name].to_pylist()):
            found = columns.value(name, row)
            if expected is None:
                assert found is None
            elif isinstance(expected, list):
                np.testing.assert_array_equal(found, np.array(expected, dtype=float))
            else:
                assert found == expected
    assert columns.value("none", 0) is None


def test_large_numbers_keep_their_digits():
    found = Columns(table()).value("times", 0)
    assert found.dtype == np.float64 and found.tolist() == [874965678.0, 1000000001.0]


def test_a_null_among_integers_rounds_no_other_row():
    large = 2**53 + 1
    columns = Columns(pa.table({"ids": pa.array([[large], [1, None]], pa.list_(pa.int64()))}))
    assert columns.value("ids", 0).tolist() == [large]
    np.testing.assert_array_equal(columns.value("ids", 1), [1.0, np.nan])


def test_lists_are_not_written_to():
    for name in ("history", "times", "ratings", "candidates"):
        with pytest.raises(ValueError, match="read-only"):
            Columns(table()).value(name, 0)[0] = 3


def test_what_is_no_list_of_numbers_is_read_too():
    made = {"pair": [{"a": 1}, None], "map": [[("a", 1)], None]}
    kinds = {"pair": pa.struct({"a": pa.int32()}), "map": pa.map_(pa.string(), pa.int32())}
    columns = Columns(pa.table({name: pa.array(values, kinds[name]) for name, values in made.items()}))
    assert [columns.value("pair", row) for row in (0, 1)] == made["pair"]
    assert [columns.value("map", row) for row in (0, 1)] == made["map"]
