"""Reading files that users name: whatever is wrong with them is told with the file, never a traceback."""

import io
import json
import os
import zipfile

import numpy as np
import pytest

from recalign import reading
from recalign.errors import UserError
from recalign.reading import (
    FileRecord,
    parse_toml,
    read_arrays,
    read_json,
    read_object,
    read_parquet,
    read_record,
    read_text,
)


class Point(FileRecord):
    x: int
    names: list[str] = []


def write(path, text):
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "Expecting value"),
        ("{", "Expecting property name"),
        ("[" * 50_000, "nested too deeply"),
        ("[" * 150 + "]" * 150, "more than 100 levels"),
        ('{"a":' * 50_000 + "1" + "}" * 50_000, "nested too deeply"),
        ("9" * 5000, "Exceeds the limit"),
        ("NaN", "NaN is no number of JSON"),
        ("[1e999]", "1e999 is too large"),
        ('"\\ud800"', "surrogates not allowed"),
        (b"\xff\xfe", "can't decode"),
    ],
)
def test_what_is_no_json_is_told_with_the_file(tmp_path, text, said):
    file = write(tmp_path / "a.json", text)
    with pytest.raises(UserError, match=said) as caught:
        read_json(file, "Make it again.")
    assert str(file) in caught.value.what
    assert caught.value.hint == "Make it again."


def test_json_that_is_right_is_read_with_or_without_a_byte_order_mark(tmp_path):
    value = {"a": [1, 2.5, None, True, {"b": "\U0001f600"}]}
    assert read_json(write(tmp_path / "a.json", json.dumps(value))) == value
    assert read_json(write(tmp_path / "b.json", b"\xef\xbb\xbf" + json.dumps(value).encode())) == value
    assert np.isinf(read_json(write(tmp_path / "c.json", "Infinity"), finite=False))


@pytest.mark.parametrize(
    ("text", "said"), [("[]", "a list"), ("null", "null"), ("3", "the value 3"), ('"x"', "a text")]
)
def test_what_holds_no_object(tmp_path, text, said):
    with pytest.raises(UserError, match=f"holds {said}, not an object"):
        read_object(write(tmp_path / "a.json", text))


def test_a_record_is_held_against_its_shape_and_keeps_other_keys(tmp_path):
    assert read_record(write(tmp_path / "a.json", '{"x": 1, "more": [2]}'), Point) == {"x": 1, "more": [2]}
    for text, said in [
        ("{}", "x: field required"),
        ('{"x": "1"}', "x: input should be a valid integer, not '1'"),
        ('{"x": 1, "names": ["a", 2]}', "names.1: input should be a valid string, not 2"),
        ('{"x": true}', "x: input should be a valid integer"),
    ]:
        with pytest.raises(UserError, match=said):
            read_record(write(tmp_path / "a.json", text), Point)


def test_texts_are_bounded_and_are_files(tmp_path):
    file = write(tmp_path / "a.txt", "x" * 11)
    assert read_text(file, 11) == "x" * 11
    with pytest.raises(UserError, match="has 11 bytes; at most 10 are read"):
        read_text(file, 10)
    with pytest.raises(UserError, match="does not exist"):
        read_text(tmp_path / "b.txt")
    with pytest.raises(UserError, match="is no file"):
        read_text(tmp_path)
    with open(tmp_path / "huge.json", "wb") as stream:
        stream.truncate(1 << 40)  # sparse: a terabyte that takes no room
    with pytest.raises(UserError, match="1,099,511,627,776 bytes"):
        read_json(tmp_path / "huge.json")
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe")  # reading it would wait for ever
        with pytest.raises(UserError, match="is no file"):
            read_text(tmp_path / "pipe")


@pytest.mark.parametrize("text", ["a = " + "[" * 50_000, "a = " + "[" * 150 + "]" * 150, "a", "a = 1\na = 2"])
def test_what_is_no_toml(text):
    with pytest.raises(UserError, match="x.toml"):
        parse_toml(text, "x.toml")


def test_arrays_hold_no_pickles_and_all_that_is_asked_for(tmp_path):
    np.savez(tmp_path / "a.npz", x=np.arange(3))
    assert read_arrays(tmp_path / "a.npz", "x")["x"].tolist() == [0, 1, 2]
    with pytest.raises(UserError, match="has no array 'y'"):
        read_arrays(tmp_path / "a.npz", "y")
    np.savez(tmp_path / "b.npz", x=np.array([{}], dtype=object))
    whole = (tmp_path / "a.npz").read_bytes()
    stored = io.BytesIO()
    with zipfile.ZipFile(stored, "w") as archive:
        archive.writestr("x.npy", b"no array")
    for content in ((tmp_path / "b.npz").read_bytes(), whole[:50], b"", b"text", stored.getvalue()):
        with pytest.raises(UserError, match=r"c\.npz is not readable"):
            read_arrays(write(tmp_path / "c.npz", content), "x")


def test_tables_and_panics(tmp_path, monkeypatch):
    with pytest.raises(UserError, match="does not exist"):
        read_parquet(tmp_path / "a.parquet")
    with pytest.raises(UserError, match="is not readable"):
        read_parquet(write(tmp_path / "b.parquet", b"PAR1" + bytes(40) + b"PAR1"))
    panic = type("PanicException", (BaseException,), {})
    with pytest.raises(UserError, match="c is not readable: called `unwrap` on a `None`"), reading.reading("c"):
        raise panic("called `unwrap` on a `None`.")
    with pytest.raises(KeyboardInterrupt), reading.reading("c"):
        raise KeyboardInterrupt
