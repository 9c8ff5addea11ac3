"""Files that recalign reads, mutated: whatever they hold, a command ends with 0 or with 2 and words, never with 1."""

import json
import os
import shutil

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from recalign import cli
from recalign.models.policy import load_policy
from recalign.models.tokenizers import train_tokenizer
from recalign.workspace import RunFolder
from tests.fake_dataset import TITLES, write_dataset
from tests.fake_models import save_model

RECIPE = """
title = "small"
[[step]]
command = "baseline"
recommender = "popularity"
data = "data"
[[step]]
command = "eval"
predictions = "@baseline"
baselines = false
"""
SFT = ["--max-steps", "3", "--eval-every", "1", "--batch-size", "4", "--metric", "none", "--valid-rows", "4"]
DECODE = ["decode", "--data", "data", "--model", "sft", "--limit", "4"]
READS = {
    "data/dataset.json": ["baseline", "popularity", "--data", "data", "--out", "new"],
    "data/items.parquet": ["baseline", "item-knn", "--data", "data", "--out", "new"],
    "data/interactions.parquet": ["baseline", "item-knn", "--data", "data", "--out", "new"],
    "data/test/data.arrow": ["baseline", "popularity", "--data", "data", "--out", "new"],
    "sft/run.json": [*DECODE, "--out", "new"],
    "sft/model/recalign.json": [*DECODE, "--out", "new"],
    "sft/model/config.json": [*DECODE, "--out", "new"],
    "sft/model/generation_config.json": [*DECODE, "--out", "new"],
    "sft/model/tokenizer.json": [*DECODE, "--out", "new"],
    "sft/model/tokenizer_config.json": [*DECODE, "--out", "new"],
    "sft/model/model.safetensors": [*DECODE, "--out", "new"],
    "half/run.json": ["sft", "--data", "data", "--model", "hub", *SFT, "--out", "half", "--resume"],
    "half/log.jsonl": ["sft", "--data", "data", "--model", "hub", *SFT, "--out", "half", "--resume"],
    "half/checkpoints/checkpoint-2/trainer_state.json": [
        "sft", "--data", "data", "--model", "hub", *SFT, "--out", "half", "--resume"
    ],
    "half/checkpoints/checkpoint-2/optimizer.pt": [
        "sft", "--data", "data", "--model", "hub", *SFT, "--out", "half", "--resume"
    ],
    "hub/chat_template.jinja": ["sft", "--data", "data", "--model", "hub", *SFT, "--out", "new"],
    "mine.jinja": ["sft", "--data", "data", "--model", "hub", "--template", "mine.jinja", *SFT, "--out", "new"],
    "base/run.json": ["eval", "base", "--data", "data", "--no-baselines", "--out", "new"],
    "base/predictions.parquet": ["eval", "base", "--data", "data", "--no-baselines", "--out", "new"],
    "base/eval/metrics.json": ["compare", "base", "--out", "new"],
    "base/eval/run.json": ["compare", "base", "--out", "new"],
    "base/eval/per_user.parquet": ["compare", "base", "--out", "new"],
    "small.toml": ["run", "small.toml", "--out", "recipe"],
    "recipe/recipe.json": ["run", "small.toml", "--out", "recipe"],
    "recipe/recipe.lock": ["run", "small.toml", "--out", "recipe"],
    "recipe/baseline/run.json": ["run", "small.toml", "--out", "recipe", "--dry-run"],
    "knn/run.json": [*DECODE, "--decoder", "d3", "-p", "assistant=knn", "--out", "new"],
    "knn/recommender/model.npz": [*DECODE, "--decoder", "d3", "-p", "assistant=knn", "--out", "new"],
}  # fmt: skip
"""A file, and a command that reads it."""


