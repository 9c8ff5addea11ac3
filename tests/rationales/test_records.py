"""`rationales.jsonl` as a person may have left it: what is read, and which line is at fault where it cannot be."""

import json

import pytest

from recalign.errors import UserError
from recalign.rationales.records import check_rationales, read_rationales
from tests.rationales.doubles import NAMES, make_row

TEXT = "#Initial reasoning\nIt fits.\n<answer>Recommend</answer>"
LINE = {"row": 0, "item": 2, "text": TEXT, "decision": "Recommend"}
REFUSED = "It does not.\n<answer>Not Recommend</answer>"


def write(path, *lines):
    file = path / "rationales.jsonl"
    file.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines), "utf-8")
    return file


def test_lines_are_read_in_the_order_of_rows_and_items_whatever_theirs(tmp_path):
    no = {"row": 0, "item": 3, "text": REFUSED, "decision": "Not Recommend"}
    file = write(tmp_path, {**LINE, "row": 1}, no, "", LINE)
    read = read_rationales(file)
    assert list(read) == [(0, 2), (0, 3), (1, 2)]
    assert read[0, 3].text == REFUSED


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ('{"row": 1, "item": 2, "text": "half', "line 2 is not readable JSON"),
        ({**LINE, "row": 1, "text": "It fits."}, "line 2: The answer has no decision"),
        ({**LINE, "row": 1, "text": TEXT + TEXT}, "line 2: The answer has 2 decisions"),
        ({**LINE, "row": 1, "text": TEXT.replace(">Recommend", ">Perhaps")}, "line 2: The decision reads"),
        ({**LINE, "row": 1, "decision": "Not Recommend"}, "its text says <answer>Recommend</answer>"),
        ({**LINE, "row": -1}, "line 2, 'row': "),
        ({"row": 1, "item": 2, "text": TEXT}, "line 2, 'decision': field required"),
        ("[]", "line 2, "),
        ({**LINE, "row": 1, "tokns": 3}, "line 2: unknown key 'tokns'"),
        ({**LINE, "row": "1"}, "line 2, 'row': "),
        ({**LINE, "row": True}, "line 2, 'row': "),
        ({**LINE, "item": 2.5}, "line 2, 'item': "),
        ('{"row": 1, "row": 2}', "line 2 is not readable JSON: 'row' stands in it twice"),
        (LINE, "lines 1 and 2 are both about row 0, item 2"),
    ],
)
def test_a_broken_line_is_told_by_its_number_and_nothing_is_changed(tmp_path, line, says):
    file = write(tmp_path, LINE, line, {**LINE, "row": 5})
    before = file.read_bytes()
    with pytest.raises(UserError, match="rationales.jsonl") as error:
        read_rationales(file)
    assert says in error.value.what
    assert error.value.hint
    assert file.read_bytes() == before


def test_missing_and_empty_files_and_other_encodings_are_refused(tmp_path):
    with pytest.raises(UserError, match="is no file"):
        read_rationales(tmp_path / "rationales.jsonl")
    with pytest.raises(UserError, match="holds no rationale"):
        read_rationales(write(tmp_path, ""))
    (tmp_path / "rationales.jsonl").write_bytes(json.dumps(LINE).encode() + b"\n" + "Amélie".encode("latin-1") + b"\n")
    with pytest.raises(UserError, match="line 2 is not UTF-8"):
        read_rationales(tmp_path / "rationales.jsonl")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({}, ""),
        ({"user_id": "u0", "title": "Title 2"}, ""),
        ({"row": 7}, "the dataset has 2 training rows"),
        ({"user_id": "u9"}, "the user is 'u9', and in the dataset 'u0'"),
        ({"item": 5}, "the item is no candidate of that row"),
        ({"title": "Another"}, "the title is 'Another', and in the dataset 'Title 2'"),
        ({"item": 3}, "the decision is 'Recommend', and the item is a negative"),
    ],
)
def test_rationales_are_held_against_the_rows_they_are_about(tmp_path, change, says):
    file = write(tmp_path, {**LINE, "row": 1}, "", {**LINE, **change})
    read, rows = read_rationales(file), [make_row(0), make_row(1)]
    if says:
        with pytest.raises(UserError) as error:
            check_rationales(read.values(), rows, NAMES, file)
        assert says in error.value.what
        assert error.value.what.startswith(f"{file}, line 3 (row ")
    else:
        check_rationales(read.values(), rows, NAMES, file)
