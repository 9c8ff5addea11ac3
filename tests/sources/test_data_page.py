"""docs/data.md and `prepare --help` name every source, and the commands that they show parse."""

import re
import shlex
from pathlib import Path

import pytest

from recalign.commands.prepare import prepare
from recalign.plugins.registry import create, list_plugins
from recalign.preparation.pipeline import prepare_dataset
from recalign.workflow.signatures import signature_of

PAGE = (Path(__file__).parents[2] / "docs" / "data.md").read_text("utf-8")
COMMANDS = re.findall(r"\| `(recalign prepare .*?)` \|", PAGE)
SOURCES = sorted(entry.name for entry in list_plugins("source") if entry.package == "recalign")


@pytest.mark.parametrize("name", SOURCES)
def test_every_source_is_in_the_table_and_in_the_help(name):
    assert any(command.split()[2] == name for command in COMMANDS)
    assert f"- recalign prepare {name}" in prepare.__doc__


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_of_the_table_parse_and_their_parameters_exist(command):
    parsed = signature_of("prepare").parse(shlex.split(command)[2:], command)
    params = dict(each.split("=", 1) for each in parsed["param"] or ())
    if parsed["meta"]:
        params["meta"] = str(parsed["meta"])
    create("source", parsed["source"], params)


PAPERS = {
    "published files": ("windows", "office", {}),
    "as BEAR": (
        *("recbole", "ml-100k"),
        {"task": "next", "history": 10, "k_core": 5, "full_windows": True, "min_history": 4},
    ),
    "as BLADE": (
        *("recbole", "ml-100k"),
        {"task": "list", "history": 10, "targets": 10, "min_user_interactions": 10, "popularity_cut": 15},
    ),
    "its 5,000 rows": ("instructions", "goodreads", {}),
}


@pytest.mark.parametrize("row", PAPERS)
def test_counts_beside_those_of_the_papers_are_what_prepare_counts(shared_data, tmp_path, row):
    source, name, options = PAPERS[row]
    counts = prepare_dataset(source, shared_data(name), tmp_path / "out", options=options)["counts"]
    (cells,) = [line.split("|")[3:7] for line in PAGE.splitlines() if line.split("|")[2:] and row in line.split("|")[2]]
    users, items, interactions, windows = ([int(n.replace(",", "")) for n in cell.split("+")] for cell in cells)
    assert ([counts["users"]], [counts["items"]], [counts["interactions"]]) == (users, items, interactions)
    rows = [counts["rows"][split]["rows"] for split in ("train", "valid", "test")]
    assert windows == (rows if len(windows) == len(rows) else [rows[0] + rows[1], rows[2]])
