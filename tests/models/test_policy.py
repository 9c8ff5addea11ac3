"""Loading, saving, adapters, export; what is broken is told apart."""

import datetime
import json
import shutil
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM
from transformers.utils import chat_template_utils

from recalign.data.dataset import PreparedDataset
from recalign.errors import UserError
from recalign.models.export import export_model
from recalign.models.lora import LoraOptions
from recalign.models.policy import load_policy, reference_policy
from recalign.models.weights import quieten_libraries
from recalign.preparation.pipeline import prepare_dataset
from recalign.workspace import RunFolder
from tests.fake_dataset import TITLES, write_dataset
from tests.fake_models import byte_level_tokenizer, save_model, sentencepiece_tokenizer

LORA = LoraOptions(rank=2, alpha=4, target=("q_proj", "v_proj"))


@pytest.fixture
def dataset(tmp_path):
    return write_dataset(tmp_path / "data")


@pytest.fixture
def downloaded(tmp_path):
    return save_model(tmp_path / "hub", byte_level_tokenizer(TITLES))


def logits(policy, row):
    prompt = torch.as_tensor(policy.prompter.encode(row))[None]
    with torch.no_grad():
        return policy.model.eval()(input_ids=prompt).logits


def one_update(policy, row, rate=0.5):
    """A large step on everything that is trained."""
    tokens = torch.as_tensor(np.concatenate([policy.prompter.encode(row), policy.titles.response(row.targets[:3])]))[
        None
    ]
    trained = [parameter for parameter in policy.model.parameters() if parameter.requires_grad]
    policy.model(input_ids=tokens, labels=tokens).loss.backward()
    torch.optim.SGD(trained, rate).step()


# ---------------------------------------------------------------- built-in


def test_builtin_matrices_have_a_standard_deviation_of_one_over_the_root_of_fan_in(dataset):
    model = load_policy("builtin:tiny,hidden=256,layers=1", dataset).model
    assert model.model.layers[0].self_attn.q_proj.weight.std().item() == pytest.approx(1 / 16, rel=0.02)
    assert model.model.layers[0].mlp.down_proj.weight.std().item() == pytest.approx(1 / 512**0.5, rel=0.02)


