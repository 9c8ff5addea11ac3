import shutil

from recalign.comparison.systems import compare
from recalign.comparison.users import gather_users
from tests.evaluation.prepared import write_small

from .conftest import GOOD, POOR


def titles_of(users, places):
    return [None if place < 0 else users.titles[place] for place in places]


def test_rows_hold_history_targets_and_lists_with_their_figures(evaluated):
    runs = {"sft": [evaluated("users/sft", POOR)], "free": [evaluated("users/free", [[1, -1], [2, 5], [5, 0], [0, 1]])]}
    users = gather_users(compare(runs), ["recall@2", "mgu"], 100)
    assert users.systems == ("sft", "free") and users.total == len(users.rows) == 4 and not users.several
    user, row, history, earlier, targets, gains, lists, values = users.rows[1]
    assert (user, row, earlier, gains) == ("u1", 1, 0, [1.0, 0.0])
    assert titles_of(users, history) == ["red pen", "red ink"]
    assert titles_of(users, targets) == ["blue ink", "green chair"]
    assert titles_of(users, lists[0]) == ["blue pen", "green desk"]
    assert titles_of(users, users.rows[0][6][1]) == ["red ink", None]
    assert [value[0] for value in values] == [0.0, 1.0]
    assert users.rows[3][7][0][0] is None  # no relevant target: recall has no value


def test_of_many_rows_some_are_drawn(evaluated):
    comparison = compare({"sft": [evaluated("drawn", POOR)]})
    users = gather_users(comparison, ["recall@2"], 2, seed=1)
    assert len(users.rows) == 2 and users.total == 4
    assert [row[1] for row in users.rows] == sorted(row[1] for row in users.rows)
    assert gather_users(comparison, ["recall@2"], 0).rows == ()


def test_of_several_seeds_the_first_ones_lists_are_shown(evaluated):
    runs = [evaluated("seeds/0", POOR, seed=0), evaluated("seeds/1", GOOD, seed=1)]
    users = gather_users(compare({"a": runs}), ["recall@2"], 10)
    assert users.several and titles_of(users, users.rows[0][6][0]) == ["blue pen", "green desk"]


def test_without_predictions_or_dataset_the_browser_has_less_to_show(evaluated):
    other = write_small(evaluated.folder / "gone")
    kept = evaluated("gone-kept", GOOD, dataset=other)
    lost = evaluated("gone-lost", POOR, dataset=other)
    comparison = compare({"kept": [kept], "lost": [lost]})
    (evaluated.folder / "gone-lost/decode-greedy-test/predictions.parquet").unlink()
    users = gather_users(comparison, ["recall@2"], 10)
    assert users.systems == ("kept",) and len(users.rows) == 4
    assert "gone-lost" in users.absent["lost"]
    shutil.rmtree(evaluated.folder / "gone")
    assert gather_users(comparison, ["recall@2"], 10).rows == ()
