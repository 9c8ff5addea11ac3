"""Prompts: token layout, templates, truncation, users' own Jinja files."""

import numpy as np
import pytest

from recalign.data.dataset import Row
from recalign.errors import UserError
from recalign.models.tokenizers import add_item_tokens, train_tokenizer
from recalign.tasks import Response
from recalign.text.item_tokens import title_tokens
from recalign.text.prompts import Prompter, Template, load_template
from tests import fake_models
from tests.fake_dataset import TITLES
from tests.text.test_item_tokens import catalogue_of

CATALOGUE = catalogue_of(TITLES)


def row(history, *, candidates=None, index=0):
    candidates = None if candidates is None else np.array(candidates)
    return Row(index, f"u{index}", np.array(history, dtype=np.int64), np.array([5]), np.ones(1), 0.0, candidates)


def prompter(template="compact", *, tokenizer=None, identifier="title", list_length=3, max_tokens=None):
    tokenizer = tokenizer or train_tokenizer(TITLES)
    add_item_tokens(tokenizer, CATALOGUE, identifier)
    loaded = template if isinstance(template, Template) else load_template(template)
    titles = title_tokens(CATALOGUE, tokenizer, identifier, loaded.separator)
    return Prompter(loaded, tokenizer, CATALOGUE, titles, task="list", list_length=list_length, max_tokens=max_tokens)


def test_compact_prompt_is_the_history_in_the_layout_of_the_response():
    made = prompter()
    prompt, (response, _) = made.encode(row([3, 1])), made.answer(Response([5, 2]))
    whole = np.concatenate([prompt, response])
    assert whole[0] == made.tokenizer.bos_token_id
    assert whole[1:].tolist() == made.titles.response([3, 1, 5, 2]).tolist()


def test_compact_prompt_of_an_empty_history_is_the_start_token():
    assert prompter().encode(row([])).tolist() == [prompter().tokenizer.bos_token_id]


def test_compact_atomic_prompt_is_one_token_an_item():
    made = prompter(identifier="atomic")
    assert len(made.encode(row([3, 1, 4]))) == 4
    assert len(made.titles.response([1, 2])) == 3


def test_compact_starts_with_the_end_token_where_there_is_no_start_token():
    made = prompter(tokenizer=fake_models.byte_level_tokenizer(TITLES))
    assert made.encode(row([0]))[0] == made.tokenizer.eos_token_id


def test_alpaca_prompt_reads_as_the_papers_do():
    made = prompter("alpaca", tokenizer=fake_models.byte_level_tokenizer(TITLES))
    text = made.tokenizer.decode(made.encode(row([0, 7])))
    assert text.startswith("Below is an instruction that describes a task, paired with an input")
    assert "please recommend 3 new items" in text
    assert 'following items before: "Ship Red", "Robot Lost"\n' in text
    assert text.endswith("\n\n### Response:\n")
    one = prompter("alpaca", tokenizer=fake_models.byte_level_tokenizer(TITLES), list_length=1)
    assert "please recommend a new item that" in one.tokenizer.decode(one.encode(row([0])))


def test_alpaca_prompt_names_candidates():
    made = prompter("alpaca", tokenizer=fake_models.byte_level_tokenizer(TITLES))
    assert 'Choose among: "Ship Old", "Ghost Red"' in made.tokenizer.decode(made.encode(row([0], candidates=[1, 10])))


def test_text_prompts_begin_as_the_tokenizer_begins_texts():
    made = prompter("alpaca", tokenizer=fake_models.sentencepiece_tokenizer(TITLES))
    assert made.encode(row([0]))[0] == made.tokenizer.bos_token_id


def test_chat_prompt_is_one_user_turn_and_the_assistants_start():
    made = prompter("chat", tokenizer=fake_models.byte_level_tokenizer(TITLES, chat=True))
    text = made.tokenizer.decode(made.encode(row([0])))
    assert text.startswith('<|user|>I have interacted with these items, oldest first: "Ship Red".')
    assert text.endswith("one a line.<end><|assistant|>")


def test_chat_without_a_chat_template_is_refused():
    with pytest.raises(UserError, match="chat template"):
        prompter("chat", tokenizer=fake_models.byte_level_tokenizer(TITLES))


def test_atomic_identifiers_stand_in_the_text_as_their_tokens():
    made = prompter("alpaca", tokenizer=fake_models.byte_level_tokenizer(TITLES), identifier="atomic")
    assert made.titles.paths[7][0] in made.encode(row([7]))


def test_a_long_history_loses_its_oldest_items_and_is_counted_once():
    made = prompter(max_tokens=1 + 3 * 3)
    long, short = row([1, 2, 3, 4, 5], index=4), row([1, 2, 3], index=5)
    expected = [made.tokenizer.bos_token_id, *made.titles.join([3, 4, 5], close=True)]
    assert made.encode(long).tolist() == expected
    assert made.encode(long).tolist() == expected
    assert len(made.encode(short)) == 10
    assert made.truncated == 1


def test_a_long_text_prompt_keeps_as_many_recent_items_as_fit():
    tokenizer = fake_models.byte_level_tokenizer(TITLES)
    whole = prompter("alpaca", tokenizer=tokenizer)
    fitting = len(whole.encode(row(list(range(12, 20)))))
    made = prompter("alpaca", tokenizer=tokenizer, max_tokens=fitting)
    assert made.encode(row(list(range(20)))).tolist() == whole.encode(row(list(range(12, 20)))).tolist()


def test_a_limit_below_the_template_itself_is_refused():
    with pytest.raises(UserError, match="--max-length"):
        prompter("alpaca", tokenizer=fake_models.byte_level_tokenizer(TITLES), max_tokens=20)


def test_a_users_jinja_file_is_rendered(tmp_path):
    file = tmp_path / "mine.jinja"
    file.write_text(
        '{% set separator = "; " %}Seen: {{ history | join(" + ") }}. {{ list_length }} more ({{ task }}): '
    )
    made = prompter(file, tokenizer=fake_models.byte_level_tokenizer(TITLES))
    assert made.tokenizer.decode(made.encode(row([0, 1]))) == "Seen: Ship Red + Ship Old. 3 more (list): "
    assert made.tokenizer.decode(made.titles.response([0, 1])) == "Ship Red; Ship Old<end>"


@pytest.mark.parametrize(
    ("source", "line", "word"),
    [
        ("fine\n{% if history %}never closed", 2, "unclosed|end"),
        ("fine\nfine\n{{ histroy }}", 3, "histroy"),
        ("{{ history.__class__.__mro__ }}", 1, "unsafe"),
        ("\n{{ 1 / 0 }}", 2, "division"),
    ],
)
def test_a_broken_template_is_refused_with_its_line(tmp_path, source, line, word):
    file = tmp_path / "mine.jinja"
    file.write_text(source)
    with pytest.raises(UserError, match=f"line {line}: .*({word})|line {line}:.*{word}"):
        prompter(file, tokenizer=fake_models.byte_level_tokenizer(TITLES))


def test_an_unknown_template_is_refused_with_a_suggestion():
    with pytest.raises(UserError, match="'alpaca'"):
        load_template("alpacca")
