import pytest

from recalign.errors import UserError
from recalign.preparation.prepare_options import reshaping, resolve


def test_defaults_follow_the_task():
    following = resolve({}, {})
    assert (following.targets, following.stride, following.list_length) == (1, 1, 1)
    listing = resolve({"task": "list"}, {})
    assert (listing.targets, listing.stride, listing.list_length) == (10, 5, 5)


def test_what_the_user_gives_goes_before_what_the_source_suggests():
    suggested = {"task": "list", "targets": 10, "history": 14, "relevance": "rating>=4"}
    options = resolve({"history": 7, "targets": None}, suggested)
    assert (options.history, options.targets, options.relevance) == (7, 10, "rating>=4")


def test_another_task_drops_the_suggested_shape_and_keeps_the_rest():
    options = resolve({"task": "next"}, {"task": "list", "targets": 10, "list_length": 5, "split": "user"})
    assert (options.targets, options.list_length, options.split) == (1, 1, "user")


def test_the_rank_task_has_defaults_of_its_own():
    """R2Rank: 1 positive and 19 negatives, 20 items of history, users split 8:1:1, every interaction a positive."""
    ours = {"task": "list", "split": "time", "history": 14, "test_share": 0.2, "relevance": "rating>=4"}
    for suggested in ({}, ours):
        options = resolve({"task": "rank"}, suggested)
        assert (options.history, options.candidates, options.list_length, options.targets) == (20, 20, 20, 1)
        assert (options.split, options.valid_share, options.test_share) == ("user", 0.1, 0.1)
        assert (options.relevance, options.exclude_history) == ("all", "no")
    options = resolve({"task": "rank", "candidates": 5, "split": "time"}, {})
    assert (options.candidates, options.list_length, options.split) == (5, 5, "time")


def test_ready_made_windows_stay_split_as_they_are():
    assert resolve({"task": "rank"}, {"split": "provided", "valid_share": 0.02}).split == "provided"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"task": "ranks"}, "task = 'ranks'"),
        ({"split": "random"}, "split = 'random'"),
        ({"history": 0}, "history = 0"),
        ({"task": "list", "list_length": 0}, "list-length = 0"),
        ({"targets": 0}, "targets = 0"),
        ({"stride": 0}, "stride = 0"),
        ({"k_core": -1}, "k-core = -1"),
        ({"popularity_cut": 150.0}, "popularity-cut = 150"),
        ({"relevance": "rating=4"}, "rating=4"),
        ({"targets": 3}, "--task list"),
        ({"task": "list", "targets": 3, "list_length": 5}, "--list-length 5"),
        ({"split": "user", "folds": 5, "fold": 6}, "--fold 6"),
        ({"split": "time", "folds": 5}, "--split user"),
        ({"history": 3, "min_history": 4}, "--min-history 4"),
        ({"task": "list", "candidates": 10}, "--candidates 10"),
        ({"split": "last-n"}, "--held-out N"),
        ({"held_out": 3}, "--split last-n"),
        ({"split": "last-n", "task": "list", "held_out": 3}, "--held-out 3 is less than --targets 10"),
        ({"since": "soon"}, "--since 'soon'"),
        ({"until": "2014-13-01"}, "2014-13-01"),
        ({"ties": "time"}, "ties = 'time'"),
        ({"same_ids": "all"}, "same-ids = 'all'"),
        ({"histroy": 3}, "histroy"),
        ({"task": "rank", "candidates": 1}, "--candidates 1 leaves nothing to rank"),
        ({"task": "rank", "candidates": 0}, "--candidates 0 leaves nothing to rank"),
        ({"task": "rank", "targets": 2}, "one positive per row, not 2"),
        ({"task": "rank", "list_length": 5}, "orders all 20 candidates"),
        ({"negatives": "popularity"}, "--negatives belongs to candidate sets"),
    ],
)
def test_bad_options_are_named_with_their_value(given, said):
    with pytest.raises(UserError) as error:
        resolve(given, {})
    assert said in str(error.value)


def test_options_that_ready_made_windows_refuse_are_named():
    assert reshaping(resolve({"ties": "item", "k_core": 3, "history": 5, "same_ids": "case"}, {})) == [
        "--ties",
        "--k-core",
    ]
    assert reshaping(resolve({}, {})) == []
