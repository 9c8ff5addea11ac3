"""Titles, tokenizers, catalogues and contexts at the edge, at the command line: the right lists or a clear error."""

import json

import polars as pl
import pytest

from recalign.models.tokenizers import train_tokenizer
from recalign.workspace import RunFolder
from tests.fake_dataset import TITLES, write_dataset
from tests.fake_models import byte_level_tokenizer, save_model

MODEL = "builtin:tiny,hidden=32,layers=1"
ALIGN = ["--max-steps", "2", "--prompts-per-step", "4", "-p", "group_size=2", "-p", "reference_lists=4"]
NESTED = ["Ship", "Ship Red", "Ship Red Old", "Robot", "Robot Old", "Ghost", "Ghost Ship", "Knight"]


def predictions(folder):
    """The items of each row, and the titles."""
    frame = pl.read_parquet(folder / "predictions.parquet")
    return frame["items"].to_list(), frame["titles"].to_list()


# ------------------------------------------------------------ titles


@pytest.mark.parametrize("decoder", ["greedy", "sample"])
def test_a_title_that_begins_another_is_listed_like_any_other(call, tmp_path, decoder):
    data = write_dataset(tmp_path / "data", titles=NESTED, history=2, list_length=5)
    arguments = ["--data", data.path, "--model", MODEL, "--decoder", decoder, "--split", "test"]
    code, told = call("decode", *arguments, "--out", tmp_path / "out")
    assert code == 0, told
    items, titles = predictions(tmp_path / "out")
    assert all(len(set(row)) == len(row) == 5 for row in items)
    assert titles == [[NESTED[item] for item in row] for row in items]


def test_a_title_that_begins_another_is_searched_and_taught_like_any_other(call, tmp_path):
    data = write_dataset(tmp_path / "data", titles=NESTED, history=2, task="next")
    train = ["--model", MODEL, "--epochs", "12", "--batch-size", "4", "--out", tmp_path / "sft"]
    assert call("sft", "--data", data.path, *train)[0] == 0
    for decoder in ("beam", "exact"):
        arguments = ["--data", data.path, "--model", tmp_path / "sft", "--decoder", decoder, "--exclude-history", "no"]
        assert call("decode", *arguments, "--size", "8", "--out", tmp_path / decoder)[0] == 0
    beam, exact = (predictions(tmp_path / name)[0] for name in ("beam", "exact"))
    assert beam == exact
    assert all(sorted(row) == list(range(8)) for row in exact)
    targets = [row.targets[0] for row in data.rows("test")]
    assert [row[0] for row in exact] == targets  # "Ship" is told from "Ship Red" and "Ship Red Old"


def test_a_title_that_begins_another_needs_a_separator(call, tmp_path):
    data = write_dataset(tmp_path / "data", titles=NESTED, history=2)
    (tmp_path / "mine.jinja").write_text('{% set separator = "" %}{{ history | join(" ") }}')
    model = save_model(tmp_path / "hub", byte_level_tokenizer(NESTED))
    train = ["--model", model, "--template", tmp_path / "mine.jinja", "--out", tmp_path / "out"]
    code, told = call("sft", "--data", data.path, *train)
    assert code == 2
    assert "Without a separator, 'Ship' cannot be told from the beginning of 'Ship Red'" in told
    assert "Use a separator between titles" in told


def test_an_empty_title_in_a_table(call, tmp_path):
    (tmp_path / "raw.csv").write_text("user_id,item_id,timestamp\n1,a,1\n1,b,2\n")
    (tmp_path / "items.csv").write_text("item_id,title\na,A\nb,  \n")
    code, told = call("prepare", "table", tmp_path / "raw.csv", "-p", f"items={tmp_path / 'items.csv'}")
    assert code == 2
    assert "Item row 2 (id 'b'): the title '' is empty" in told
    assert "--drop-invalid" in told


@pytest.mark.parametrize("command", ["sft", "align", "decode"])
@pytest.mark.parametrize(
    ("title", "said"),
    [
        ("", "The title of item 103 ('') has no tokens."),
        ("Ship\nRed", "contains the separator between titles. Rename it, or choose another separator."),
    ],
)
def test_titles_that_no_tokenizer_could_write(call, tmp_path, command, title, said):
    titles = [*TITLES[:3], title, *TITLES[4:]]
    data = write_dataset(tmp_path / "data", titles=titles)
    model = save_model(tmp_path / "hub", byte_level_tokenizer(TITLES))
    code, told = call(command, "--data", data.path, "--model", model, "--out", tmp_path / "out")
    assert code == 2
    assert "The title of item 103" in told
    assert said in told
    assert not (tmp_path / "out").exists()


def test_titles_that_spell_control_tokens_are_taught_and_listed_like_any_other(call, tmp_path):
    """As the case control_tokens.csv, with the tokens of the tokenizer at hand."""
    marks = ["<|user|>system", "Ship <end> Red", "<end>", "{{ 7 * 7 }}", "{% raw %}<|assistant|>"]
    titles = [*marks, *TITLES[:5]]
    data = write_dataset(tmp_path / "data", titles=titles, history=2, task="next")
    model = save_model(tmp_path / "hub", byte_level_tokenizer(TITLES, chat=True))
    train = ["--model", model, "--epochs", "1", "--out", tmp_path / "sft"]
    code, told = call("sft", "--data", data.path, *train)
    assert code == 0, told
    arguments = ["--data", data.path, "--model", tmp_path / "sft", "--exclude-history", "no", "--size", "10"]
    assert call("decode", *arguments, "--out", tmp_path / "out")[0] == 0
    items, shown = predictions(tmp_path / "out")
    assert all(sorted(row) == list(range(10)) for row in items)
    assert shown == [[titles[item] for item in row] for row in items]


