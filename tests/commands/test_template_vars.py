"""`--template-var`: typed, refused where nothing reads it, kept with the model, in recipes too."""

import datetime
import json

import polars as pl
import pytest
from transformers.utils import chat_template_utils

from recalign.workflow.plan import plan
from recalign.workflow.recipe import load_recipe
from tests.fake_dataset import TITLES, write_dataset
from tests.fake_models import byte_level_tokenizer, save_model

TEMPLATE = (
    "{{ strftime_now('%d %B %Y') }} {{ messages[0].content }}{% if add_generation_prompt %}\nAnswer: <think>"
    "{% if enable_thinking is false %}</think>{% endif %}{% endif %}"
)


@pytest.fixture
def data(tmp_path):
    return write_dataset(tmp_path / "data").path


@pytest.fixture
def model(tmp_path):
    tokenizer = byte_level_tokenizer(TITLES)
    tokenizer.chat_template = TEMPLATE
    return save_model(tmp_path / "hub", tokenizer)


def on_day(monkeypatch, day):
    class Clock(datetime.datetime):
        @classmethod
        def now(cls, *_):
            return cls(2025, day, day)

    monkeypatch.setattr(chat_template_utils, "datetime", Clock)


def test_two_decodings_on_two_days_are_the_same(call, monkeypatch, data, model, tmp_path):
    for day in (1, 2):
        on_day(monkeypatch, day)
        assert call("decode", "--data", data, "--model", model, "--out", tmp_path / str(day))[0] == 0
    one, two = (pl.read_parquet(tmp_path / name / "predictions.parquet") for name in "12")
    assert one["scores"].to_list() == two["scores"].to_list() and one.equals(two)


def test_a_run_that_goes_on_the_next_day_sees_the_same_prompts(call, monkeypatch, data, model, tmp_path):
    variables = ["--template-var", "enable_thinking=false"]
    arguments = ["--data", data, "--model", model, "--epochs", "1", *variables, "--out", tmp_path / "sft"]
    on_day(monkeypatch, 1)
    assert call("sft", *arguments)[0] == 0
    settings = json.loads((tmp_path / "sft/model/recalign.json").read_text())
    assert settings["template_variables"] == {"enable_thinking": False}
    assert settings["template_date"] == "2024-07-26"
    on_day(monkeypatch, 2)
    align = ["--objective", "grpo", "--max-steps", "1", "--prompts-per-step", "2", "-p", "group_size=2", "--no-report"]
    code, told = call("align", "--data", data, "--model", tmp_path / "sft", *align, "--out", tmp_path / "aligned")
    assert code == 0, told
    assert "thinking block" not in told
    assert json.loads((tmp_path / "aligned/model/recalign.json").read_text())["template_variables"] == {
        "enable_thinking": False
    }


def test_an_open_thinking_block_is_warned_of_with_the_option_that_closes_it(call, data, model, tmp_path):
    arguments = ["decode", "--data", data, "--model", model]
    code, told = call(*arguments, "--out", tmp_path / "open")
    assert code == 0
    assert "open thinking block (<think>)" in told and "--template-var enable_thinking=false" in told
    code, told = call(*arguments, "--template-var", "enable_thinking=false", "--out", tmp_path / "closed")
    assert code == 0
    assert "thinking block" not in told
    assert json.loads((tmp_path / "closed/run.json").read_text())["options"]["template_vars"] == {
        "enable_thinking": False
    }


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("enable_thnking=false", "Did you mean 'enable_thinking'?"),
        ("enable_thinking", "'enable_thinking' is not of the form name=value"),
        ("history=3", "set by recalign itself"),
    ],
)
@pytest.mark.parametrize("command", ["sft", "align", "decode"])
def test_variables_that_cannot_be_are_refused(call, data, model, tmp_path, command, typed, said):
    out = tmp_path / "out"
    code, told = call(command, "--data", data, "--model", model, "--template-var", typed, "--out", out)
    assert code == 2
    assert said in told
    assert not out.exists()


def test_a_chat_template_that_raises_is_told_without_a_traceback(call, data, tmp_path):
    tokenizer = byte_level_tokenizer(TITLES)
    tokenizer.chat_template = "{{ raise_exception('A system message comes first') }}"
    model = save_model(tmp_path / "strict", tokenizer)
    code, told = call("sft", "--data", data, "--model", model, "--out", tmp_path / "out")
    assert code == 2
    assert "The model's chat template: A system message comes first." in told and "--template alpaca" in told


def test_a_recipe_states_variables_as_a_list(tmp_path):
    recipe = tmp_path / "mine.toml"
    recipe.write_text(
        '[[step]]\ncommand = "sft"\nmodel = "owner/name"\n'
        'template-var = ["enable_thinking=false", "tone=dry"]\n'
        '[[step]]\ncommand = "decode"\nmodel = "@sft"\n'
    )
    sft, _ = plan(load_recipe(str(recipe)), tmp_path / "out")
    at = sft.arguments.index("--template-var")
    assert sft.arguments[at : at + 4] == ["--template-var", "enable_thinking=false", "--template-var", "tone=dry"]
