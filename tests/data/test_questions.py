"""Answers to questions about candidates: written, read, and refused."""

import pytest

from recalign.data.questions import RATIONALE, Answer, AnswerFormat, Answering
from recalign.errors import UserError

TEXT = "#Initial reasoning\nSpace again.\n#Self-check\nNone.\n#Final conclusion and suggestion\nGood."


@pytest.mark.parametrize("recommended", [True, False])
def test_what_is_written_is_read_back(recommended):
    text = RATIONALE.text(recommended, TEXT)
    assert text.splitlines()[-1] == f"<answer>{'Recommend' if recommended else 'Not Recommend'}</answer>"
    assert RATIONALE.read(text) == Answer(TEXT, recommended)
    assert RATIONALE.read(RATIONALE.text(recommended)) == Answer("", recommended)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (TEXT, "The answer has no decision"),
        (RATIONALE.text(True, TEXT) + "\n<answer>Not Recommend</answer>", "The answer has 2 decisions"),
        ("<answer>Maybe</answer>", "The decision reads '<answer>Maybe</answer>'"),
        ("<answer>Recommend", "The decision reads '<answer>Recommend'"),
        ("<answer>Recommend</answer> or not", "The decision reads"),
        ("", "no decision"),
    ],
)
def test_an_answer_without_a_decision_or_with_two_is_refused(text, said):
    with pytest.raises(UserError) as caught:
        RATIONALE.read(text)
    assert said in caught.value.what
    assert "<answer>Recommend</answer> or <answer>Not Recommend</answer>" in caught.value.hint


@pytest.mark.parametrize("words", [("yes", "yes"), ("yes", " yes "), ("", "no"), ("yes", " ")])
def test_two_words_must_differ(words):
    with pytest.raises(UserError, match="cannot be told apart"):
        AnswerFormat(words)


def test_what_a_model_records_is_read_back():
    import json
    from dataclasses import asdict

    answering = Answering(AnswerFormat(("Ja", "Nein"), "", "", False), 64, "open")
    assert Answering.of(json.loads(json.dumps(asdict(answering)))) == answering
    assert Answering.of(None) == Answering()
