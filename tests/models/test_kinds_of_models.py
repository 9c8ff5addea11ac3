"""What pretrained models do differently: each kind writes valid lists, learns its answers alone, is saved as it is."""

import json

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast

from recalign.decoding.engine import PolicyEngine
from recalign.models.policy import load_policy
from recalign.training.offline.examples import IGNORED, AnswerExamples, collate
from tests.fake_dataset import TITLES, write_dataset
from tests.fake_models import byte_level_tokenizer, save_model, sentencepiece_tokenizer

NO_SYSTEM = (
    "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
    "<|user|>{{ m.content }}<end>{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
DEFAULT_SYSTEM = "{% if messages[0].role != 'system' %}You are kind.<end>{% endif %}" + NO_SYSTEM
THINKING = NO_SYSTEM + "{% if enable_thinking is defined and not enable_thinking %}<think></think>{% endif %}"


def ending(tokenizer, *, begins=None):
    """The same tokenizer, which puts its end token (and `begins` before) around every text."""
    record = json.loads(tokenizer.backend_tokenizer.to_str())
    ids = {token: tokenizer.convert_tokens_to_ids(token) for token in (tokenizer.eos_token, begins) if token}
    special = [{"SpecialToken": {"id": token, "type_id": 0}} for token in ids]
    own = {"Sequence": {"id": "A", "type_id": 0}}
    record["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [*special[1:], own, special[0]],
        "pair": [own, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {token: {"id": token, "ids": [ids[token]], "tokens": [token]} for token in ids},
    }
    backend = Tokenizer.from_str(json.dumps(record))
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, eos_token=tokenizer.eos_token, bos_token=begins or tokenizer.bos_token
    )


def padded_with_end(tokenizer):
    tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def with_template(template):
    tokenizer = byte_level_tokenizer([*TITLES, "<think></think>"])
    tokenizer.chat_template = template
    return tokenizer


KINDS = {
    "pad is the end token": lambda: padded_with_end(byte_level_tokenizer(TITLES, chat=True)),
    "begins every text": lambda: sentencepiece_tokenizer(TITLES),  # and every word with a space
    "ends every text": lambda: ending(byte_level_tokenizer(TITLES)),
    "begins and ends every text": lambda: ending(byte_level_tokenizer(TITLES), begins="<|user|>"),
    "no system role": lambda: with_template(NO_SYSTEM),
    "a system turn of its own": lambda: with_template(DEFAULT_SYSTEM),
    "a thinking block": lambda: with_template(THINKING),
}


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


@pytest.fixture(params=["tied", "title", "atomic"])
def loaded(request, kind, tmp_path):
    """A policy on titles or on added tokens, with tied embeddings or not; its table is wider than its tokenizer."""
    dataset = write_dataset(tmp_path / "data", identifier="atomic" if request.param == "atomic" else "title")
    folder = save_model(tmp_path / "hub", KINDS[kind](), tied=request.param == "tied", context=2048)
    variables = {"enable_thinking": False} if kind == "a thinking block" else {}
    policy = load_policy(folder, dataset, template_vars=variables, trainable=True)
    return policy, dataset


def test_prompts_begin_once_and_do_not_end(kind, loaded):
    policy, dataset = loaded
    prompt = policy.prompter.encode(dataset.rows("train")[0]).tolist()
    tokenizer = policy.tokenizer
    assert prompt[-1] != tokenizer.eos_token_id
    if kind in ("begins every text", "begins and ends every text"):
        assert prompt[0] == tokenizer.bos_token_id
        assert prompt.count(tokenizer.bos_token_id) == 1
    if kind == "a thinking block":
        assert tokenizer.decode(prompt).endswith("<think></think>")


def test_the_answers_tokens_and_their_end_are_learnt_and_no_padding(loaded):
    policy, dataset = loaded
    rows = list(dataset.rows("train")[:4])
    examples = AnswerExamples(policy, rows, policy.prompter.list_length)
    batch = collate([examples[0, index] for index in range(4)], pad=policy.titles.end, all_tokens=False)
    for labels, row in zip(batch.labels, rows, strict=True):
        expected = policy.titles.response(row.targets[: policy.prompter.list_length])
        assert labels[labels != IGNORED].tolist() == expected.tolist()
        assert labels[labels != IGNORED][-1] == policy.tokenizer.eos_token_id


def test_decoded_lists_hold_titles_alone(loaded):
    policy, dataset = loaded
    engine = PolicyEngine(policy, dataset.catalogue, exclude_history=True)
    rows = list(dataset.rows("test")[:3])
    lists = engine.greedy(rows, list_length=3)
    items = np.asarray(lists.items)
    assert (items >= 0).all()
    for row, own in zip(rows, items.reshape(len(rows), -1), strict=True):
        assert not set(own) & set(row.consumed.tolist())
    sampled = engine.sample(rows, group_size=2, list_length=2)
    assert (np.asarray(sampled.items) >= 0).all()


def test_it_is_saved_as_an_ordinary_folder_and_loads_as_it_was(loaded, tmp_path):
    policy, dataset = loaded
    tokens = torch.as_tensor(policy.prompter.encode(dataset.rows("train")[0]))[None]
    out = policy.model(input_ids=tokens, labels=tokens)
    out.loss.backward()
    trained = [parameter for parameter in policy.model.parameters() if parameter.requires_grad]
    torch.optim.SGD(trained, 0.1).step()
    policy.save(tmp_path / "run" / "model")
    with torch.no_grad():
        expected = policy.model.eval()(input_ids=tokens).logits
        plain = AutoModelForCausalLM.from_pretrained(tmp_path / "run" / "model")
        assert torch.equal(plain(input_ids=tokens).logits, expected)
    assert plain.config.vocab_size == expected.shape[2] >= len(policy.tokenizer)
    tied = policy.model.config.tie_word_embeddings
    one = plain.get_input_embeddings().weight.data_ptr() == plain.get_output_embeddings().weight.data_ptr()
    assert one == tied
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "run" / "model")
    assert tokenizer.pad_token_id == policy.tokenizer.pad_token_id
    again = load_policy(tmp_path / "run", dataset)
    row = dataset.rows("test")[0]
    assert again.prompter.encode(row).tolist() == policy.prompter.encode(row).tolist()
    assert [path.tolist() for path in again.titles.paths] == [path.tolist() for path in policy.titles.paths]
