"""`recalign export` on the command line."""

import json

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from recalign.commands.decode import _default_folder
from recalign.models.lora import LoraOptions
from recalign.models.policy import load_policy
from recalign.models.weights import model_hash
from recalign.workspace import home
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


def test_another_export_is_replaced_only_when_asked_and_the_same_one_is_kept(tmp_path, capsys):
    hub, out = save_model(tmp_path / "hub", byte_level_tokenizer(TITLES)), tmp_path / "out"
    other = save_model(tmp_path / "other", byte_level_tokenizer(TITLES), seed=1)
    assert run("export", "--model", hub, "--out", out) == 0
    before = (out / "model.safetensors").read_bytes()
    assert run("export", "--model", hub, "--out", out) == 0
    assert "holds this model already" in capsys.readouterr().err
    assert run("export", "--model", other, "--out", out) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert (out / "model.safetensors").read_bytes() == before
    assert run("export", "--model", other, "--out", out, "--overwrite") == 0
    assert (out / "model.safetensors").read_bytes() != before


def test_what_a_user_put_into_an_export_is_never_replaced(tmp_path, capsys):
    hub, out = save_model(tmp_path / "hub", byte_level_tokenizer(TITLES)), tmp_path / "out"
    assert run("export", "--model", hub, "--out", out) == 0
    (out / "README.md").write_text("my model card")
    assert run("export", "--model", hub, "--out", out, "--overwrite") == 2
    assert "README.md" in capsys.readouterr().err
    assert (out / "README.md").read_text() == "my model card"
    assert (out / "model.safetensors").exists()


def test_an_export_is_no_training_run_to_decode_into(tmp_path, monkeypatch):
    hub, out = save_model(tmp_path / "hub", byte_level_tokenizer(TITLES)), tmp_path / "out"
    assert run("export", "--model", hub, "--out", out) == 0
    assert _default_folder(str(out)) == home()
    record = json.loads((out / "run.json").read_text())
    first = model_hash(str(out))
    (out / "run.json").write_text(json.dumps({**record, "finished": 0.0}))
    assert model_hash(str(out)) == first


def test_what_is_no_exported_model_is_never_replaced(tmp_path, capsys):
    hub = save_model(tmp_path / "hub", byte_level_tokenizer(TITLES))
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.tex").write_text("mine")
    assert run("export", "--model", hub, "--out", tmp_path / "home", "--overwrite") == 2
    assert "is no run of recalign" in capsys.readouterr().err
    assert (tmp_path / "home" / "thesis.tex").read_text() == "mine"
    assert run("export", "--model", hub, "--out", hub, "--overwrite") == 2
    assert "is no run of recalign" in capsys.readouterr().err
