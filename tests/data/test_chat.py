"""Chat templates: what transformers renders, whatever the day; variables; templates that fail."""

import datetime

import pytest
from transformers.utils import chat_template_utils

from recalign.data.chat import DATE, ChatTemplate, open_thinking_block, parse_variables
from recalign.errors import UserError
from tests import fake_models
from tests.fake_dataset import TITLES

CHATML = (
    "{%- if messages[0]['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}"
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] | trim }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
THINKING = CHATML + (
    "{% if enable_thinking is defined and enable_thinking is false %}<think>\n\n</think>\n\n"
    "{% else %}<think>\n{% endif %}"
)
DATED = (
    "{{ bos_token }}{% if not date_string is defined %}{% if strftime_now is defined %}"
    "{% set date_string = strftime_now('%d %b %Y') %}{% endif %}{% endif %}Today Date: {{ date_string }}\n"
    "{% set ns = namespace(last='') %}{% for message in messages %}{% if loop.first %}{% set ns.last = message.role %}"
    "{% endif %}{% generation %}{{ message | tojson }}{% endgeneration %}{% if false %}{% continue %}{% endif %}"
    "{% endfor %}{{ ns.last }}"
)


def tokenizer_with(template):
    tokenizer = fake_models.byte_level_tokenizer(TITLES)
    tokenizer.bos_token = "<end>"
    tokenizer.chat_template = template
    return tokenizer


def on(monkeypatch, *day):
    """Let transformers believe that it is another day."""

    class Clock(datetime.datetime):
        @classmethod
        def now(cls, *_):
            return cls(*day, 23, 59, 58)

    monkeypatch.setattr(chat_template_utils, "datetime", Clock)


@pytest.mark.parametrize("template", [fake_models.CHAT_TEMPLATE, CHATML, THINKING, DATED])
@pytest.mark.parametrize("variables", [{}, {"enable_thinking": False, "date_string": "1 Jan"}])
def test_a_turn_reads_as_transformers_renders_it(monkeypatch, template, variables):
    on(monkeypatch, DATE.year, DATE.month, DATE.day)
    tokenizer = tokenizer_with(template)
    turn = [{"role": "user", "content": 'A "title" é {{ 7 * 7 }}\n'}]
    theirs = tokenizer.apply_chat_template(turn, add_generation_prompt=True, tokenize=False, **variables)
    assert ChatTemplate(tokenizer, variables).render(turn[0]["content"]) == theirs


def test_the_date_is_not_that_of_the_clock(monkeypatch):
    tokenizer = tokenizer_with(DATED)
    texts, theirs = [], []
    for day in ((2025, 1, 1), (2026, 2, 3)):
        on(monkeypatch, *day)
        texts.append(ChatTemplate(tokenizer, {}).render("Hello"))
        turn = [{"role": "user", "content": "Hello"}]
        theirs.append(tokenizer.apply_chat_template(turn, add_generation_prompt=True, tokenize=False))
    assert theirs[0] != theirs[1]
    assert texts[0] == texts[1]
    assert texts[0].startswith("<end>Today Date: 26 Jul 2024\n")
    assert "Date: 03 Feb 2026" in ChatTemplate(tokenizer, {}, datetime.date(2026, 2, 3)).render("Hello")


def test_templates_that_ask_for_the_date_and_what_they_read_are_known():
    dated, thinking = (ChatTemplate(tokenizer_with(each), {}) for each in (DATED, THINKING))
    assert (dated.asks_for_the_date, dated.reads) == (True, {"date_string"})
    assert (thinking.asks_for_the_date, thinking.reads) == (False, {"enable_thinking"})


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("{{ raise_exception('Only tools are welcome.') }}", "Only tools are welcome."),
        ("{{ messages[1].content }}", "no element 1"),
        ("{{ messages[0].content + 1 }}", "can only concatenate"),
        ("fine\n{% if %}", "line 2"),
        ("{{ [1, 2] | random }}", "draws at random"),
        ("{{ ['ab', 'cd'] | map('random') | join }}", "draws at random"),
        ("{{ lipsum() }}", "draws at random"),
        ("{{ now() }}", "'now' is undefined"),
        ("{{ messages.append(1) }}", "unsafe"),
    ],
)
def test_a_chat_template_that_fails_is_refused_with_what_it_said(template, said):
    with pytest.raises(UserError) as error:
        ChatTemplate(tokenizer_with(template), {}).render("Hello")
    assert error.value.what.startswith("The model's chat template")
    assert said in error.value.what
    assert "--template alpaca" in error.value.hint


def test_several_chat_templates_without_a_default_are_refused():
    with pytest.raises(UserError, match="chat template"):
        ChatTemplate(tokenizer_with({"tool_use": "x", "rag": "y"}), {})


# ------------------------------------------------------------ variables


def test_variables_are_truth_values_numbers_or_text():
    typed = ["a=true", "b=false", "c=3", "d=-0.5", "e=low", 'f="2024"', "g=", "h=x=y", "i=null", "j=[1]", "k=True"]
    expected = dict(a=True, b=False, c=3, d=-0.5, e="low", f="2024", g="", h="x=y", i="null", j="[1]", k="True")
    read = parse_variables([*typed, "l=NaN", "m=1e999"])
    assert read == {**expected, "l": "NaN", "m": "1e999"}
    assert [type(read[name]) for name in "abcd"] == [bool, bool, int, float]


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        (["thinking"], "'thinking' is not of the form name=value"),
        (["=1"], "name=value"),
        (["enable-thinking=1"], "name=value"),
        (["messages=1"], "set by recalign itself"),
        (["a=1", "a=2"], "given twice"),
    ],
)
def test_what_is_no_variable_is_refused(typed, said):
    with pytest.raises(UserError) as error:
        parse_variables(typed)
    assert said in str(error.value)


# ------------------------------------------------------------ thinking


@pytest.mark.parametrize(
    ("text", "tag"),
    [
        ("<|im_start|>assistant\n<think>\n", "<think>"),
        ("<think>\n\n</think>\n\n", None),
        ("</think> and <think>", "<think>"),
        ("a <thinker> of thinking", None),
        ("[THINK]", "[THINK]"),
        ("<seed:think>", "<seed:think>"),
        ("<reasoning>x</reasoning>", None),
    ],
)
def test_a_thinking_block_is_open_until_it_is_closed(text, tag):
    assert open_thinking_block(text) == tag
