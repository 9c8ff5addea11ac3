import numpy as np
import pyarrow as pa
from datasets import Dataset

from recalign.data.dataset import Rows
from recalign.preparation import writing
from recalign.preparation.sliding_windows import slide
from recalign.preparation.writing import Digest, write_rows
from tests.preparation.test_sliding_windows import log_of


def windows():
    log = log_of([1, 2, 3, 3, 5], [6, 7, 8])
    return slide(log, log.start[:-1] + 1, log.start[1:], history=2, targets=2, stride=1)


def test_rows_are_read_back_by_datasets(tmp_path):
    write_rows(tmp_path / "train" / "data.arrow", windows(), None, Digest())
    rows = Dataset.from_file(str(tmp_path / "train" / "data.arrow"))
    assert rows["history"][:] == [[1], [1, 2], [2, 3], [6]]
    assert rows["targets"][:] == [[2, 3], [3], [3, 5], [7, 8]]
    assert rows["gains"][:] == [[1.0, 1.0], [1.0], [1.0, 1.0], [1.0, 1.0]]
    assert rows["user_id"][:] == ["u0", "u0", "u0", "u1"]
    assert rows["timestamp"][:] == [1.0, 2.0, 3.0, 6.0]


def test_batches_are_invisible_to_the_reader(tmp_path, monkeypatch):
    write_rows(tmp_path / "one.arrow", windows(), np.arange(12, dtype=np.int32).reshape(4, 3), Digest())
    monkeypatch.setattr(writing, "BATCH", 3)
    write_rows(tmp_path / "many.arrow", windows(), np.arange(12, dtype=np.int32).reshape(4, 3), Digest())
    one, many = (pa.ipc.open_stream(tmp_path / f"{name}.arrow").read_all() for name in ("one", "many"))
    assert one.to_pylist() == many.to_pylist()
    assert one["candidates"].to_pylist()[3] == [9, 10, 11]


def test_the_digest_tells_order_type_and_borders_apart():
    def of(*steps):
        digest = Digest()
        for step in steps:
            digest.array(step) if isinstance(step, np.ndarray) else digest.texts(step)
        return digest.hashes()["hash"]

    assert of(["a", "b"]) == of(["a", "b"])
    different = [of(["a", "b"]), of(["b", "a"]), of(["ab"]), of(["a"], ["b"])]
    different += [
        of(np.array([1, 2])),
        of(np.array([1, 2], np.int32)),
        of(np.array([[1, 2]])),
        of(np.array([1]), np.array([2])),
    ]
    assert len(set(different)) == len(different)


def test_what_is_not_measured_is_in_the_whole_hash_alone():
    def of(code, item):
        digest = Digest()
        digest.texts([code], measured=False)
        digest.array(np.array([item]))
        return digest.hashes()

    plain, written, other = of("a", 1), of("b", 1), of("a", 2)
    assert plain["hash"] != written["hash"] and plain["measured_hash"] == written["measured_hash"]
    assert plain["hash"] != other["hash"] and plain["measured_hash"] != other["measured_hash"]


def test_what_was_consumed_before_the_history_is_kept_for_exclusion(tmp_path):
    write_rows(tmp_path / "rows.arrow", windows(), None, Digest(), earlier=True)
    rows = Rows(Dataset.from_file(str(tmp_path / "rows.arrow")).data.table)
    log = windows().log
    for row, lo, cut in zip(rows, windows().lo, windows().cut, strict=True):
        start = log.start[log.sequence[cut]]
        assert row.earlier.tolist() == log.item[start:lo].tolist()
        assert row.consumed.tolist() == log.item[start:cut].tolist()
    assert any(len(row.earlier) for row in rows)
