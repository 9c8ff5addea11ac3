"""Instruction data of papers' repositories: quoted titles in prose (BIGRec, SPRec, MSL), or lists of them (S-DPO)."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from recalign.api import Field, FileAccount, Params, RawData, Refused, Source, UserError, hookimpl
from recalign.sources.dumps import matching
from recalign.sources.reading import Records, existing, existing_file, glimpse, open_table
from recalign.sources.reading.catalogues import read_genres_by_title, read_titles
from recalign.sources.reading.records import NAMED

if TYPE_CHECKING:
    import polars as pl

PROSE, LISTS = ("input", "output"), ("historyList", "trueSelection")
CANDIDATES = "itemList"
FORMS = f"{' and '.join(PROSE)}, or {' and '.join(LISTS)}"
DATA = ("*.json", "*.jsonl")
CATALOGUES = ("*id2name*", "*name2id*", "*id2title*", "movies.dat")
SPLITS = {"train": "train", "valid": "valid", "val": "valid", "validation": "valid", "test": "test"}
CLOSING = re.compile(r'"(?=\s*(?:[,.;:!?)\]\n\t]|$|and\b|please\b))')
BETWEEN = "::"
UNKNOWN = "a title that the catalogue lacks"


class InstructionsParams(Params):
    """What the files do not say themselves."""

    titles: Path | None = Field(
        None,
        description="file of the catalogue: JSON id -> title, (name2id*) title -> id, or lines of id::title; id2name* "
        "or name2id* beside the data where it is there; without any, all titles that occur are the catalogue",
    )
    genres: Path | None = Field(None, description="JSON file title -> genres; name2genre* beside the data")
    test_share: float = Field(
        0.1, gt=0, lt=0.5, description="share of the rows, the last ones, that tests where there is no file of tests"
    )
    candidates: bool = Field(
        True, description=f"take the lists of candidates ({CANDIDATES}) as the sets that rows rank (--task rank)"
    )
    encoding: str = Field("utf-8", description="of files without a byte order mark, such as latin-1")


class Instructions(Source):
    """Reads instruction, input and output, or historyList and trueSelection, as ready-made windows.

    PATH is one JSON file (an array or lines) or a folder with files named after train, valid and test. The history is
    the quoted titles of the input, the target that of the output. A title may hold quotation marks and commas: what
    the catalogue holds is found whole. Rows with a title that the catalogue lacks are left out, counted and shown. Rows
    have no user and no time: their order is the time. `--task rank` takes S-DPO's lists of candidates (`itemList`):
    those with the target once, no item twice, no title that the catalogue lacks, and as many items as most have.
    """

    Params = InstructionsParams
    paper = "Bao et al., 2023 (BIGRec); Gao et al., 2025 (SPRec); Chen et al., NeurIPS 2024 (S-DPO)"
    suggests: ClassVar[dict[str, Any]] = {"split": "provided", "valid_share": 0.1}

    @classmethod
    def recognises(cls, path: Path) -> str:
        """Rows with an input and an output, or with a history and a selection."""
        for file in matching(path, *DATA):
            for keys in (PROSE, LISTS):
                if set(keys) <= set(glimpse(file)):
                    return f"{file.name} has {' and '.join(keys)}"
        return ""

    def files(self, path: Path) -> list[Path]:
        """The rows' files, and those of titles and genres where there are some.

        Raises:
            UserError: missing files, or a folder without rows.
        """
        catalogue, genres = self._beside(path)
        return [*self._rows(path).values(), *filter(None, (catalogue, genres))]

    def read(self, path: Path | None, seed: int) -> RawData:
        """Read rows and titles.

        Raises:
            UserError: missing files or keys, or files that cannot be read at all.
        """
        import polars as pl

        assert path is not None  # `prepare` sees to it: needs_path
        files, (catalogue, genres) = self._rows(path), self._beside(path)
        ids = read_titles(catalogue, self.params.encoding) if catalogue else {}
        titles = Titles({title: item for item, title in reversed(ids.items())}, fixed=catalogue is not None)
        read = {split: _windows(file, self.params, titles) for split, file in files.items()}
        windows = _of_one_size({split: frame for split, (frame, _) in read.items()})
        if "test" not in windows:
            whole = windows["train"]
            tested = max(1, round(self.params.test_share * whole.height))
            windows = {**windows, "train": whole.head(-tested), "test": whole.tail(tested)}
        told = read_genres_by_title(genres, self.params.encoding) if genres else {}
        known = ids or {item: title for title, item in titles.ids.items()}
        items = pl.LazyFrame(
            {
                "item_id": list(known),
                "title": list(known.values()),
                "genres": [told.get(t, []) for t in known.values()],
            },
            schema={"item_id": pl.String, "title": pl.String, "genres": pl.List(pl.String)},
        )
        accounts = [account for _, account in read.values()]
        return RawData(items, windows={name: frame.lazy() for name, frame in windows.items()}, accounts=accounts)

    def _rows(self, path: Path) -> dict[str, Path]:
        """The file of each split."""
        if not existing(path).is_dir():
            return {"train": path}
        found: dict[str, Path] = {}
        for file in matching(path, *DATA):
            split = next((SPLITS[word] for word in re.split(r"[^a-z]+", file.name.lower()) if word in SPLITS), None)
            keys = glimpse(file)  # a damaged file has none, and is refused by name when it is read
            if split is None or (keys and not any(set(form) <= set(keys) for form in (PROSE, LISTS))):
                continue
            if split in found:
                raise UserError(
                    f"{path} has two files of the split '{split}': {found[split].name} and {file.name}.",
                    "Name one file as PATH, or a folder with one dataset.",
                )
            found[split] = file
        if "train" not in found:
            held = ", ".join(file.name for file in sorted(path.iterdir())[:5]) or "nothing"
            raise UserError(
                f"{path} must hold a train*.json with {FORMS}, but holds {held}.",
                "Name the file itself as PATH.",
            )
        return {split: found[split] for split in ("train", "valid", "test") if split in found}

    def _beside(self, path: Path) -> tuple[Path | None, Path | None]:
        """The files of titles and of genres."""
        folder = path if existing(path).is_dir() else path.parent
        catalogues, genres = matching(folder, *CATALOGUES), matching(folder, "*name2genre*.json")
        return (
            existing_file(self.params.titles) if self.params.titles else next(iter(catalogues), None),
            existing_file(self.params.genres) if self.params.genres else next(iter(genres), None),
        )


@dataclass
class Titles:
    """Titles of a catalogue, or, where there is none, those seen so far.

    Args:
        ids: title -> item id.
        fixed: whether a catalogue says what titles there are.
    """

    ids: dict[str, str]
    fixed: bool
    unescaped: dict[str, str] = field(init=False)

    def __post_init__(self) -> None:
        self.unescaped = {html.unescape(title).strip(): item for title, item in self.ids.items()}

    def item(self, title: str) -> str | None:
        """The item of a title, or None."""
        found = self.ids.get(title) or self.unescaped.get(html.unescape(title).strip())
        if found is None and not self.fixed and title.strip():
            found = self.ids[title] = self.unescaped[title.strip()] = str(len(self.ids))
        return found

    def quoted(self, text: str) -> Iterator[str]:
        """Titles between quotation marks: the shortest that the catalogue holds, else up to a mark that can close."""
        start = text.find('"')
        while start >= 0:
            ends = [match.start() for match in CLOSING.finditer(text, start + 1)]
            if not ends:
                return
            whole = (end for end in ends if self.fixed and self.item(text[start + 1 : end]) is not None)
            end = next(whole, ends[0])
            yield text[start + 1 : end]
            start = text.find('"', end + 1)


def _windows(file: Path, params: InstructionsParams, titles: Titles) -> tuple[pl.DataFrame, FileAccount]:
    """Windows of item ids, with candidates where the file has some, and the account of the file."""
    import polars as pl

    keys = (*PROSE, *LISTS, *((CANDIDATES,) if params.candidates else ()))
    table = open_table(file, encoding=params.encoding, keys=dict.fromkeys(keys, True))
    parse = _parser(table)
    users: list[str] = []
    windows: list[list[str]] = []
    candidates: list[list[str] | None] = []
    times: list[float] = []
    unknown: list[tuple[int, str]] = []
    refused: dict[str, Refused] = {}
    for batch in table.batches(list(table.schema)):
        for each in batch.refused:
            first = tuple(f"{table.where(number)}: {said}" for number, said in each.first)
            before = refused.get(each.reason.text, Refused(0, (), each.reason.hint))
            shown = (*before.first, *first)[:NAMED]
            refused[each.reason.text] = Refused(before.count + each.count, shown, each.reason.hint)
        for number, row in zip(batch.number.tolist(), batch.frame.iter_rows(named=True), strict=True):
            named = parse(row, titles)
            items = [titles.item(title) for title in named]
            lacking = next((title for title, item in zip(named, items, strict=True) if item is None), None)
            if lacking is not None or len(named) < 2:  # noqa: PLR2004
                said = repr(lacking) if lacking is not None else "no title in the history or none as the target"
                unknown.append((number, said))
                continue
            users.append(f"{file.stem}-{number}")
            windows.append([item for item in items if item is not None])
            candidates.append(_candidate_set(row.get(CANDIDATES), items[-1], titles))
            times.append(float(number))
    if unknown:
        first = tuple(f"{table.where(number)}: {said}" for number, said in unknown[:NAMED])
        refused[UNKNOWN] = Refused(len(unknown), first, "Name the catalogue's file with -p titles=FILE.", bool(windows))
    listed = pl.List(pl.String)
    frame = pl.DataFrame(
        {"user_id": users, "timestamp": times, "item_ids": windows, "candidates": candidates},
        schema={"user_id": pl.String, "timestamp": pl.Float64, "item_ids": listed, "candidates": listed},
    )
    frame = frame if CANDIDATES in table.schema else frame.drop("candidates")
    return frame, FileAccount(file, len(windows), refused)


def _parser(table: Records) -> Any:
    """From a row to its titles, as the file's keys tell."""
    for keys, parse in ((PROSE, _from_prose), (LISTS, _from_lists)):
        if set(keys) <= set(table.schema):
            return parse
    raise UserError(
        f"{table.file} has none of {FORMS}: its keys are {', '.join(table.schema)}.",
        "Check that these are instruction data.",
    )