def test_builtin_weights_follow_from_the_seed(dataset):
    row = dataset.rows("train")[0]
    first, again, other = (logits(load_policy("builtin:tiny", dataset, seed=seed), row) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.allclose(first, other)


def test_builtin_options_set_the_size(dataset):
    config = load_policy("builtin:tiny,hidden=32,layers=3,heads=2,feed_forward=40,tied=false", dataset).model.config
    assert (config.hidden_size, config.num_hidden_layers, config.intermediate_size) == (32, 3, 40)
    assert not config.tie_word_embeddings


@pytest.mark.parametrize(
    ("name", "word"),
    [
        ("builtin:tyni", "builtin:tiny"),
        ("builtin:tiny,hiden=32", "hidden"),
        ("builtin:tiny,hidden=big", "hidden"),
        ("builtin:tiny,hidden=30", "heads"),
        ("builtin:tiny,tokenizer=chars", "tokenizer"),
    ],
)
def test_a_wrong_builtin_name_is_refused(dataset, name, word):
    with pytest.raises(UserError, match=word):
        load_policy(name, dataset)


def test_an_adapter_on_random_weights_is_refused(dataset):
    with pytest.raises(UserError, match="--lora"):
        load_policy("builtin:tiny", dataset, lora=LORA)


@pytest.mark.parametrize(("chosen", "expected"), [(None, 1), ("2", 2)])
def test_a_small_model_computes_in_one_thread_unless_the_user_chose(dataset, monkeypatch, chosen, expected):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if chosen is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", chosen)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    load_policy("builtin:tiny", dataset)
    after = torch.get_num_threads()
    torch.set_num_threads(before)
    assert after == expected


# ---------------------------------------------------------------- saving and loading


@pytest.mark.parametrize("identifier", ["title", "atomic"])
@pytest.mark.parametrize("name", ["builtin:tiny", "builtin:tiny,tokenizer=bpe,tied=false", "downloaded"])
def test_a_saved_policy_loads_as_it_was(tmp_path, downloaded, name, identifier):
    dataset = write_dataset(tmp_path / "other", identifier=identifier)
    policy = load_policy(downloaded if name == "downloaded" else name, dataset, max_length=400)
    policy.save(tmp_path / "run" / "model")
    loaded = load_policy(tmp_path / "run", dataset)
    row = dataset.rows("train")[0]
    assert torch.equal(logits(policy, row), logits(loaded, row))
    assert loaded.settings == policy.settings
    assert not list((tmp_path / "run").glob(".*"))


def test_a_users_template_is_saved_with_the_model(tmp_path, dataset, downloaded):
    file = tmp_path / "mine.jinja"
    file.write_text("{{ history | join(', ') }} then ")
    policy = load_policy(downloaded, dataset, template=file)
    policy.save(tmp_path / "saved")
    row = dataset.rows("train")[0]
    before = policy.prompter.encode(row)
    file.unlink()
    assert load_policy(tmp_path / "saved", dataset).prompter.encode(row).tolist() == before.tolist()


def test_default_templates_follow_the_tokenizer(tmp_path, dataset, downloaded):
    chat = save_model(tmp_path / "chat", byte_level_tokenizer(TITLES, chat=True))
    names = [load_policy(name, dataset).prompter.template.name for name in ("builtin:tiny", downloaded, chat)]
    assert names == ["compact", "alpaca", "chat"]


@pytest.mark.parametrize("tied", [False, True])
def test_new_item_tokens_start_at_the_mean_embedding(tmp_path, tied):
    dataset = write_dataset(tmp_path / "data", identifier="atomic")
    folder = save_model(tmp_path / "hub", sentencepiece_tokenizer(TITLES), tied=tied)
    before = AutoModelForCausalLM.from_pretrained(folder)
    policy = load_policy(folder, dataset)
    known = len(policy.tokenizer) - len(TITLES)
    new = [int(path[0]) for path in policy.titles.paths]
    for old, layer in (
        (before.get_input_embeddings(), policy.model.get_input_embeddings()),
        (before.get_output_embeddings(), policy.model.get_output_embeddings()),
    ):
        assert torch.allclose(layer.weight[new], old.weight[:known].mean(dim=0).expand(len(new), -1), atol=1e-6)
        assert torch.equal(layer.weight[:known], old.weight[:known])


def test_long_prompts_lose_their_oldest_items_to_fit_the_context(tmp_path, dataset):
    folder = save_model(tmp_path / "hub", sentencepiece_tokenizer(TITLES), context=24)
    policy = load_policy(folder, dataset, template="compact")
    row = dataset.rows("train")[0]
    assert len(policy.prompter.encode(row)) <= 24 - policy.titles.longest_response(3)
    assert policy.prompter.truncated == 1
    with pytest.raises(UserError, match="--max-length"):
        load_policy(folder, dataset, template="compact", max_length=8)


# ---------------------------------------------------------------- adapters and export


@pytest.mark.parametrize("identifier", ["title", "atomic"])
@pytest.mark.parametrize(("family", "tied"), [("llama", False), ("qwen2", True)])
def test_a_merged_export_computes_what_the_adapter_computes(tmp_path, family, tied, identifier):
    dataset = write_dataset(tmp_path / "data", identifier=identifier)
    folder = save_model(tmp_path / "hub", byte_level_tokenizer(TITLES), family=family, tied=tied)
    policy = load_policy(folder, dataset, lora=LORA, trainable=True)
    row = dataset.rows("train")[0]
    untrained = logits(policy, row)
    one_update(policy, row)
    policy.save(tmp_path / "run" / "model")
    adapted = logits(policy, row)
    assert not torch.allclose(adapted, untrained)
    loaded = load_policy(tmp_path / "run", dataset)
    assert isinstance(loaded.model, PeftModel)
    assert torch.allclose(logits(loaded, row), adapted, atol=1e-6)

    export_model(str(tmp_path / "run"), tmp_path / "exported")
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "exported")
    prompt = torch.as_tensor(policy.prompter.encode(row))[None]
    assert torch.allclose(plain.eval()(input_ids=prompt).logits, adapted, atol=1e-5)
    again = load_policy(tmp_path / "exported", dataset)
    assert not isinstance(again.model, PeftModel)
    assert again.titles.fingerprint == policy.titles.fingerprint


