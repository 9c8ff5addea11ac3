"""Training on a file of rationales: which rows it makes, what they teach, and how the model answers afterwards."""

import json

import pytest

from recalign.api import RATIONALE
from recalign.commands.rationales import rationales
from recalign.commands.sft import sft
from recalign.data.dataset import PreparedDataset
from recalign.errors import UserError
from recalign.models.policy import load_policy
from recalign.preparation.pipeline import prepare_dataset
from recalign.rationales.examples import rationale_rows
from recalign.rationales.records import read_rationales
from recalign.tasks import find_task

TINY = "builtin:tiny,hidden=16,layers=1,context=2048"
QUICK = {"model": TINY, "max_steps": 2, "batch_size": 4, "metric": "none", "template": "alpaca"}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A dataset of the rank task, and rationales for 20 of its rows."""
    folder = tmp_path_factory.mktemp("examples")
    params = {"users": 30, "events": 12, "items": 40, "genres": 4}
    prepare_dataset("synthetic", None, folder / "data", params=params, options={"task": "rank", "candidates": 4})
    dataset = PreparedDataset(folder / "data")
    rationales(data=dataset.path, rows=20, out=folder / "rationales")
    return dataset, folder / "rationales" / "rationales.jsonl"


def test_every_line_becomes_one_question_and_a_tenth_of_the_rows_validates(made):
    dataset, file = made
    read, rows = read_rationales(file), rationale_rows(file, dataset, seed=0)
    keys = [[(row.index, row.question.item) for row in part] for part in (rows.train, rows.valid)]
    assert sorted(keys[0] + keys[1]) == list(read)
    indices = [{row for row, _ in part} for part in keys]
    assert not indices[0] & indices[1]
    assert len(indices[1]) == round(0.1 * len({row for row, _ in read}))
    assert rationale_rows(file, dataset, seed=0).valid[0].index == rows.valid[0].index


def test_the_response_is_the_text_of_the_line_after_the_prompt_about_its_candidate(made):
    dataset, file = made
    rows = rationale_rows(file, dataset, seed=0)
    policy = load_policy(TINY, dataset, template="alpaca", texts=rows.texts)
    read, titles = read_rationales(file), dataset.catalogue.titles
    for row in rows.train[:4]:
        response = find_task("rank").response(row, 4)
        tokens, free = policy.prompter.answer(response)
        written = policy.tokenizer.decode(tokens[:-1])
        assert "".join(written.split()) == "".join(read[row.index, row.question.item].text.split())
        assert 0 < free < len(tokens)
        prompt = "".join(policy.tokenizer.decode(policy.prompter.encode(row)).split())
        about = prompt[prompt.rindex("<unk>:") :]  # a tokenizer of this dataset's words; "Candidate" is none
        assert "".join(f'"{titles[row.question.item]}"'.split()) in about


def test_one_row_trains_and_validates(made, tmp_path):
    dataset, file = made
    first = next(iter(read_rationales(file).values()))
    (tmp_path / "one.jsonl").write_text(first.model_dump_json() + "\n", "utf-8")
    rows = rationale_rows(tmp_path / "one.jsonl", dataset, seed=0)
    assert [row.index for row in rows.train] == [row.index for row in rows.valid] == [first.row]


def test_a_model_that_learnt_rationales_answers_with_them(made, tmp_path):
    dataset, file = made
    results = sft(data=dataset.path, rationales=file, out=tmp_path / "sft", **QUICK)
    assert results["updates"] == 2
    answering = load_policy(str(tmp_path / "sft"), dataset).answering
    assert answering.form == RATIONALE
    policy = load_policy(TINY, dataset, template="alpaca", texts=rationale_rows(file, dataset, 0).texts)
    lengths = [
        len(policy.prompter.text.encode_literally(RATIONALE.read(each.text).rationale + "\n"))
        for each in read_rationales(file).values()
    ]
    opening = policy.prompter.questions.decision(RATIONALE).opening
    assert answering.max_tokens == max(lengths) + len(opening)  # what opens the decision is written too


def test_a_changed_file_is_another_training(made, tmp_path):
    dataset, file = made
    mine = tmp_path / "mine.jsonl"
    lines = file.read_text("utf-8").splitlines()
    mine.write_text("\n".join(lines), "utf-8")
    sft(data=dataset.path, rationales=mine, out=tmp_path / "sft", **QUICK)
    mine.write_text("\n".join(lines[1:]), "utf-8")
    with pytest.raises(UserError, match="its inputs changed"):
        sft(data=dataset.path, rationales=mine, out=tmp_path / "sft", **QUICK)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"text": "It fits."}, "line 1: The answer has no decision"),
        ({"decision": "Perhaps"}, "line 1: its decision is 'Perhaps'"),
        ({"row": 10**6}, "training rows"),
        ({"title": "Another"}, "the title is 'Another'"),
    ],
)
def test_a_line_that_does_not_fit_is_told_before_a_folder_is_made(made, tmp_path, call, change, says):
    dataset, file = made
    first = json.loads(file.read_text("utf-8").splitlines()[0])
    (tmp_path / "x.jsonl").write_text(json.dumps({**first, **change}), "utf-8")
    arguments = ["--data", dataset.path, "--model", TINY, "--rationales", tmp_path / "x.jsonl"]
    code, told = call("sft", *arguments, "--out", tmp_path / "sft")
    assert code == 2
    assert says in told
    assert not (tmp_path / "sft").exists()


@pytest.mark.parametrize("objective", ["judge"])
def test_objectives_with_answers_of_their_own_learn_nothing_from_rationales(made, tmp_path, objective):
    dataset, file = made
    with pytest.raises(UserError, match="learns nothing from rationales"):
        sft(data=dataset.path, rationales=file, objective=objective, out=tmp_path / "sft", **QUICK)
