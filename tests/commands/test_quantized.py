"""An adapter on quantised weights, from training to lists."""

import importlib.util
import json

import pytest

from recalign.cli import main
from tests.fake_dataset import TITLES, write_dataset
from tests.fake_models import byte_level_tokenizer, save_model

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("bitsandbytes") is None, reason="bitsandbytes is not installed (pip install bitsandbytes)"
)


def test_an_adapter_is_trained_aligned_decoded_and_merged(tmp_path, capsys):
    write_dataset(tmp_path / "data")
    save_model(tmp_path / "hub", byte_level_tokenizer(TITLES), hidden=64, context=1024)

    def call(command, *options):
        with pytest.raises(SystemExit) as stop:
            main([command, *map(str, options), "--json"])
        told = capsys.readouterr()
        assert not stop.value.code, told.err
        return json.loads(told.out)

    given = ["--data", tmp_path / "data"]
    short = ["--max-steps", 2, "--gradient-checkpointing", "--token-budget", 2000]
    lora = ["--lora", "--lora-rank", 2, "--batch-size", 4]
    sft, align = tmp_path / "sft", tmp_path / "align"
    call("sft", *given, "--model", tmp_path / "hub", *lora, "--load-in-4bit", *short, "--out", sft)
    assert json.loads((sft / "model" / "recalign.json").read_text())["quantization"] == "4bit"
    few = ["--objective", "grpo", "-p", "group_size=2", "--prompts-per-step", 2, "--no-report"]
    call("align", *given, "--model", sft, *few, *short, "--out", align)
    assert json.loads((align / "model" / "recalign.json").read_text())["quantization"] == "4bit"
    assert call("decode", *given, "--model", align, "--limit", 2, "--out", tmp_path / "lists")["rows"] == 2
    call("export", "--model", align, "--out", tmp_path / "whole")
    assert "quantization_config" not in json.loads((tmp_path / "whole" / "config.json").read_text())
    assert (tmp_path / "whole" / "model.safetensors").is_file()
