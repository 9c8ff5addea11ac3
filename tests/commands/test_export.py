"""`recalign export` on the command line."""

import json

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from recalign.models.lora import LoraOptions
from recalign.models.policy import load_policy
from tests.commands.test_sft import run
from tests.fake_dataset import TITLES, write_dataset
from tests.fake_models import byte_level_tokenizer, save_model


def test_an_adapter_is_exported_as_a_plain_model(tmp_path, capsys):
    dataset = write_dataset(tmp_path / "data")
    hub = save_model(tmp_path / "hub", byte_level_tokenizer(TITLES))
    policy = load_policy(hub, dataset, lora=LoraOptions(rank=2), trainable=True)
    with torch.no_grad():
        for name, parameter in policy.model.named_parameters():
            if "lora_B" in name:
                parameter.normal_()
    policy.save(tmp_path / "run" / "model")
    assert run("export", "--model", tmp_path / "run", "--out", tmp_path / "plain", "--json") == 0
    result = json.loads(capsys.readouterr().out)
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "plain")
    assert result["parameters"] == sum(parameter.numel() for parameter in plain.parameters())
    tokens = torch.tensor([[3, 5, 7]])
    expected = policy.model.eval()(input_ids=tokens).logits
    assert torch.allclose(plain.eval()(input_ids=tokens).logits, expected, atol=1e-5)
    assert AutoTokenizer.from_pretrained(tmp_path / "plain").get_vocab() == policy.tokenizer.get_vocab()


def test_what_exists_is_replaced_only_when_asked(tmp_path, capsys):
    hub = save_model(tmp_path / "hub", byte_level_tokenizer(TITLES))
    assert run("export", "--model", hub, "--out", tmp_path / "out") == 0
    (tmp_path / "out" / "old.txt").write_text("of the last export")
    assert run("export", "--model", hub, "--out", tmp_path / "out") == 2
    assert "--overwrite" in capsys.readouterr().err
    assert (tmp_path / "out" / "old.txt").exists()
    assert run("export", "--model", hub, "--out", tmp_path / "out", "--overwrite") == 0
    assert (tmp_path / "out" / "model.safetensors").exists()
    assert not (tmp_path / "out" / "old.txt").exists()


def test_what_is_no_exported_model_is_never_replaced(tmp_path, capsys):
    hub = save_model(tmp_path / "hub", byte_level_tokenizer(TITLES))
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.tex").write_text("mine")
    assert run("export", "--model", hub, "--out", tmp_path / "home", "--overwrite") == 2
    assert "is no exported model" in capsys.readouterr().err
    assert (tmp_path / "home" / "thesis.tex").read_text() == "mine"
    assert run("export", "--model", hub, "--out", hub, "--overwrite") == 2
    assert "is the model itself" in capsys.readouterr().err
