"""Hostile templates end with words; honest ones render as jinja2 renders them."""

import jinja2.sandbox
import pytest

from recalign.errors import UserError
from recalign.text import bounded_templates
from recalign.text.bounded_templates import BoundedEnvironment, render
from recalign.text.prompts import Template

GIVEN = {"history": ["Ship", "Robot"], "candidates": [], "list_length": 3, "task": "list"}


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}", "may never end"),
        ("{% for a in range(10**12) %}{% endfor %}", "too many|too big"),
        ("{% macro m(n) %}{{ m(n) }}{{ m(n) }}{% endmacro %}{{ m(1) }}", "may never end|too deeply"),
        (
            "{% macro m(n) %}{% if n %}{{ m(n - 1) }}{{ m(n - 1) }}{% endif %}{% endmacro %}{{ m(60) }}",
            "may never end|too deeply",
        ),
        ("{% for x in [1, 1] recursive %}{{ loop([1, 1]) }}{% endfor %}", "may never end|too deeply"),
        ("{{ 'a' * 10**10 }}", "more than 4,000,000 parts"),
        ("{{ 10**10 * [1] }}", "more than 4,000,000 parts"),
        ("{{ 9**(9**9) }}", "too large a number"),
        ("{% set n = namespace(x=9) %}{% for i in range(50) %}{% set n.x = n.x * n.x %}{% endfor %}", "too large a"),
        ("{% set n = namespace(x='ab') %}{% for i in range(60) %}{% set n.x = n.x ~ n.x %}{% endfor %}", "4,000,000"),
        ("{% set n = namespace(x='ab') %}{% for i in range(60) %}{% set n.x = n.x + n.x %}{% endfor %}", "4,000,000"),
        ("{% set n = namespace(x=[]) %}{% for i in range(60) %}{% set n.x = [n.x, n.x] %}{% endfor %}", "more than"),
        ("{{ '%1000000000d' % 1 }}", "pads to too many"),
        ("{{ '%*d' % (1000000000, 1) }}", "pads to too many"),
        ("{{ '{:>1000000000}'.format(1) }}", "pads to too many"),
        ("{{ 'a' | center(10**10) }}", "too many"),
        ("{{ 'a'.ljust(10**10) }}", "too many"),
        ("{{ [1] | batch(10**10, 0) | list }}", "too many"),
        ("{{ ('a' * 3000000) | replace('a', 'b' * 3000000) }}", "too long"),
        ("{{ ('a' * 3000000).replace('a', 'b' * 3000000) }}", "too long"),
        ("{% for i in range(90000) %}{{ 'a' * 1000 }}{% endfor %}", "more than 4,000,000 characters"),
        ("{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}", "nested too deeply|too many nested|parser stack"),
        ("{% if 1 %}" * 300 + "{% endif %}" * 300, "statically nested|too deeply|indentation"),
        ("x" * 1_000_001, "at most 1,000,000 are read"),
        ("{{ history | random }}", "draws at random"),
        ("{{ lipsum() }}", "draws at random"),
        ("{{ ''.__class__.__mro__ }}", "unsafe"),
    ],
)
def test_a_hostile_template_is_refused_with_words(source, said):
    with pytest.raises(UserError, match=said):
        Template("mine.jinja", source).render(**GIVEN)


HONEST = [
    "{% for title in history %}{{ loop.index }}/{{ loop.length }} {{ title }}{{ ', ' if not loop.last }}{% endfor %}",
    "{{ history | map('upper') | join('; ') }}{{ history[-1:] }}{{ {'a': 1}['a'] }}{{ (1, 2) }}",
    "{% set n = namespace(k=0) %}{% for t in history %}{% set n.k = n.k + loop.index0 * 2 %}{% endfor %}{{ n.k }}",
    "{% macro show(t) %}<{{ t }}>{% endmacro %}{% for t in history | reverse %}{{ show(t) ~ '!' }}{% endfor %}",
    "{{ '%-8s|%03d' % ('ab', 7) }}{{ 2 ** 10 // 3 }}{{ 7 % 4 }}{{ 'ab' * 3 }}{{ [1] + [2] }}",
    "{% for a, b in [(1, 2), (3, 4)] %}{{ a + b }}{% endfor %}",
    "{% for k, v in {'x': 1}.items() %}{{ k }}{{ v }}{% endfor %}",
    "{% for t in history if t != 'Ship' %}{{ t }}{% else %}none{% endfor %}{% for t in [] %}{% else %}none{% endfor %}",
    "{% for c in 'abc' %}{{ loop.cycle('x', 'y') }}{{ c }}{% endfor %}{{ range(3) | list }}{{ none }}{{ true }}",
    "{% for x in [[1, [2]], 3] recursive %}{{ loop(x) if x is iterable else x }}{% endfor %}",
]


@pytest.mark.parametrize("source", HONEST)
def test_an_honest_template_reads_as_jinja2_renders_it(source):
    plain = jinja2.sandbox.ImmutableSandboxedEnvironment().from_string(source).render(GIVEN)
    assert render(BoundedEnvironment().from_string(source), GIVEN) == plain


def test_each_rendering_has_its_own_steps(monkeypatch):
    monkeypatch.setattr(bounded_templates, "MAX_STEPS", 50)
    program = BoundedEnvironment().from_string("{% for i in range(9) %}{{ i }}{% endfor %}")
    for _ in range(5):
        assert render(program, {}) == "012345678"


def test_a_template_that_shows_no_history_is_told(tmp_path, monkeypatch):
    from recalign import console
    from recalign.text.item_tokens import title_tokens
    from recalign.text.text_prompts import TextPrompts
    from tests.fake_dataset import TITLES, write_dataset
    from tests.fake_models import byte_level_tokenizer

    catalogue = write_dataset(tmp_path / "data").catalogue
    told = []
    monkeypatch.setattr(console, "warn", told.append)
    for chat, source, said in [
        (None, "{{ history | join }}", ""),
        (None, "Recommend.", "no history is shown"),
        ("{{ messages[0].content }}", "{% set chat = true %}{{ history | join }}", ""),
        ("Hello.", "{% set chat = true %}{{ history | join }}", "the model's chat template drops the text"),
    ]:
        tokenizer = byte_level_tokenizer(TITLES)
        tokenizer.chat_template = chat
        titles = title_tokens(catalogue, tokenizer, "title", ";")
        told.clear()
        TextPrompts(Template("mine", source), tokenizer, catalogue, titles, task="list", list_length=3)
        assert len(told) == bool(said) and all(said in line for line in told)
