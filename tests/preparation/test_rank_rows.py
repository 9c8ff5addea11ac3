"""`prepare --task rank`: candidate sets, what prompts show, sets and profiles that a source brings."""

import json

import numpy as np
import pytest

from recalign.data.dataset import PreparedDataset
from recalign.errors import UserError
from recalign.preparation.pipeline import prepare_dataset
from tests.preparation.worlds import random_world


def prepared(folder, source, path, *, params=None, seed=0, **options):
    prepare_dataset(source, path, folder, params=params, options={"task": "rank", **options}, seed=seed)
    return PreparedDataset(folder)


@pytest.mark.parametrize("negatives", ["uniform", "popularity"])
def test_rows_rank_one_positive_among_items_that_the_user_never_had(tmp_path, negatives):
    world = random_world(tmp_path / "w", items=80)
    dataset = prepared(tmp_path / "d", "table", world, negatives=negatives, candidates=12)
    had = {row.user_id: {*row.consumed.tolist(), *row.targets.tolist()} for row in dataset.rows("test")}
    assert len(dataset.rows("test")) == len(dataset.rows("valid")) == 4 and len(had) == 4  # 40 users, 8:1:1
    places = []
    for row in [*dataset.rows("test"), *dataset.rows("train")]:
        assert len({*row.candidates.tolist()}) == 12 and row.candidates.tolist().count(row.targets[0]) == 1
        assert len(row.history) == len(row.times) == len(row.ratings) <= 20 and (np.diff(row.times) >= 0).all()
        places.append(int((row.candidates == row.targets[0]).argmax()))
    assert np.bincount(places, minlength=12).min() > 0.5 * len(places) / 12
    for row in dataset.rows("test"):
        assert {*row.candidates.tolist()} & had[row.user_id] == {*row.targets.tolist()}
    again = prepared(tmp_path / "again", "table", world, negatives=negatives, candidates=12)
    other = prepared(tmp_path / "other", "table", world, negatives=negatives, candidates=12, seed=1)
    assert again.hash == dataset.hash != other.hash


def test_more_candidates_than_the_catalogue_leaves_are_refused(tmp_path):
    world = random_world(tmp_path / "w", items=30)
    with pytest.raises(UserError, match="too many for candidate sets of 20"):
        prepared(tmp_path / "d", "table", world)
    assert not (tmp_path / "d").exists()


def test_a_row_without_a_relevant_target_ranks_nothing(tmp_path):
    world = random_world(tmp_path / "w", items=80)
    liked = prepared(tmp_path / "d", "table", world, relevance="rating>=4")
    every = prepared(tmp_path / "e", "table", world)
    assert len(liked.rows("train")) < len(every.rows("train"))
    assert all(row.relevant.tolist() == row.targets.tolist() for row in liked.rows("train"))


def windows(folder, sets, target="i3"):
    """Ready-made windows of one history, with the candidate sets given."""
    folder.mkdir()
    titles = {f"i{item}": f"Title {item}" for item in range(9)}
    (folder / "titles.json").write_text(json.dumps(titles))
    head = "user_id,item_ids,timestamp,shown\n"
    lines = [f"u{n},\"['i0', 'i1', '{target}']\",{n},\"{each}\"\n" for n, each in enumerate(sets)]
    (folder / "train.csv").write_text(head + "".join(lines))
    (folder / "valid.csv").write_text(head + lines[0])
    (folder / "test.csv").write_text(head + lines[0])
    return folder


GOOD = ["['i3', 'i4', 'i5']"] * 40


def test_a_source_may_bring_candidate_sets_of_its_own(tmp_path):
    path = windows(tmp_path / "w", GOOD)
    dataset = prepared(tmp_path / "d", "windows", path, params={"candidates": "shown"}, candidates=3)
    rows = dataset.rows("train")
    assert all(sorted(row.candidates.tolist()) == [3, 4, 5] and row.targets.tolist() == [3] for row in rows)
    assert {row.candidates.tolist().index(3) for row in rows} == {0, 1, 2}  # the first place of the file tells nothing


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("['i4', 'i5', 'i6']", "Row 2 of train (user 'u1') has its target 'i3' not at all among its candidates"),
        ("['i3', 'i4', 'i3']", "Row 2 of train (user 'u1') has its target 'i3' twice or more among its candidates"),
        ("['i3', 'i4', 'i4']", "Row 2 of train (user 'u1') has the candidate 'i4' twice"),
        ("['i3', 'i4']", "Row 2 of train (user 'u1') has 2 candidates, the first row 3"),
        ("['i3', 'i4', 'i99']", "Row 2 of train (user 'u1') has the candidate 'i99', which the catalogue lacks"),
        ("[]", "has its target 'i3' not at all among its candidates"),
    ],
)
def test_candidate_sets_that_are_none_are_refused_with_their_row(tmp_path, row, said):
    path = windows(tmp_path / "w", [GOOD[0], row, *GOOD[2:]])
    with pytest.raises(UserError) as caught:
        prepared(tmp_path / "d", "windows", path, params={"candidates": "shown"}, candidates=3)
    assert said in caught.value.what


def test_candidate_sets_of_another_size_or_task_are_refused(tmp_path):
    path = windows(tmp_path / "w", GOOD)
    with pytest.raises(UserError, match="candidate sets have 3 items, and --candidates is 20"):
        prepared(tmp_path / "d", "windows", path, params={"candidates": "shown"})
    next_task = prepared(tmp_path / "next", "windows", path, params={"candidates": "shown"}, task="next")
    assert next_task.rows("test")[0].candidates is None
    assert any("which --task rank or --candidates takes" in line for line in next_task.info["warnings"])
    with pytest.raises(UserError, match="--drop-cold would leave out"):
        prepared(tmp_path / "d", "windows", path, params={"candidates": "shown"}, candidates=3, drop_cold=True)


def recbole(folder, users):
    folder.mkdir()
    lines = [f"u{n % 20}\ti{(7 * n + n // 20) % 60}\t{1_600_000_000 + n}\t{1 + n % 5}" for n in range(400)]
    (folder / "x.inter").write_text("user_id:token\titem_id:token\ttimestamp:float\trating:float\n" + "\n".join(lines))
    (folder / "x.user").write_text("user_id:token\tage:token\tjob:token\n" + users)
    return folder


def test_profiles_of_users_stand_in_their_rows(tmp_path):
    path = recbole(tmp_path / "w", "".join(f"u{n}\t{20 + n}\tjob {n}\n" for n in range(19)))
    dataset = prepared(tmp_path / "d", "recbole", path, params={"profile": "age,job"}, candidates=5)
    found = {row.user_id: row.profile for split in ("train", "valid", "test") for row in dataset.rows(split)}
    assert found == {f"u{n}": f"age {20 + n}, job job {n}" if n < 19 else "" for n in range(20)}
    assert prepared(tmp_path / "e", "recbole", path, candidates=5).rows("test")[0].profile == ""


@pytest.mark.parametrize(
    ("users", "profile", "said"),
    [
        ("u0\t20\ta\n", "agee", "no column 'agee'"),
        ("u0\t20\ta\nu0\t21\ta\n", "age", "User 'u0' has several profiles"),
    ],
)
def test_profiles_that_are_not_clear_are_refused(tmp_path, users, profile, said):
    path = recbole(tmp_path / "w", users)
    with pytest.raises(UserError, match=said):
        prepared(tmp_path / "d", "recbole", path, params={"profile": profile}, candidates=5)