def _from_prose(row: Mapping[str, str | None], titles: Titles) -> list[str]:
    """Quoted titles of the input, and of the output, which may lack the quotation marks."""
    output = (row["output"] or "").strip()
    whole = output[1:-1] if len(output) > 1 and output[0] == output[-1] == '"' else output
    known = titles.fixed and titles.item(whole) is not None
    target = whole if known else next(titles.quoted(output), output)
    return [*titles.quoted(row["input"] or ""), target] if target else []


def _from_lists(row: Mapping[str, str | None], titles: Titles) -> list[str]:
    """Titles of the history, and the selection."""
    target = (row["trueSelection"] or "").strip()
    return [*_listed(row["historyList"]), target] if target else []


def _listed(text: str | None) -> list[str]:
    """Titles of a list, or of text with `::` between them."""
    from recalign.sources.reading.texts import listed

    found: Any = listed(text or "")
    names = [str(each) for each in found] if isinstance(found, list) else found.split(BETWEEN)
    return [name.strip() for name in names if name.strip()]


def _candidate_set(text: str | None, target: str | None, titles: Titles) -> list[str] | None:
    """The items of a list of candidates, if it is a set of known ones with the target among them."""
    items = [titles.item(name) for name in _listed(text)]
    fits = target in items and None not in items and len(set(items)) == len(items)
    return [item for item in items if item is not None] if fits else None


def _of_one_size(windows: dict[str, pl.DataFrame]) -> dict[str, pl.DataFrame]:
    """Windows whose candidate sets have the size that most have; the others are null, and all where a file has none."""
    import polars as pl

    having = [frame["candidates"].list.len() for frame in windows.values() if "candidates" in frame.columns]
    if not having:
        return windows
    sizes = pl.concat(having).drop_nulls().mode().sort()
    usual = pl.col("candidates").list.len() == (sizes[-1] if len(sizes) else 0)
    none = pl.lit(None, dtype=pl.List(pl.String))
    return {
        split: frame.with_columns(
            candidates=pl.when(usual).then("candidates") if "candidates" in frame.columns else none
        )
        for split, frame in windows.items()
    }


@hookimpl
def recalign_source() -> type[Source]:
    """Return the plugin class to recalign."""
    return Instructions
