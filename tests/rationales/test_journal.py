"""The two files of a run, cut off at any byte by a kill and edited by a person, are gone on with."""

import pytest

from recalign.errors import UserError
from recalign.rationales.asking import Asking
from recalign.rationales.budget import Budget
from recalign.rationales.journal import Journal
from recalign.rationales.records import read_rationales
from tests.rationales.doubles import CATALOGUE, Scripted, make_cases


def go_on(folder, teacher):
    """Do what the command does with --resume."""
    journal = Journal(folder)
    journal.mend()
    left = [case for case in make_cases() if (case.row.index, case.item) not in journal.answered]
    Asking(teacher, CATALOGUE, journal, Budget(teacher))(left, lambda count: None)
    return journal


@pytest.fixture
def whole(tmp_path):
    """The files of a run that nobody disturbed."""
    (tmp_path / "whole").mkdir()
    journal = go_on(tmp_path / "whole", Scripted())
    assert journal.spent == (80, 40)
    return {file.name: file.read_bytes() for file in sorted((tmp_path / "whole").iterdir())}


def test_a_run_killed_at_any_byte_ends_where_the_undisturbed_one_does(tmp_path, whole):
    """A line of answers.jsonl is written before its line of rationales.jsonl, so that is where writing can stop."""
    answers, rationales = whole["answers.jsonl"], whole["rationales.jsonl"]
    written = []  # the states of both files, byte by byte, around the third answer
    starts = [0, *(place + 1 for place, byte in enumerate(answers) if byte == 10)]
    begins = [0, *(place + 1 for place, byte in enumerate(rationales) if byte == 10)]
    written += [(cut, begins[2]) for cut in range(starts[2], starts[3] + 1, 7)]
    written += [(starts[3], cut) for cut in range(begins[2], begins[3] + 1, 7)]
    for number, (cut, kept) in enumerate(written):
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / "answers.jsonl").write_bytes(answers[:cut])
        (folder / "rationales.jsonl").write_bytes(rationales[:kept])
        teacher = Scripted()
        journal = go_on(folder, teacher)
        assert {file.name: file.read_bytes() for file in folder.iterdir()} == whole
        assert len(teacher.asked) == (5 if cut >= starts[3] - 1 else 6)  # a whole line counts without its line feed
        assert journal.spent == (80, 40)


def test_what_a_person_changed_stays_and_nothing_is_asked_twice(tmp_path, whole):
    lines = whole["rationales.jsonl"].splitlines()
    edited = [lines[0].replace(b"Because of 2.", b"Because I say so."), *lines[2:4]]  # one changed, one deleted
    (tmp_path / "answers.jsonl").write_bytes(b"\n".join(whole["answers.jsonl"].splitlines()[:4]) + b"\n")
    (tmp_path / "rationales.jsonl").write_bytes(b"\n".join(edited))  # the editor left out the last line feed
    teacher = Scripted()
    go_on(tmp_path, teacher)
    assert teacher.asked == [(2, 2), (2, 3), (3, 2), (3, 3)]
    read = read_rationales(tmp_path / "rationales.jsonl")
    assert list(read) == [(0, 2), (1, 2), (1, 3), (2, 2), (2, 3), (3, 2), (3, 3)]
    assert "Because I say so." in read[0, 2].text


@pytest.mark.parametrize("place", [1, 3])
def test_a_line_that_an_editor_broke_stops_the_run_before_anything_is_written(tmp_path, whole, place):
    lines = whole["rationales.jsonl"].splitlines()[:4]
    lines[place] = lines[place][:-3] + b"?"
    (tmp_path / "answers.jsonl").write_bytes(b"\n".join(whole["answers.jsonl"].splitlines()[:4]) + b"\n")
    (tmp_path / "rationales.jsonl").write_bytes(b"\n".join(lines))
    before = {file: file.read_bytes() for file in tmp_path.iterdir() if file.is_file()}
    with pytest.raises(UserError, match=f"rationales.jsonl, line {place + 1} is not readable JSON"):
        Journal(tmp_path)
    assert {file: file.read_bytes() for file in before} == before