def test_an_adapter_trains_itself_and_the_new_tokens_alone(tmp_path, downloaded):
    dataset = write_dataset(tmp_path / "data", identifier="atomic")
    policy = load_policy(downloaded, dataset, lora=LORA, trainable=True)
    trained = {
        name.split(".default")[0].rsplit(".", 1)[-1] for name, p in policy.model.named_parameters() if p.requires_grad
    }
    assert trained == {"lora_A", "lora_B", "trainable_tokens_delta"}


def test_a_new_adapter_follows_from_the_seed(dataset, downloaded):
    starts = [
        load_policy(downloaded, dataset, lora=LoraOptions(rank=2), seed=seed, trainable=True) for seed in (0, 0, 1)
    ]
    first, again, other = (
        torch.cat([value.flatten() for name, value in start.model.named_parameters() if "lora_A" in name])
        for start in starts
    )
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_an_adapter_does_not_store_the_base_models_embeddings(tmp_path, downloaded):
    dataset = write_dataset(tmp_path / "data", identifier="atomic")
    policy = load_policy(downloaded, dataset, lora=LORA, trainable=True)
    policy.save(tmp_path / "saved")
    from safetensors import safe_open

    with safe_open(tmp_path / "saved" / "adapter_model.safetensors", "pt") as file:
        largest = max(len(file.get_tensor(name)) for name in file.keys())  # noqa: SIM118
    assert largest < len(policy.tokenizer)


def test_the_reference_is_the_policy_before_training(tmp_path, dataset, downloaded):
    row = dataset.rows("train")[0]
    lora_run = tmp_path / "adapted"
    first = load_policy(downloaded, dataset, lora=LORA, trainable=True)
    one_update(first, row)
    first.save(lora_run)
    starts = {
        "full": load_policy(downloaded, dataset, trainable=True),
        "new adapter": load_policy(downloaded, dataset, lora=LORA, trainable=True),
        "adapter trained further": load_policy(lora_run, dataset, trainable=True),
    }
    prompt = torch.as_tensor(first.prompter.encode(row))[None]
    for name, policy in starts.items():
        before = logits(policy, row)
        reference = reference_policy(policy)
        one_update(policy, row)
        with torch.no_grad(), reference() as model:
            assert torch.allclose(model(input_ids=prompt).logits, before, atol=1e-6), name
        assert not torch.allclose(logits(policy, row), before, atol=1e-3), name
    policy = starts["adapter trained further"]
    policy.save(tmp_path / "again")
    assert torch.allclose(logits(load_policy(tmp_path / "again", dataset), row), logits(policy, row), atol=1e-6)


def test_lora_on_unknown_layers_names_the_known_ones(dataset, downloaded):
    with pytest.raises(UserError, match="q_proj"):
        load_policy(downloaded, dataset, lora=LoraOptions(target=("query",)), trainable=True)


def test_lora_on_an_adapter_trains_it_further_and_another_one_is_refused(tmp_path, dataset, downloaded):
    row = dataset.rows("train")[0]
    first = load_policy(downloaded, dataset, lora=LORA, trainable=True)
    one_update(first, row)
    first.save(tmp_path / "adapted")
    again = load_policy(tmp_path / "adapted", dataset, lora=LORA, trainable=True)
    assert torch.allclose(logits(again, row), logits(first, row), atol=1e-6)
    assert len(again.model.peft_config) == 2  # the adapter and its frozen copy
    other = replace(LORA, rank=LORA.rank + 1, alpha=7.5)
    with pytest.raises(UserError, match=f"rank {LORA.rank} and not {LORA.rank + 1} and alpha .* not 7.5") as caught:
        load_policy(tmp_path / "adapted", dataset, lora=other, trainable=True)
    assert "recalign export" in caught.value.hint
    with pytest.raises(UserError, match="layers q_proj, v_proj and not k_proj"):
        load_policy(tmp_path / "adapted", dataset, lora=replace(LORA, target=("k_proj",)), trainable=True)


