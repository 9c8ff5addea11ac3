"""JSON lines against Python's json: keys and types of the whole file, every line read or refused."""

import json

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recalign.errors import UserError
from recalign.sources.reading import files, open_table
from recalign.sources.reading.objects import JSON, TEXT

from .tables import records, write

SCALAR = st.none() | st.booleans() | st.integers(-(10**25), 10**25) | st.text(max_size=4) | st.just('é"\\\n😀')
VALUE = SCALAR | st.lists(SCALAR, max_size=3) | st.dictionaries(st.sampled_from("pq"), SCALAR, max_size=2)
BROKEN = st.sampled_from(
    ["{", "[1]", "5", "null", "{'a' 1}", '{"a": 1} {"b": 2}', '{"a": "\\ud800"}', '{"a": tru}', "x"]
)
OBJECT = st.dictionaries(st.sampled_from(["a", "b", "late key"]), VALUE, max_size=3)


def as_cell(value, is_list):
    """What a cell holds of a value of Python's json."""
    if value is None or isinstance(value, str):
        return value
    if is_list:
        return [as_cell(each, False) for each in value]
    return json.dumps(value, ensure_ascii=False)


def same(cell, value, is_list):
    told = as_cell(value, is_list)
    if isinstance(value, (list, dict)) and not is_list:
        return json.loads(cell) == value
    return cell == told


@settings(max_examples=300)
@given(
    lines=st.lists(
        OBJECT.map(json.dumps)
        | OBJECT.map(lambda o: json.dumps(o, ensure_ascii=False))
        | BROKEN
        | st.sampled_from(["", "  "]),
        max_size=8,
    ),
    end=st.sampled_from(["\n", "\r\n"]),
    encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]),
    block=st.sampled_from([7, 60, 1 << 20]),
)
def test_lines_are_read_as_json_reads_them(tmp_path_factory, lines, end, encoding, block):
    text = end.join(lines)
    file = write(tmp_path_factory.mktemp("f"), text.encode(encoding), "x.jsonl")
    objects = {}
    for number, line in enumerate(text.split("\n"), 1):
        try:
            value = json.loads(line)
            json.dumps(value, ensure_ascii=False).encode()
        except (json.JSONDecodeError, UnicodeEncodeError):
            continue
        if isinstance(value, dict):
            objects[number] = value
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files, "BLOCK", block)
        if not any(objects.values()):
            with pytest.raises(
                UserError, match="no object with keys|neither a JSON object" if text.strip() else "is empty"
            ):
                open_table(file)
            return
        table = open_table(file)
        rows, numbers, refused = records(table)
    assert set(table.schema) == {key for value in objects.values() for key in value}
    assert numbers == list(objects)
    assert len(rows) + sum(refused.values()) == sum(bool(line.strip()) for line in lines)
    for row, value in zip(rows, objects.values(), strict=True):
        for cell, (key, dtype) in zip(row, table.schema.items(), strict=True):
            assert same(cell, value.get(key), dtype == pl.List(pl.String))


def test_a_key_that_comes_late_and_types_that_change(tmp_path):
    lines = [{"a": n} for n in range(3000)] + [{"a": 4.5, "late": "x"}, {"a": "seven", "late": None}]
    table = open_table(write(tmp_path, "\n".join(map(json.dumps, lines)), "x.jsonl"))
    rows, _, refused = records(table)
    assert (rows[2], rows[-2:], refused) == (("2", None), [("4.5", "x"), ("seven", None)], {})


def test_lists_stay_lists_unless_other_kinds_are_among_them(tmp_path):
    lists = write(tmp_path, '{"g": null}\n{"g": ["a", 1]}\n{"g": []}\n{}\n', "x.jsonl")
    assert records(open_table(lists))[0] == [(None,), (["a", "1"],), ([],), (None,)]
    mixed = write(tmp_path, '{"g": ["a"]}\n{"g": "b|c"}\n', "x.jsonl")
    assert records(open_table(mixed))[0] == [('["a"]',), ("b|c",)]


def test_refused_lines_are_named(tmp_path):
    file = write(tmp_path, b'{"a": 1}\n\n{"a": \n[1]\n{"a": "\xff"}\n{"a": NaN}\n', "x.jsonl")
    (batch,) = open_table(file).batches(["a"])
    assert batch.frame["a"].to_list() == ["1", "NaN"]
    assert {each.reason: each.first for each in batch.refused} == {
        JSON: [(3, "not a JSON object (Expecting value): '{\"a\":'"), (4, "not a JSON object: '[1]'")],
        TEXT: [(5, 'not UTF-8 text: \'{"a": "�"}\'')],
    }


def test_emoji_in_ascii_are_pairs_and_no_halves(tmp_path):
    file = write(tmp_path, json.dumps({"a": "😀"}) + "\n", "x.jsonl")
    assert records(open_table(file)) == ([("😀",)], [1], {})
