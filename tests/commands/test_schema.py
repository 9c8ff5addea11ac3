"""Every object that `--json` prints has a versioned schema, which docs/json.md describes."""

import json
import re
from pathlib import Path

import pytest

from recalign import cli, console
from recalign.commands.schemas import SCHEMAS, Printed, identifier, json_schema

PAGE = (Path(__file__).parents[2] / "docs" / "json.md").read_text("utf-8")
MODEL = "builtin:tiny,hidden=32,layers=1"


def names():
    return {*cli.COMMANDS, *(f"plugins {name}" for name in ("list", "show", "check", "new")), "error"}


def test_every_command_has_a_schema():
    assert set(SCHEMAS) == names()


@pytest.mark.parametrize("name", SCHEMAS)
def test_the_page_names_every_field(name):
    section = re.search(rf"^## {name}\n(.*?)(?=^## |\Z)", PAGE, re.DOTALL | re.MULTILINE)[1]
    assert identifier(name) in section
    for field, declared in SCHEMAS[name].model_fields.items():
        assert f"| `{field}` | {declared.description} |" in section, field


def described(model):
    """All models inside a schema have descriptions for all of their fields."""
    return all(field.description for field in model.model_fields.values())


def test_every_field_is_described():
    models, waiting = set(), [Printed]
    while waiting:
        model = waiting.pop()
        models.add(model)
        waiting += model.__subclasses__()
    assert len(models) > 20
    assert all(described(model) for model in models)


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


@pytest.fixture
def printed(capsys, workspace, monkeypatch):
    """`printed("eval", ...)`: what the command prints with --json, held against its schema."""
    monkeypatch.setenv("RECALIGN_HOME", str(workspace / "home"))

    def call(name, *arguments, code=0, schema=None):
        with pytest.raises(SystemExit) as stop:
            cli.main([*name.split(), *map(str, arguments), "--json"])
        out, err = capsys.readouterr()
        console.configure()
        assert stop.value.code == code, err
        value = json.loads(out)
        assert value["schema"] == identifier(schema or name)
        SCHEMAS[schema or name].model_validate(value, strict=False)
        return value

    return call


def test_what_the_commands_print_fits(printed, workspace, tmp_path):
    data = workspace / "data"
    rank = workspace / "rank"
    printed("prepare", "synthetic", "--task", "next", "-p", "users=40", "-p", "items=30", "--out", data)
    printed("sft", "--data", data, "--model", MODEL, "--max-steps", 2)
    printed("align", "--data", data, "--reward", "ndcg@1", "--max-steps", 1, "-p", "group_size=4", "--no-report")
    printed("export", "--model", workspace / "home" / "sft", "--out", workspace / "exported")
    printed("recommend", "--model", workspace / "home" / "sft", "--history", "i1")
    decoded = printed("decode", "--data", data, "--model", workspace / "home" / "sft", "--size", 3)
    assert len(decoded["examples"]) == 3
    printed("baseline", "popularity", "--data", data, "--size", 3)
    for run in ("sft/decode-beam-test", "baseline-popularity-test"):
        printed("eval", workspace / "home" / run, "--metrics", "ndcg@3,coverage")
    printed("explain", workspace / "home" / "sft")
    printed("compare", workspace / "home" / "sft", workspace / "home" / "baseline-popularity-test")
    printed("prepare", "synthetic", "--task", "rank", "-p", "users=40", "-p", "items=60", "--out", rank)
    printed("rationales", "rules", "--data", rank, "--rows", 20)
    printed("run", "quickstart", "--dry-run")
    printed("plugins list")
    printed("plugins show", "ndcg")
    printed("plugins new", "metric", "my-metric", "--out", tmp_path / "new")
    printed("schema", "eval")
    printed("eval", workspace / "nowhere", code=2, schema="error")


def test_a_schema_is_json_schema_with_its_identifier(printed):
    told = printed("schema", "eval")["schemas"]
    assert list(told) == ["eval/1"]
    assert told["eval/1"]["properties"]["schema"] == {"const": "eval/1"}
    assert set(told["eval/1"]["required"]) >= {"metrics", "corpus", "out"}
    assert len(printed("schema")["schemas"]) == len(SCHEMAS)
    assert "'eval'" in printed("schema", "evl", code=2, schema="error")["hint"]


def test_the_schema_that_is_stated_is_the_models():
    assert json_schema("decode")["$defs"]["ExampleList"]["required"] == [
        "row",
        "user_id",
        "history",
        "recommended",
        "missed",
    ]
