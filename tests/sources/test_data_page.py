"""docs/data.md and `prepare --help` name every source, and the commands that they show parse."""

import re
import shlex
from pathlib import Path

import pytest

from recalign.commands.prepare import prepare
from recalign.plugins.registry import create, list_plugins
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
