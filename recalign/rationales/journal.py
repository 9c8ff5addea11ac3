"""The two files that a run of `recalign rationales` adds a line to with every reply, and their repair after a kill."""

from __future__ import annotations

import os
from pathlib import Path

from recalign import console
from recalign.errors import UserError
from recalign.rationales.records import ANSWERS_FILE, RATIONALES_FILE, AnswerRecord, Lines, Rationale, to_line


class Journal:
    """`answers.jsonl`, in which every reply is noted before anything else, and `rationales.jsonl`, the kept ones.

    Both are only ever added to, so what a person changes in `rationales.jsonl` stays changed. A line is one write: of
    a run that was killed at most the last line is cut off, and at most the last answer is not in the second file yet.

    Args:
        folder: of the run; files that are there are read, and not touched before `mend`.

    Attributes:
        records: (row, item) -> the last answer.
        spent: prompt and completion tokens of all answers.

    Raises:
        UserError: a line is broken, other than the last one that a kill cut off; its number is told.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._answers = Lines(folder / ANSWERS_FILE, AnswerRecord)
        self._rationales = Lines(folder / RATIONALES_FILE, Rationale)
        self.records: dict[tuple[int, int], AnswerRecord] = {}
        self.spent = (0, 0)
        self._last: AnswerRecord | None = None
        for record in self._answers.records.values():
            self._count(record)
        self._cut_off = self._cut_off_answer()
        self._completion = self._missing_rationale()

    @property
    def answered(self) -> set[tuple[int, int]]:
        """What need not be asked again: row and item of every reply that was a text."""
        return {key for key, record in self.records.items() if record.outcome != "malformed"}

    def mend(self) -> None:
        """End both files where the next line can follow: complete or cut what a kill left half-written."""
        answers = self._answers
        if self._cut_off:
            console.warn(f"{answers.file}: the last line was cut off; its question is asked again.")
            os.truncate(answers.file, answers.file.stat().st_size - len(answers.tail))
        elif answers.tail:
            _append(answers.file, b"\n")
        _append(self._rationales.file, self._completion)

    def add(self, record: AnswerRecord) -> None:
        """Note an answer."""
        self._count(record)
        _append(self._answers.file, to_line(record))
        if record.outcome == "kept":
            _append(self._rationales.file, to_line(record.rationale()))

    def absorb(self, other: Journal) -> None:
        """Note the answers of another journal, such as another process's, but for those that are here already."""
        here = {to_line(record) for record in self._answers.records.values()}
        for record in other._answers.records.values():
            if to_line(record) not in here:
                self.add(record)

    def _count(self, record: AnswerRecord) -> None:
        self.records[record.key] = self._last = record
        self.spent = (self.spent[0] + record.prompt_tokens, self.spent[1] + record.completion_tokens)

    def _cut_off_answer(self) -> bool:
        """Read the last answer if its line lacks the line feed alone; return whether it lacks more."""
        if not self._answers.tail.strip():
            return False
        try:
            self._count(self._answers.parsed_tail())
        except UserError:
            return True
        return False

    def _missing_rationale(self) -> bytes:
        """What `rationales.jsonl` lacks at its end: (the rest of) the last answer's line, or a line feed.

        Raises:
            UserError: the last line is broken, and not by a kill.
        """
        tail, last, line = self._rationales.tail, self._last, b""
        there = {record.key for record in self._rationales.records.values()}
        if last is not None and last.outcome == "kept" and last.key not in there:
            line = to_line(last.rationale())
        if line and line.startswith(tail):
            return line[len(tail) :]
        if not tail.strip():
            return b""
        edited = self._rationales.parsed_tail()
        return b"\n" + (b"" if last is None or edited.key == last.key else line)


def _append(file: Path, line: bytes) -> None:
    """Add to a file in one write.

    Raises:
        OSError: the disk is full.
    """
    descriptor = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    try:
        while line:
            line = line[os.write(descriptor, line) :]
    finally:
        os.close(descriptor)
