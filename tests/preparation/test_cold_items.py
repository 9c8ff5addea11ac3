import json
from dataclasses import replace

import numpy as np
import pytest

from recalign import cli
from recalign.data.dataset import PreparedDataset
from recalign.preparation.cold_items import without_cold
from recalign.preparation.prepare_options import resolve
from recalign.preparation.splits import SPLITTERS, as_provided
from tests.preparation.test_sliding_windows import log_of, shown
from tests.preparation.worlds import write_csv


def given(*sequences):
    log = log_of(*sequences)
    return replace(log, time=np.repeat(np.arange(len(sequences), dtype=float), np.diff(log.start)))


def test_cold_items_leave_rows_histories_and_catalogue():
    # items 0, 1, 2 and 5 train; 3 and 4 are cold
    log = given([0, 1, 2], [5, 1], [0, 5, 1], [0, 3, 2], [0, 1, 4], [3, 1])
    splits = as_provided(log, resolve({"split": "provided"}, {}), np.array([0, 0, 1, 2, 2, 2]))
    warm_log, warm, training, kept = without_cold(log, splits, np.flatnonzero(splits.training), min_history=1)
    assert kept.tolist() == [0, 1, 2, 5]
    assert warm_log.item.tolist() == [0, 1, 2, 3, 1, 0, 3, 1, 0, 2, 0, 1, 1]
    assert shown(warm.windows["train"]) == [([0, 1], [2]), ([3], [1])]
    assert shown(warm.windows["valid"]) == [([0, 3], [1])]
    assert shown(warm.windows["test"]) == [([0], [2])]  # one target is cold, one history is nothing but cold
    assert warm.facts["cold_rows_left_out"] == {"train": 0, "valid": 0, "test": 2}
    assert warm.facts["cold_items_left_out"] == 2
    assert warm.facts["users_per_split"] == {"train": 2, "valid": 1, "test": 1}
    assert np.array_equal(kept[warm_log.item[training]], log.item[splits.training])
    assert np.array_equal(np.flatnonzero(warm.training), training)


def test_without_cold_items_nothing_changes():
    random = np.random.default_rng(0)
    log = log_of(*(random.permutation(12) for _ in range(20)))
    log = replace(log, time=np.tile(np.arange(12.0), 20) + np.repeat(np.arange(20) / 20, 12))
    splits = SPLITTERS["time"](log, resolve({}, {}), 0)
    training = np.flatnonzero(splits.training)
    assert len(np.unique(log.item[training])) == 12
    warm_log, warm, same, kept = without_cold(log, splits, training, min_history=1)
    assert np.array_equal(warm_log.item, log.item)
    assert np.array_equal(same, training)
    assert kept.tolist() == list(range(12))
    for name, part in splits.windows.items():
        assert shown(warm.windows[name]) == shown(part)


def test_the_command_says_what_it_left_out(tmp_path, capsys):
    write_csv(tmp_path / "train.csv", 'user_id,item_ids,timestamp\nu1,"[1, 2, 3]",1\nu2,"[3, 1]",2')
    write_csv(tmp_path / "valid.csv", 'user_id,item_ids,timestamp\nu1,"[2, 3, 1]",3')
    write_csv(tmp_path / "test.csv", 'user_id,item_ids,timestamp\nu1,"[2, 4, 3]",4\nu2,"[1, 4]",5')
    (tmp_path / "titles.json").write_text(json.dumps({str(i): f"title {i}" for i in range(1, 5)}))
    out = tmp_path / "data"
    with pytest.raises(SystemExit) as stop:
        cli.main(["prepare", "windows", str(tmp_path), "--drop-cold", "--out", str(out)])
    assert not stop.value.code
    said = " ".join(capsys.readouterr().err.split())
    assert "1 items without training interactions were left out (--drop-cold)" in said
    assert "0 train, 0 valid and 1 test rows" in said
    dataset = PreparedDataset(out)
    assert list(dataset.catalogue.item_ids) == ["1", "2", "3"]
    assert [row.history.tolist() for row in dataset.rows("test")] == [[1]]
    assert dataset.info["counts"]["rows"]["test"]["cold_targets"] == 0
