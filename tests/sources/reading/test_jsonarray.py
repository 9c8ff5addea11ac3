import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recalign.sources.reading import files, open_table
from recalign.sources.reading.objects import JSON

from .tables import records

ODD = st.sampled_from(['"', "\\", "],[", '{"a": 1}', "\n"])
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8) | ODD
ROW = st.tuples(TEXT, st.integers(-9, 9)).map(lambda row: {"a": row[0], "b": row[1]})


@settings(max_examples=150)
@given(
    rows=st.lists(ROW, min_size=1, max_size=6),
    indent=st.sampled_from([None, 0, 4]),
    before=st.sampled_from(["", "\n\n", " " * 70]),
    block=st.sampled_from([5, 64, 1 << 20]),
)
def test_arrays_are_read_as_json_reads_them(tmp_path_factory, rows, indent, before, block):
    file = tmp_path_factory.mktemp("f") / "x.json"
    file.write_text(before + json.dumps(rows, indent=indent), "utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files, "BLOCK", block)
        read, numbers, refused = records(open_table(file))
    assert read == [(row["a"], str(row["b"])) for row in rows]
    assert (numbers, refused) == (list(range(1, len(rows) + 1)), {})


def test_a_broken_element_is_named_with_its_line_and_the_others_are_read(tmp_path):
    (tmp_path / "x.json").write_text('[\n {"a": 1},\n {"a": },\n 7,\n {"a": 4}\n]\n')
    (batch,) = open_table(tmp_path / "x.json").batches(["a"])
    assert batch.frame["a"].to_list() == ["1", "4"]
    (refusal,) = batch.refused
    assert (refusal.reason, refusal.count) == (JSON, 2)
    assert refusal.first == [
        (2, "not a JSON object (Expecting value): '{\"a\": }' (line 3)"),
        (3, "not a JSON object: '7' (line 4)"),
    ]


@pytest.mark.parametrize("text", ['[{"a": 1}, {"a": 2}', '[{"a": 1}, {"a": 2', '[{"a": 1}, {"a": "2', '[{"a": 1}, '])
def test_an_array_that_is_never_closed_was_cut_off(tmp_path, text):
    (tmp_path / "x.json").write_text(text)
    _, _, refused = records(open_table(tmp_path / "x.json"))
    assert refused == {JSON.text: 1}
