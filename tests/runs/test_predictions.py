import numpy as np
import polars as pl
import pytest

from recalign.api import Predictions
from recalign.errors import UserError
from recalign.runs.predictions import find_predictions, read_predictions, write_predictions
from tests.evaluation.prepared import write_decoded, write_small

LISTS = Predictions(
    np.array([[1, 5], [2, -1], [0, -1], [-1, -1]]), np.arange(8.0).reshape(4, 2), np.array([2, 2, 1, 0])
)


def test_what_is_written_is_read_again(small, tmp_path):
    rows = list(small.rows("test"))
    write_predictions(tmp_path, LISTS, rows, small.catalogue)
    found, answered = read_predictions(tmp_path, small, "test")
    assert found.items.tolist() == LISTS.items.tolist()
    assert found.lengths.tolist() == [2, 2, 1, 0]
    assert found.scores.tolist() == [[0, 1], [2, 3], [4, 0], [0, 0]]
    assert [row.user_id for row in answered] == ["u0", "u1", "u2", "u3"]


def test_ids_and_titles_are_readable_and_null_where_there_is_no_item(small, tmp_path):
    write_predictions(tmp_path, LISTS, list(small.rows("test")), small.catalogue)
    frame = pl.read_parquet(tmp_path / "predictions.parquet")
    assert frame["item_ids"].to_list() == [["i1", "i5"], ["i2", None], ["i0"], []]
    assert frame["titles"].to_list()[1] == ["blue ink", None]


def test_lists_shorter_than_asked_for_are_padded_to_their_size(small, tmp_path):
    write_predictions(tmp_path, LISTS, list(small.rows("test")), small.catalogue)
    found, _ = read_predictions(tmp_path, small, "test", size=5)
    assert found.items.shape == (4, 5)
    assert found.items[0].tolist() == [1, 5, -1, -1, -1]


def test_a_part_of_the_rows_in_any_order_is_fine(small, tmp_path):
    rows = list(small.rows("test"))
    write_predictions(
        tmp_path, Predictions(LISTS.items[:2], LISTS.scores[:2], LISTS.lengths[:2]), [rows[3], rows[1]], small.catalogue
    )
    assert [row.index for row in read_predictions(tmp_path, small, "test")[1]] == [3, 1]


def broken(folder, **columns):
    whole = {"row": [0, 1], "user_id": ["u0", "u1"], "items": [[0], [1]], "scores": [[0.0], [0.0]], **columns}
    pl.DataFrame({name: values for name, values in whole.items() if values is not None}).write_parquet(
        folder / "predictions.parquet"
    )


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"items": None}, "lacks the column 'items'"),
        ({"user_id": None}, "lacks the column 'user_id'"),
        ({"user_id": ["u0", "bo"]}, "Row 1 of 'test' is user 'u1' in .*, and 'bo' in"),
        ({"row": [0, 9]}, "answers row 9 of 'test', and .* has 4 rows"),
        ({"row": [0, 0], "user_id": ["u0", "u0"]}, "answers row 0 of the split 'test' twice"),
        ({"items": [[0], [6]]}, "names item 6, and the dataset has 6 items"),
        ({"items": [[0], [-2]]}, "names item -2"),
        ({"items": [[0], None]}, "row 1 of 'test' has no list"),
    ],
)
def test_predictions_that_do_not_fit_the_dataset_are_refused(small, tmp_path, columns, message):
    broken(tmp_path, **columns)
    with pytest.raises(UserError, match=message):
        read_predictions(tmp_path, small, "test")


def test_empty_and_unreadable_files_are_refused(small, tmp_path):
    with pytest.raises(UserError, match="holds no predictions.parquet"):
        read_predictions(tmp_path, small, "test")
    (tmp_path / "predictions.parquet").write_bytes(b"PAR1 cut off")
    with pytest.raises(UserError, match="is not readable: parquet"):
        read_predictions(tmp_path, small, "test")
    write_predictions(
        tmp_path, Predictions(np.zeros((0, 2), int), np.zeros((0, 2)), np.zeros(0, int)), [], small.catalogue
    )
    with pytest.raises(UserError, match="is empty: no row was decoded"):
        read_predictions(tmp_path, small, "test")


def test_predictions_are_found_in_a_model_run_or_in_the_workspace(tmp_path):
    dataset = write_small(tmp_path / "data")
    folder = write_decoded(tmp_path / "runs" / "blade", dataset, [[0]] * 4)
    assert find_predictions(folder) == folder
    assert find_predictions(tmp_path / "runs" / "blade") == folder
    assert find_predictions(None) == folder


def test_places_without_or_with_too_many_predictions_are_refused(tmp_path):
    with pytest.raises(UserError, match="holds no predictions"):
        find_predictions(None)
    with pytest.raises(UserError, match="is no folder"):
        find_predictions(tmp_path / "nowhere")
    with pytest.raises(UserError, match="holds no predictions"):
        find_predictions(tmp_path)
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        broken(tmp_path / name)
    with pytest.raises(UserError, match="holds several predictions: .*a, .*b"):
        find_predictions(tmp_path)
