"""The lines of `rationales.jsonl`, which people read and edit, and of `answers.jsonl`, which holds all replies."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from recalign.data.dataset import Row
from recalign.data.questions import RATIONALE
from recalign.errors import UserError, did_you_mean
from recalign.reading import parse_json, reading

RATIONALES_FILE = "rationales.jsonl"
ANSWERS_FILE = "answers.jsonl"
MEND = "Mend the line, or delete it; the file was not changed."
FACTS = {True: "is what the user went on to", False: "is a negative"}
Outcome = Literal["kept", "dropped", "off_format", "malformed"]


class Rationale(BaseModel):
    """One line of `rationales.jsonl`: why an item suits a user, or does not.

    Args:
        row: index of the training row.
        user_id: raw id of the row's user; where it is stated it must be that of the dataset.
        item: index of the candidate.
        title: of the item; likewise.
        decision: the decision in words, as the text has it.
        text: the whole answer: the rationale and, on its last line, the decision between tags.
        teacher: who wrote it.
        model: the teacher's model, where there is one.
        tokens: that the text took.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    row: int = Field(ge=0, strict=True)
    user_id: str | None = None
    item: int = Field(ge=0, strict=True)
    title: str | None = None
    decision: str
    text: str
    teacher: str = ""
    model: str = ""
    tokens: int = Field(0, ge=0)

    @property
    def key(self) -> tuple[int, int]:
        """What it is about: row and item."""
        return self.row, self.item


class AnswerRecord(BaseModel):
    """One line of `answers.jsonl`: what a teacher answered, whatever became of it.

    Args:
        row: index of the row.
        user_id: raw id of the row's user.
        item: index of the candidate.
        title: of the item.
        positive: whether the item is a target of the row.
        outcome: what became of it: `kept` (the decision is right), `dropped` (it is wrong), `off_format` (there is no
            single decision), `malformed` (no text came back).
        text: the reply.
        problem: what was wrong, in words.
        prompt_tokens: spent.
        completion_tokens: spent.
        teacher: who answered.
        model: the teacher's model.
    """

    model_config = ConfigDict(frozen=True)

    row: int
    user_id: str
    item: int
    title: str
    positive: bool
    outcome: Outcome
    text: str
    problem: str = ""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    teacher: str = ""
    model: str = ""

    @property
    def key(self) -> tuple[int, int]:
        """What it is about: row and item."""
        return self.row, self.item

    def rationale(self) -> Rationale:
        """Return the line of `rationales.jsonl` that a kept answer becomes."""
        return Rationale(
            row=self.row,
            user_id=self.user_id,
            item=self.item,
            title=self.title,
            decision=RATIONALE.words[0 if self.positive else 1],
            text=self.text,
            teacher=self.teacher,
            model=self.model,
            tokens=self.completion_tokens,
        )


Record = TypeVar("Record", bound=BaseModel)


class Lines(Generic[Record]):
    """A file of records, one JSON object per line, read without changing it; a missing file is an empty one.

    Args:
        file: to read.
        model: what a line holds.

    Attributes:
        records: line number (from 1) -> record; blank lines are skipped.
        tail: bytes after the last line feed: a line that was cut off, or one whose line feed an editor left out.
        tail_line: number of that line.

    Raises:
        UserError: a line before the tail is no such record; its number is told.
    """

    def __init__(self, file: Path, model: type[Record]) -> None:
        self.file, self.model = file, model
        with reading(file, MEND):
            *whole, self.tail = file.read_bytes().split(b"\n") if file.exists() else [b""]
        self.tail_line = len(whole) + 1
        self.records = {number: self._parsed(line, number) for number, line in enumerate(whole, 1) if line.strip()}

    def parsed_tail(self) -> Record:
        """Return the record of the last line, which lacks its line feed.

        Raises:
            UserError: it is none.
        """
        return self._parsed(self.tail, self.tail_line)

    def _parsed(self, line: bytes, number: int) -> Record:
        where = f"{self.file}, line {number}"
        with reading(where, MEND, "is not UTF-8 text"):
            text = line.decode("utf-8-sig")
        value = parse_json(text, where, MEND, unique=True)
        try:
            return self.model.model_validate(value)
        except ValidationError as error:
            first = error.errors()[0]
            name = ".".join(str(part) for part in first["loc"])
            if first["type"] == "extra_forbidden":
                raise UserError(
                    f"{where}: unknown key '{name}'.", f"{did_you_mean(name, self.model.model_fields)} {MEND}"
                ) from None
            what = f"'{name}': {first['msg'].lower()}" if name else first["msg"]
            raise UserError(f"{where}, {what}.", MEND) from None