def main(*arguments):
    with pytest.raises(SystemExit) as stop:
        cli.main(list(map(str, arguments)))
    return stop.value.code or 0


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    """A dataset, trained and half-trained models, predictions, evaluations and a recipe's folder."""
    folder = tmp_path_factory.mktemp("workplace")
    before = os.getcwd()
    os.chdir(folder)
    try:
        dataset = write_dataset(folder / "data", task="next")
        events = {"user_id": ["a", "a", "b"], "item": [0, 1, 2], "timestamp": [0.0, 1.0, 2.0]}
        events |= {"rating": [None] * 3, "gain": [1.0] * 3}
        pl.DataFrame(events, schema_overrides={"rating": pl.Float64}).write_parquet("data/interactions.parquet")
        run = RunFolder(folder / "sft")
        run.begin("sft", {"seed": 0}, {})
        load_policy("builtin:tiny,hidden=16", dataset).save(run.path / "model")
        run.finish({})
        tokenizer = train_tokenizer(TITLES)
        tokenizer.chat_template = "{% for m in messages %}{{ m.content }}{% endfor %}"
        save_model(folder / "hub", tokenizer)
        (folder / "mine.jinja").write_text("{{ history | join('; ') }}")
        (folder / "small.toml").write_text(RECIPE)
        assert main("sft", "--data", "data", "--model", "hub", *SFT, "--out", "half") == 0
        shutil.rmtree("half/model")
        record = json.loads((folder / "half/run.json").read_text())
        (folder / "half/run.json").write_text(json.dumps({**record, "status": "interrupted"}))
        shutil.rmtree("half/checkpoints/checkpoint-3", ignore_errors=True)
        assert main("baseline", "popularity", "--data", "data", "--out", "base") == 0
        assert main("eval", "base", "--no-baselines") == 0
        assert main("baseline", "item-knn", "--data", "data", "--out", "knn") == 0
        assert main("run", "small.toml", "--out", "recipe") == 0
        (folder / "recipe/recipe.lock").write_text('{"pid": 1, "born": 0}')
    finally:
        os.chdir(before)
    return folder


def outcome(workplace, place, file, content, capsys):
    """The exit code of the command that reads a file with this content, in a copy of all files, and what it said."""
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(workplace, place)
    (place / file).parent.mkdir(parents=True, exist_ok=True)
    (place / file).write_bytes(content)
    before = os.getcwd()
    os.chdir(place)
    try:
        code = main(*READS[file])
    finally:
        os.chdir(before)
    return code, capsys.readouterr().err


SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**70), 2**70), st.floats(allow_nan=False), st.text(max_size=5)
)
JSON = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3)
)


def places(value, here=()):
    """Paths to all values inside a value."""
    yield here
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in children:
        yield from places(child, (*here, key))


def replaced(value, path, new):
    """A copy of a value with another one at a path; without it where `new` is `DROP`."""
    if not path:
        return new
    made = value.copy()
    if len(path) == 1 and new is DROP:
        del made[path[0]]
    else:
        made[path[0]] = replaced(value[path[0]], path[1:], new)
    return made


DROP = object()


@st.composite
def mutated(draw, workplace):
    """A file and what it holds instead: other bytes, a cut, or, of JSON, another value somewhere in it."""
    file = draw(st.sampled_from(sorted(READS)))
    whole = (workplace / file).read_bytes() if (workplace / file).is_file() else b"{{ history }}"
    if file.endswith(".json") and draw(st.integers(0, 3)):
        value = json.loads(whole)
        for _ in range(draw(st.integers(1, 2))):
            path = draw(st.sampled_from(list(places(value))[:200]))
            value = replaced(value, path, draw(JSON | st.just(DROP)) if path else draw(JSON))
        return file, json.dumps(value).encode()
    kind = draw(st.integers(0, 3))
    if kind == 0:
        return file, whole[: draw(st.integers(0, len(whole)))]
    if kind == 1:
        return file, draw(st.binary(max_size=40))
    content = bytearray(whole)
    for _ in range(draw(st.integers(1, 4))):
        if content:
            content[draw(st.integers(0, len(content) - 1))] = draw(st.integers(0, 255))
    return file, bytes(content)


@settings(
    max_examples=int(os.environ.get("MUTATIONS", "40")),
    deadline=None,
    derandomize="MUTATIONS" not in os.environ,
    suppress_health_check=list(HealthCheck),
)
@given(data=st.data())
def test_no_mutated_file_is_a_fault_of_recalign(workplace, tmp_path, capsys, data):
    file, content = data.draw(mutated(workplace))
    code, told = outcome(workplace, tmp_path / "copy", file, content, capsys)
    assert code in (0, 2), (file, content[:300], told[-3000:])
    assert "Traceback" not in told