@pytest.mark.parametrize("command", ["sft", "align", "decode"])
def test_a_vocabulary_without_a_separator(call, tmp_path, command):
    data = write_dataset(tmp_path / "data")
    tokenizer = train_tokenizer(TITLES)
    tokenizer.sep_token = None
    model = save_model(tmp_path / "hub", tokenizer)
    code, told = call(command, "--data", data.path, "--model", model, "--out", tmp_path / "out")
    assert code == 2
    assert r"The tokenizer has no token for the separator '\n' between titles." in told
    assert "Give it a `sep_token`" in told
    assert not (tmp_path / "out").exists()


# ------------------------------------------------------------ small catalogues


@pytest.mark.parametrize("decoder", ["beam", "exact"])
def test_catalogues_smaller_than_the_beam_or_the_list(call, tmp_path, decoder):
    data = write_dataset(tmp_path / "data", titles=TITLES[:5], history=2, task="next")
    arguments = ["--data", data.path, "--model", MODEL, "--decoder", decoder]
    for name, history, left in (("all", "no", 5), ("new", "yes", 3)):
        code, told = call("decode", *arguments, "--exclude-history", history, "--size", "10", "--out", tmp_path / name)
        assert code == 0, told
        items, _ = predictions(tmp_path / name)
        for row, found in zip(data.rows("test"), items, strict=True):
            barred = set() if left == 5 else {*row.history.tolist()}
            assert sorted(found) == sorted({*range(5)} - barred)
            assert len(found) == left


def test_the_few_items_of_a_small_catalogue_are_evaluated(call, tmp_path):
    data = write_dataset(tmp_path / "data", titles=TITLES[:5], history=2, task="next")
    for decoder in ("beam", "exact"):
        arguments = ["--data", data.path, "--model", MODEL, "--decoder", decoder, "--out", tmp_path / decoder]
        assert call("decode", *arguments)[0] == 0
    code, _ = call("eval", tmp_path / "beam", "--exact", tmp_path / "exact", "--no-baselines", "--label", "tiny")
    assert code == 0
    metrics = json.loads((tmp_path / "beam/eval/metrics.json").read_text())["metrics"]
    assert metrics["hit@10"]["mean"] == 1.0
    assert metrics["pr@3"]["mean"] == metrics["pr@10"]["mean"] == 0.0


def test_training_on_a_catalogue_smaller_than_the_beam(call, tmp_path):
    data = write_dataset(tmp_path / "data", titles=TITLES[:5], history=2, task="next")
    code, told = call("sft", "--data", data.path, "--model", MODEL, "--epochs", "1", "--out", tmp_path / "sft")
    assert code == 0, told
    arguments = ["--data", data.path, "--model", tmp_path / "sft", "--reward", "ndcg@1", *ALIGN]
    code, told = call("align", *arguments, "--out", tmp_path / "out")
    assert code == 0, told


@pytest.mark.parametrize("command", ["decode", "align"])
def test_fewer_items_than_a_list_is_long(call, tmp_path, command):
    data = write_dataset(tmp_path / "data", titles=TITLES[:5], history=3, list_length=3)
    more = ALIGN if command == "align" else []
    code, told = call(command, "--data", data.path, "--model", MODEL, *more, "--out", tmp_path / "out")
    assert code == 2
    assert "Only 2 of 5 items are left for a list of 3 after leaving out the excluded ones." in told
    assert "Ask for shorter lists, or do not exclude the history." in told


def test_a_catalogue_smaller_than_a_list(call, tmp_path):
    data = write_dataset(tmp_path / "data", titles=TITLES[:2], history=1, list_length=3)
    code, told = call(
        "decode", "--data", data.path, "--model", MODEL, "--exclude-history", "no", "--out", tmp_path / "out"
    )
    assert code == 2
    assert "The catalogue has 2 items, fewer than the 3 of a list. Ask for shorter lists." in told


# ------------------------------------------------------------ prompts that do not fit


def test_prompts_longer_than_the_context_lose_their_oldest_items_and_are_counted(call, tmp_path):
    data = write_dataset(tmp_path / "data", history=9)
    model = save_model(tmp_path / "hub", train_tokenizer(TITLES), context=24)  # room for 4 of 9 items
    lost = "prompts were longer than 15 tokens and lost their oldest items."
    arguments = ["--data", data.path, "--model", model, "--template", "compact"]
    code, told = call("sft", *arguments, "--epochs", "1", "--metric", "none", "--out", tmp_path / "sft")
    assert (code, f"30 {lost}" in told) == (0, True), told
    assert RunFolder(tmp_path / "sft").record["results"]["truncated"] == 30
    arguments = ["--data", data.path, "--model", tmp_path / "sft"]
    code, told = call("decode", *arguments, "--batch-size", "4", "--out", tmp_path / "decode")
    assert (code, f"6 {lost}" in told) == (0, True), told
    assert RunFolder(tmp_path / "decode").record["results"]["truncated_prompts"] == 6
    code, told = call("align", *arguments, *ALIGN, "--no-report", "--out", tmp_path / "align")
    assert (code, lost in told) == (0, True), told
    assert RunFolder(tmp_path / "align").record["results"]["truncated"] >= 8


def test_a_response_that_cannot_fit(call, tmp_path):
    data = write_dataset(tmp_path / "data")
    model = save_model(tmp_path / "hub", train_tokenizer(TITLES), context=9)
    code, told = call("decode", "--data", data.path, "--model", model, "--out", tmp_path / "out")
    assert code == 2
    assert "A response of 3 titles can have 9 tokens; with its prompt it may have 9." in told
    assert "--max-length" in told
