"""Every source against every way in which a file can be bad: exit 2, what, where, what to do, and nothing written."""

import gzip
import re

import polars as pl
import pytest

from recalign import workspace
from recalign.sources.reading import files

from . import formats

DEEP = "[" * 10_000 + "]" * 10_000


def recbole(folder):
    rows = "".join(f"u{u}\ti{i}\t{t}\n" for u, i, _, t in formats.log())
    formats.pack(folder / "x.inter", "user_id:token\titem_id:token\ttimestamp:float\n" + rows)
    return folder


def table(folder):
    rows = "".join(f"u{u},i{i},{t}\n" for u, i, _, t in formats.log())
    return formats.pack(folder / "x.csv", "user_id,item_id,timestamp\n" + rows)


def windows(folder):
    rows = "".join(f'u{n},"[1, 2, {n % 3}]",{n}\n' for n in range(40))
    for name in ("train.csv", "test.csv"):
        formats.pack(folder / name, "user_id,item_ids,timestamp\n" + rows)
    formats.pack(folder / "titles.json", '{"0": "A", "1": "B", "2": "C"}')
    return folder


SAMPLES = {
    "recbole": (recbole, "x.inter"),
    "table": (table, "x.csv"),
    "windows": (windows, "train.csv"),
    "amazon": (formats.amazon_2023, "All_Beauty.jsonl.gz"),
    "steam": (formats.steam, "steam_reviews.json.gz"),
    "steam of Australia": (lambda folder: formats.australian(folder, "reviews"), "australian_user_reviews.json.gz"),
    "goodreads": (formats.goodreads, "goodreads_interactions_poetry.json.gz"),
    "movielens": (formats.movielens_1m, "ratings.dat"),
    "yelp": (formats.yelp, "yelp_academic_dataset_review.json"),
    "instructions": (formats.instructions, "train.json"),
    "minionerec": (formats.minionerec, "train/*.csv"),
}
TABLES = {"recbole", "table", "windows", "movielens", "minionerec"}


def cut(text):
    """End in the middle of a record, after its first bytes."""
    return text[: text.index(b"\n", len(text) // 2) + 4]


def line_changed(text, change):
    lines = text.split(b"\n")
    lines[len(lines) // 2] = change(lines[len(lines) // 2])
    return b"\n".join(lines)


BAD = {
    "cut off": cut,
    "a broken record": lambda text: line_changed(text, lambda line: line[: len(line) // 2] + b"\x00@" + b"|::,\t" * 9),
    "a record of another type": lambda text: line_changed(text, lambda line: b"[1, 2]"),
    "nested deep": lambda text: line_changed(text, lambda line: b'{"user_id": ' + DEEP.encode() + b"}"),
    "empty": lambda text: b"",
    "another format": lambda text: b"%PDF-1.4\x00\x01" * 1000,
}
WHERE = re.compile(r"(line|row|record) \d+")


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("source", SAMPLES)
def test_bad_text(call, tmp_path, source, bad):
    write, pattern = SAMPLES[source]
    path = write(tmp_path / "raw")
    (file,) = (tmp_path / "raw").glob(pattern)
    text = gzip.decompress(file.read_bytes()) if file.suffix == ".gz" else file.read_bytes()
    assert len(text) > 500
    formats.pack(file, BAD[bad](text))
    code, told = call("prepare", source.split()[0], path)
    assert (code, file.name in told) == (2, True), told
    assert bad in ("empty", "another format") or WHERE.search(told), told
    assert re.search(r"(Mend|Check|Name|Close|delete|Complete)", told), told
    assert not workspace.home().exists() or not list(workspace.home().iterdir())


@pytest.mark.parametrize("source", sorted(SAMPLES))
def test_packed_files_that_are_cut_off_or_unpack_to_one_endless_line(call, tmp_path, monkeypatch, source):
    write, pattern = SAMPLES[source]
    path = write(tmp_path / "raw")
    (file,) = (tmp_path / "raw").glob(pattern)
    data = file.read_bytes()
    packed = data if file.suffix == ".gz" else gzip.compress(data)
    file.write_bytes(packed[: len(packed) // 2])
    code, told = call("prepare", source.split()[0], path)
    assert (code, "break off after line" in told, "Download it again" in told) == (2, True, True), told
    monkeypatch.setattr(files, "BLOCK", 1 << 16)
    monkeypatch.setattr(files, "LONGEST_LINE", 1 << 20)
    monkeypatch.setattr("recalign.sources.reading.jsonarray.LONGEST_LINE", 1 << 20)
    head = gzip.decompress(packed).split(b"\n")[0] + b"\n" if source in TABLES else b""
    file.write_bytes(gzip.compress(head + b'{"a": "' + b"0" * (4 << 20)))
    code, told = call("prepare", source.split()[0], path)
    assert (code, file.name in told) == (2, True), told
    assert not workspace.home().exists() or not list(workspace.home().iterdir())


@pytest.mark.parametrize("suffix", ["parquet", "arrow"])
@pytest.mark.parametrize("bad", ["cut off", "text", "empty"])
def test_bad_binaries(call, tmp_path, suffix, bad):
    file = tmp_path / f"x.{suffix}"
    frame = pl.DataFrame(formats.hub_rows())
    frame.write_parquet(file) if suffix == "parquet" else frame.write_ipc(file)
    data = {"cut off": file.read_bytes()[:1000], "text": b"user_id,item_id\n1,2\n" * 99, "empty": b""}[bad]
    file.write_bytes(data)
    code, told = call("prepare", "huggingface", file)
    assert (code, f"x.{suffix}" in told, "Check" in told) == (2, True, True), told
    assert not workspace.home().exists() or not list(workspace.home().iterdir())


def test_metadata_with_a_broken_record_name_it(call, tmp_path):
    path = formats.amazon_2014(tmp_path)
    file = tmp_path / "meta_Gadgets.json.gz"
    lines = gzip.decompress(file.read_bytes()).split(b"\n")
    lines[3] = b"__import__('os').system('echo evil')"
    formats.pack(file, b"\n".join(lines))
    code, told = call("prepare", "amazon", path)
    assert (code, "meta_Gadgets.json.gz, line 4: not a Python literal of a dict" in told) == (2, True), told
    assert "--drop-invalid" in told
    code, told = call("prepare", "amazon", path, "--drop-invalid", "--split", "user", "--out", tmp_path / "out")
    assert (code, "1 of 14 records of meta_Gadgets.json.gz were left out" in told) == (0, True), told