def test_a_builtin_name_cannot_be_exported(tmp_path):
    with pytest.raises(UserError, match="not trained"):
        export_model("builtin:tiny", tmp_path / "out")


# ---------------------------------------------------------------- what is broken


def test_another_catalogue_is_refused(tmp_path, dataset):
    load_policy("builtin:tiny", dataset).save(tmp_path / "saved")
    other = write_dataset(tmp_path / "other", titles=[*TITLES[1:], TITLES[0]])
    with pytest.raises(UserError, match="another catalogue"):
        load_policy(tmp_path / "saved", other)


def test_another_preparation_of_the_same_items_is_warned_of(tmp_path, capsys):
    synthetic = {"params": {"users": 40, "items": 30}}
    for fold in (1, 2):
        options = {"split": "user", "folds": 4, "fold": fold}
        prepare_dataset("synthetic", None, tmp_path / f"fold{fold}", options=options, **synthetic)
    one, two = (PreparedDataset(tmp_path / f"fold{fold}") for fold in (1, 2))
    load_policy("builtin:tiny", one).save(tmp_path / "saved")
    load_policy(tmp_path / "saved", one)
    assert "trained on rows that are held out here" not in capsys.readouterr().err
    options = {"split": "user", "folds": 4, "fold": 1, "history": 5}
    prepare_dataset("synthetic", None, tmp_path / "short", options=options, **synthetic)
    load_policy(tmp_path / "saved", PreparedDataset(tmp_path / "short"))  # the same rows, less of them is shown
    assert "trained on rows that are held out here" not in capsys.readouterr().err
    load_policy(tmp_path / "saved", two)
    assert "trained on rows that are held out here" in capsys.readouterr().err


def test_libraries_do_not_tell_users_of_their_own_renamings():
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        quieten_libraries()
        for module in ("transformers.modeling_utils", "recalign.x"):
            warnings.warn_explicit(f"from {module}", FutureWarning, "x.py", 1, module=module)
    assert [str(warning.message) for warning in told] == ["from recalign.x"]


def test_another_identifier_is_refused(tmp_path, dataset):
    load_policy("builtin:tiny", dataset).save(tmp_path / "saved")
    with pytest.raises(UserError, match="'title'.*'atomic'"):
        load_policy(tmp_path / "saved", write_dataset(tmp_path / "other", identifier="atomic"))


def test_a_changed_tokenizer_is_refused(tmp_path, dataset):
    load_policy("builtin:tiny", dataset).save(tmp_path / "saved")
    byte_level_tokenizer(TITLES).save_pretrained(tmp_path / "saved")
    with pytest.raises(UserError, match="other tokens"):
        load_policy(tmp_path / "saved", dataset)


def test_a_folder_without_tokenizer_is_refused(dataset, downloaded):
    for file in downloaded.glob("tokenizer*"):
        file.unlink()
    with pytest.raises(UserError, match="no tokenizer"):
        load_policy(downloaded, dataset)


def test_a_missing_folder_is_refused(tmp_path, dataset):
    with pytest.raises(UserError, match="does not exist"):
        load_policy(tmp_path / "nothing", dataset)


@pytest.mark.parametrize("name", ["no-such-organisation/no-such-model", "no-such-model"])
def test_an_unreachable_hub_name_is_refused(dataset, monkeypatch, name):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match="cannot be loaded from the hub") as error:
        load_policy(name, dataset)
    assert "no folder of this name" in error.value.hint


def test_an_unfinished_run_is_refused(tmp_path, dataset):
    RunFolder(tmp_path / "run").begin("sft", {}, {})
    with pytest.raises(UserError, match="`recalign sft` is unfinished: go on with --resume"):
        load_policy(tmp_path / "run", dataset)