def to_line(record: Rationale | AnswerRecord) -> bytes:
    """Write a record as a line, line feed included."""
    return (json.dumps(record.model_dump(exclude_none=True), ensure_ascii=False) + "\n").encode()


def read_rationales(file: Path) -> dict[tuple[int, int], Rationale]:
    """Read a file of rationales that somebody may have edited.

    Returns:
        (row, item) -> rationale, in the order of rows and items whatever the order of the lines.

    Raises:
        UserError: the file is missing or empty, a line is broken, its text has no decision or two, or another one than
            it states, or two lines are about the same candidate of the same row.
    """
    if not file.is_file():
        raise UserError(f"{file} is no file.", "Make one with `recalign rationales`; it is called rationales.jsonl.")
    numbered = _numbered(file)
    if not numbered:
        raise UserError(f"{file} holds no rationale.", "Make some with `recalign rationales`.")
    first: dict[tuple[int, int], int] = {}
    for number, record in numbered.items():
        _check_decision(record, f"{file}, line {number}")
        if first.setdefault(record.key, number) != number:
            raise UserError(
                f"{file}: lines {first[record.key]} and {number} are both about row {record.row}, item {record.item}.",
                "Keep one of them.",
            )
    return {record.key: record for record in sorted(numbered.values(), key=lambda record: record.key)}


def _numbered(file: Path) -> dict[int, Rationale]:
    """Line number -> rationale; the last line may lack its line feed."""
    lines = Lines(file, Rationale)
    tail = {lines.tail_line: lines.parsed_tail()} if lines.tail.strip() else {}
    return {**lines.records, **tail}


def _check_decision(record: Rationale, where: str) -> None:
    try:
        answer = RATIONALE.read(record.text)
    except UserError as error:
        raise UserError(f"{where}: {error.what}", error.hint) from None
    if record.decision != RATIONALE.words[0 if answer.recommended else 1]:
        said = RATIONALE.line(answer.recommended)
        raise UserError(f"{where}: its decision is {record.decision!r}, and its text says {said}.", "Make them agree.")


def check_rationales(rationales: Iterable[Rationale], rows: Sequence[Row], titles: Sequence[str], file: Path) -> None:
    """Hold rationales against the rows that they are about.

    Args:
        rationales: to check.
        rows: of the split.
        titles: [I] of the catalogue.
        file: that they come from, for error texts.

    Raises:
        UserError: a row, candidate, user or title is not that of the dataset, or a decision contradicts the row.
    """
    for rationale in rationales:
        problem = _misfit(rationale, rows, titles)
        if problem:
            number = next(line for line, each in _numbered(file).items() if each.key == rationale.key)
            raise UserError(
                f"{file}, line {number} (row {rationale.row}, item {rationale.item}): {problem}.",
                "Mend the line, or delete it; where all lines are of another dataset, name that with --data.",
            )


def _misfit(rationale: Rationale, rows: Sequence[Row], titles: Sequence[str]) -> str:
    """Say what a rationale states that is not so in the dataset, or ""."""
    if rationale.row >= len(rows):
        return f"the dataset has {len(rows)} training rows"
    row = rows[rationale.row]
    if rationale.user_id not in (None, row.user_id):
        return f"the user is {rationale.user_id!r}, and in the dataset {row.user_id!r}"
    if row.candidates is None or rationale.item not in row.candidates:
        return "the item is no candidate of that row"
    if rationale.title not in (None, titles[rationale.item]):
        return f"the title is {rationale.title!r}, and in the dataset {titles[rationale.item]!r}"
    positive = rationale.item in row.relevant
    if rationale.decision != RATIONALE.words[0 if positive else 1]:
        return f"the decision is {rationale.decision!r}, and the item {FACTS[positive]}"
    return ""
