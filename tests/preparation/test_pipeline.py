import errno
import json
import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from recalign import workspace
from recalign.data.dataset import SPLITS, PreparedDataset
from recalign.errors import UserError
from recalign.preparation import pipeline as module
from recalign.preparation.pipeline import ensure_default_dataset, prepare_dataset
from tests.preparation.worlds import random_world, write_csv

SMALL = {"users": 30, "events": 12, "items": 24}


def rows_of(dataset):
    return {name: list(dataset.rows(name)) for name in SPLITS}


def naive_rows(frame, options):
    """What leave-one-out must give, in plain Python."""
    expected = {name: [] for name in SPLITS}
    for (user,), life in sorted(frame.sort("timestamp").group_by("user_id", maintain_order=True)):
        items, n = life["item_id"].to_list(), options["history"]
        ends = {"test": [len(items) - 1], "valid": [len(items) - 2], "train": range(1, len(items) - 2)}
        for name, cuts in ends.items():
            expected[name] += [(user, items[max(0, c - n) : c], [items[c]]) for c in cuts]
    return expected


def test_rows_of_the_written_dataset_equal_a_naive_computation(tmp_path):
    file = random_world(tmp_path / "raw")
    prepare_dataset("table", file, tmp_path / "out", options={"split": "leave-one-out", "history": 4})
    dataset = PreparedDataset(tmp_path / "out")
    ids = dataset.catalogue.item_ids
    expected = naive_rows(pl.read_csv(file), {"history": 4})
    for name, rows in rows_of(dataset).items():
        told = [(row.user_id, [ids[i] for i in row.history], [ids[i] for i in row.targets]) for row in rows]
        assert sorted(told) == sorted(expected[name])


def test_gains_interactions_and_popularity_agree_with_the_table(tmp_path):
    file = random_world(tmp_path / "raw")
    options = {"task": "list", "targets": 4, "list_length": 2, "split": "user", "relevance": "rating>=4"}
    prepare_dataset("table", file, tmp_path / "out", options=options)
    dataset = PreparedDataset(tmp_path / "out")
    ids = dataset.catalogue.item_ids
    rating = {
        (u, i): r for u, i, _, r in pl.read_csv(file).select("user_id", "item_id", "timestamp", "rating").iter_rows()
    }
    for rows in rows_of(dataset).values():
        for row in rows:
            assert row.gains.tolist() == [float(rating[row.user_id, ids[i]] >= 4) for i in row.targets]
    seen = dataset.interactions()
    trained = {row.user_id for row in dataset.rows("train")}
    assert set(seen["user_id"]) == trained
    assert len(seen) == 20 * len(trained)
    assert all(rating[u, ids[i]] == r for u, i, r in seen.select("user_id", "item", "rating").iter_rows())
    assert dataset.catalogue.popularity.sum() == len(seen)
    np.testing.assert_array_equal(dataset.catalogue.popularity, np.bincount(seen["item"], minlength=len(ids)))