@pytest.mark.parametrize("damage", ["missing", "cut off", "pickled", "fewer layers", "broken config"])
def test_half_written_weights_are_refused(dataset, downloaded, damage):
    weights = downloaded / "model.safetensors"
    if damage == "missing":
        weights.unlink()
    elif damage == "cut off":
        weights.write_bytes(weights.read_bytes()[:5000])
    elif damage == "pickled":
        shutil.move(weights, downloaded / "pytorch_model.bin")
    elif damage == "fewer layers":
        config = json.loads((downloaded / "config.json").read_text())
        config["num_hidden_layers"] = 3
        config.pop("layer_types", None)
        (downloaded / "config.json").write_text(json.dumps(config))
    else:
        (downloaded / "config.json").write_text("{")
    with pytest.raises(UserError):
        load_policy(downloaded, dataset)


# ---------------------------------------------------------------- what templates are told


@pytest.fixture
def chatty(tmp_path, monkeypatch):
    """A downloaded model whose chat template asks for the date and thinks; `chatty(day)` sets the clock."""
    tokenizer = byte_level_tokenizer(TITLES)
    tokenizer.chat_template = (
        "{{ strftime_now('%d %b %Y') }}{{ messages[0].content }}{% if not quiet %}<think>{% endif %}{{ tone }}:"
    )
    folder = save_model(tmp_path / "chatty", tokenizer)

    def on(day):
        class Clock(datetime.datetime):
            @classmethod
            def now(cls, *_):
                return cls(2025, 1, day)

        monkeypatch.setattr(chat_template_utils, "datetime", Clock)
        return folder

    return on


def prompt_text(policy, dataset):
    return policy.tokenizer.decode(policy.prompter.encode(dataset.rows("train")[0]))


def test_prompts_are_the_same_on_another_day_and_say_what_was_recorded(tmp_path, dataset, chatty):
    policy = load_policy(chatty(1), dataset)
    assert prompt_text(policy, dataset) == prompt_text(load_policy(chatty(2), dataset), dataset)
    policy.save(tmp_path / "run" / "model")
    recorded = tmp_path / "run" / "model" / "recalign.json"
    settings = json.loads(recorded.read_text())
    assert settings["template_date"] == "2024-07-26"
    assert prompt_text(load_policy(tmp_path / "run", dataset), dataset) == prompt_text(policy, dataset)
    recorded.write_text(json.dumps({**settings, "template_date": "2025-03-04"}))  # what was recorded is what holds
    assert prompt_text(load_policy(tmp_path / "run", dataset), dataset).startswith("04 Mar 2025")
    export_model(str(tmp_path / "run"), tmp_path / "exported")
    assert prompt_text(load_policy(tmp_path / "exported", dataset), dataset).startswith("04 Mar 2025")


def test_no_date_is_recorded_where_none_is_asked_for(dataset, downloaded):
    assert load_policy(downloaded, dataset).settings["template_date"] is None


def test_template_variables_are_kept_with_the_model_and_may_be_changed(tmp_path, dataset, chatty):
    given = {"quiet": True, "tone": "dry"}
    load_policy(chatty(1), dataset, template_vars=given).save(tmp_path / "saved")
    kept = load_policy(tmp_path / "saved", dataset)
    assert kept.settings["template_variables"] == given
    assert prompt_text(kept, dataset).endswith("one a line.dry:")
    changed = load_policy(tmp_path / "saved", dataset, template_vars={"tone": "warm"})
    assert prompt_text(changed, dataset).endswith("one a line.warm:")
    other = load_policy(tmp_path / "saved", dataset, template="alpaca")  # which reads none of them
    assert other.settings["template_variables"] == {}


def test_a_recorded_date_that_is_none_is_refused(tmp_path, dataset, chatty):
    load_policy(chatty(1), dataset).save(tmp_path / "saved")
    file = tmp_path / "saved" / "recalign.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "template_date": "yesterday"}))
    with pytest.raises(UserError, match="'yesterday'"):
        load_policy(tmp_path / "saved", dataset)