def test_the_same_command_gives_the_same_hash_and_another_seed_another(tmp_path):
    first = prepare_dataset("synthetic", None, tmp_path / "a", params=SMALL, seed=3)
    again = prepare_dataset("synthetic", None, tmp_path / "b", params=SMALL, seed=3)
    other = prepare_dataset("synthetic", None, tmp_path / "c", params=SMALL, seed=4)
    assert first["hash"] == again["hash"] != other["hash"]
    for name in ("items.parquet", "interactions.parquet", "train/data.arrow", "valid/data.arrow", "test/data.arrow"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_the_hash_reads_content_and_not_paths(tmp_path):
    here = random_world(tmp_path / "raw")
    there = tmp_path / "elsewhere.csv"
    shutil.copy(here, there)
    assert (
        prepare_dataset("table", here, tmp_path / "a")["hash"]
        == prepare_dataset("table", there, tmp_path / "b")["hash"]
    )


@pytest.mark.parametrize(
    "options", [{"identifier": "atomic"}, {"history": 5}, {"candidates": 4}, {"relevance": "rating"}]
)
def test_every_option_changes_the_hash(tmp_path, options):
    file = random_world(tmp_path / "raw")
    plain = prepare_dataset("table", file, tmp_path / "a")
    assert prepare_dataset("table", file, tmp_path / "b", options=options)["hash"] != plain["hash"]


def test_identifiers_and_shown_history_leave_what_is_measured_as_it_is(tmp_path):
    file = random_world(tmp_path / "raw")

    def measured(**options):
        return prepare_dataset("table", file, tmp_path / f"d{len(list(tmp_path.iterdir()))}", options=options)

    plain = measured()
    for options in ({"identifier": "atomic"}, {"identifier": "semantic"}, {"history": 5}):
        other = measured(**options)
        assert other["measured_hash"] == plain["measured_hash"] and other["hash"] != plain["hash"]
    for options in ({"relevance": "rating"}, {"candidates": 4}, {"min_history": 4}):
        assert measured(**options)["measured_hash"] != plain["measured_hash"]


def test_a_second_run_has_nothing_to_do_and_a_changed_file_is_noticed(tmp_path, capsys):
    file = random_world(tmp_path / "raw")
    first = prepare_dataset("table", file, tmp_path / "out")
    before = (tmp_path / "out" / "items.parquet").stat().st_mtime_ns
    again = prepare_dataset("table", file, tmp_path / "out")
    assert (first["reused"], again["reused"]) == (False, True)
    assert again["hash"] == first["hash"]
    assert (tmp_path / "out" / "items.parquet").stat().st_mtime_ns == before
    assert "nothing to do" in capsys.readouterr().err
    random_world(tmp_path / "raw", seed=1)
    with pytest.raises(UserError, match="inputs changed") as error:
        prepare_dataset("table", file, tmp_path / "out")
    assert "--overwrite" in error.value.hint
    assert prepare_dataset("table", file, tmp_path / "out", overwrite=True)["hash"] != first["hash"]


def test_dataset_json_holds_options_counts_and_hash(tmp_path):
    result = prepare_dataset(
        "synthetic", None, tmp_path / "out", params=SMALL, options={"targets": 5, "list_length": 3}
    )
    info = json.loads((tmp_path / "out" / "dataset.json").read_text())
    assert info["hash"] == result["hash"]
    assert {
        "source": "synthetic",
        "task": "list",
        "targets": 5,
        "split": "user",
        "exclude_history": True,
    }.items() <= info["options"].items()
    assert info["options"]["params"]["users"] == 30
    assert info["counts"]["interactions"] == 30 * 12
    assert workspace.RunFolder(tmp_path / "out").done


def test_exclude_history_is_off_where_training_targets_repeat(tmp_path):
    lines = "\n".join(f"u{u},i{t % 3},{100 * t + u}" for u in range(20) for t in range(10))
    file = write_csv(tmp_path / "raw.csv", f"user_id,item_id,timestamp\n{lines}")
    prepare_dataset("table", file, tmp_path / "out")
    assert not PreparedDataset(tmp_path / "out").excludes_history()
    prepare_dataset("table", file, tmp_path / "forced", options={"exclude_history": "yes"})
    assert PreparedDataset(tmp_path / "forced").excludes_history()


def test_no_list_names_an_item_twice(tmp_path):
    lines = "\n".join(f"u{u},i{(t * (1 + u % 2)) % 6},{100 * t + u}" for u in range(40) for t in range(12))
    file = write_csv(tmp_path / "raw.csv", f"user_id,item_id,timestamp\n{lines}")
    options = {"task": "list", "targets": 5, "list_length": 3, "split": "user"}
    prepare_dataset("table", file, tmp_path / "out", options=options)
    for rows in rows_of(PreparedDataset(tmp_path / "out")).values():
        for row in rows:
            assert len(set(row.targets.tolist())) == len(row.targets) == len(row.gains) >= 3


def test_candidate_sets_are_written(tmp_path):
    file = random_world(tmp_path / "raw")
    prepare_dataset("table", file, tmp_path / "out", options={"candidates": 20})
    for rows in rows_of(PreparedDataset(tmp_path / "out")).values():
        assert all(len(row.candidates) == 20 and row.targets[0] in row.candidates for row in rows)


def test_the_default_dataset_is_made_once_and_said_so(capsys):
    path = ensure_default_dataset(0)
    assert path == workspace.home() / "data"
    assert "embedded default" in capsys.readouterr().err
    dataset = PreparedDataset(path)
    assert (dataset.task, dataset.list_length, len(dataset.catalogue)) == ("list", 5, 160)
    assert ensure_default_dataset(0) == path
    assert capsys.readouterr().err == ""


# ---------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"min_history": 5, "history": 5, "split": "leave-one-out"}, "no rows"),
        ({"k_core": 9}, "--k-core 9"),
        ({"relevance": "rating>=9"}, "rating>=9"),
        ({"split": "provided"}, "ready-made windows"),
    ],
)
def test_what_leaves_nothing_to_test_is_an_error_and_writes_nothing(tmp_path, options, said):
    lines = "\n".join(f"u{u},i{(u + t) % 5},{10 * t + u},3" for u in range(8) for t in range(4))
    file = write_csv(tmp_path / "raw.csv", f"user_id,item_id,timestamp,rating\n{lines}")
    with pytest.raises(UserError) as error:
        prepare_dataset("table", file, tmp_path / "out", options=options)
    assert said in str(error.value)
    assert [path.name for path in tmp_path.iterdir()] == ["raw.csv"]


def test_a_popularity_cut_that_leaves_too_short_lives_is_an_error(tmp_path):
    lines = "\n".join(f"u{u},i{u},{u}\nu{u},j{u},{u + 1}" for u in range(30))
    file = write_csv(tmp_path / "raw.csv", f"user_id,item_id,timestamp\n{lines}")
    with pytest.raises(UserError, match="no rows"):
        prepare_dataset("table", file, tmp_path / "out", options={"popularity_cut": 10.0, "split": "leave-one-out"})


def test_users_with_too_short_a_history_are_dropped_and_counted(tmp_path):
    long = "\n".join(f"u{u},i{(u + t) % 9},{10 * t + u}" for u in range(12) for t in range(6))
    file = write_csv(tmp_path / "raw.csv", f"user_id,item_id,timestamp\n{long}\nshort,i1,5")
    result = prepare_dataset("table", file, tmp_path / "out", options={"split": "leave-one-out"})
    assert result["counts"]["dropped_users"] == 1
    assert "short" not in set(PreparedDataset(tmp_path / "out").interactions()["user_id"])


def test_a_source_that_needs_a_path_and_one_that_takes_none(tmp_path):
    with pytest.raises(UserError, match="'table' needs a path"):
        prepare_dataset("table", None, tmp_path / "out")
    with pytest.raises(UserError, match="does not exist"):
        prepare_dataset("table", tmp_path / "nowhere.csv", tmp_path / "out")
    with pytest.raises(UserError, match="reads no path"):
        prepare_dataset("synthetic", tmp_path, tmp_path / "out")


@pytest.mark.parametrize("held", [False, True])
def test_a_full_disk_is_reported_and_leaves_what_was_there(tmp_path, monkeypatch, held):
    file, out = random_world(tmp_path / "raw"), tmp_path / "out"
    if held:
        before = prepare_dataset("table", file, out)["hash"]

    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(module, "write_rows", full)
    with pytest.raises(UserError, match="No space left") as error:
        prepare_dataset("table", file, out, options={"history": 3}, overwrite=held)
    assert "Free some space" in error.value.hint
    assert sorted(path.name for path in tmp_path.iterdir()) == (["out", "raw"] if held else ["raw"])
    if held:
        assert PreparedDataset(out).hash == before


def test_writing_to_a_full_device_is_an_oserror_of_ours_to_report():
    from recalign.data.parquet import write_parquet

    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full on this system")
    with pytest.raises(OSError) as error:
        write_parquet(Path("/dev/full"), pl.DataFrame({"x": range(100_000)}))
    assert error.value.errno == errno.ENOSPC
    assert Path("/dev/full").exists()


def test_an_interrupted_run_leaves_nothing_and_the_next_one_starts_afresh(tmp_path, monkeypatch):
    file, out = random_world(tmp_path / "raw"), tmp_path / "out"

    def interrupt(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(module, "write_interactions", interrupt)
        with pytest.raises(KeyboardInterrupt):
            prepare_dataset("table", file, out)
    assert [path.name for path in tmp_path.iterdir()] == ["raw"]
    assert not prepare_dataset("table", file, out)["reused"]


def test_a_folder_with_other_files_is_not_touched(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").write_text("x")
    with pytest.raises(UserError, match="no run of recalign"):
        prepare_dataset("synthetic", None, tmp_path / "out", params=SMALL, overwrite=True)
    assert (tmp_path / "out" / "thesis.tex").read_text() == "x"
