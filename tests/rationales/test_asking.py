"""Asking: what is kept and dropped, what is asked again, limits, and teachers that fail half-way."""

import os
import signal
import threading

import pytest

from recalign.api import Reply
from recalign.errors import UserError
from recalign.rationales.asking import ATTEMPTS, STUCK, Asking
from recalign.rationales.budget import Budget
from recalign.rationales.journal import Journal
from recalign.rationales.records import read_rationales
from tests.rationales.doubles import CATALOGUE, Scripted, make_cases, right


def ask(folder, teacher, cases=None, **limits):
    journal, budget = Journal(folder), Budget(teacher, **limits)
    left = Asking(teacher, CATALOGUE, journal, budget)(make_cases() if cases is None else cases, lambda count: None)
    return journal, budget, left


def outcomes(journal):
    return {key: record.outcome for key, record in journal.records.items()}


def test_only_right_decisions_are_kept_and_the_rest_is_told_apart(tmp_path):
    replies = {
        (0, 2): "Yes.\n<answer>Recommend</answer>",
        (0, 3): "Yes.\n<answer>Recommend</answer>",
        (1, 2): "I cannot decide.",
        (1, 3): "<answer>Recommend</answer>\n<answer>Not Recommend</answer>",
    }
    teacher = Scripted(lambda case: Reply(replies[case.row.index, case.item]))
    journal, _, _ = ask(tmp_path, teacher, make_cases(2))
    assert outcomes(journal) == {(0, 2): "kept", (0, 3): "dropped", (1, 2): "off_format", (1, 3): "off_format"}
    assert {key: record.positive for key, record in journal.records.items()} == {
        (0, 2): True,
        (0, 3): False,
        (1, 2): True,
        (1, 3): False,
    }
    assert list(read_rationales(tmp_path / "rationales.jsonl")) == [(0, 2)]


def test_half_a_character_is_no_text(tmp_path):
    journal, _, _ = ask(
        tmp_path, Scripted(lambda case: Reply("Why \ud83d?\n<answer>Recommend</answer>")), make_cases(1)
    )
    assert set(outcomes(journal).values()) == {"malformed"}
    assert Journal(tmp_path).records.keys() == journal.records.keys()


@pytest.mark.parametrize(("batch_size", "concurrency"), [(3, 1), (1, 4), (2, 3)])
def test_batches_and_threads_leave_the_same_rationales(tmp_path, batch_size, concurrency):
    teacher = Scripted(batch_size=batch_size, concurrency=concurrency)
    ask(tmp_path, teacher)
    assert sorted(teacher.asked) == [(row, item) for row in range(4) for item in (2, 3)]
    read = read_rationales(tmp_path / "rationales.jsonl")
    assert {key: rationale.text for key, rationale in read.items()} == {
        (case.row.index, case.item): right(case).text for case in make_cases()
    }


def test_as_many_calls_are_under_way_as_the_teacher_allows(tmp_path):
    meeting = threading.Barrier(4, timeout=30)  # every reply waits until four are asked for at the same time

    def answer(case):
        meeting.wait()
        return right(case)

    _, _, left = ask(tmp_path, Scripted(answer, concurrency=4))
    assert left == 0


def test_what_brought_no_text_is_asked_again_and_then_counted_as_malformed(tmp_path):
    def answer(case):
        return Reply(problem="a page of HTML") if (case.row.index, case.item) == (0, 2) else right(case)

    teacher = Scripted(answer)
    journal, _, _ = ask(tmp_path, teacher)
    assert teacher.asked.count((0, 2)) == ATTEMPTS
    assert outcomes(journal)[0, 2] == "malformed"
    assert (0, 2) not in Journal(tmp_path).answered
    assert len(Journal(tmp_path).answered) == 7


def test_a_teacher_that_never_gives_a_text_is_left_alone(tmp_path):
    teacher = Scripted(lambda case: Reply(problem="a page of HTML"))
    with pytest.raises(UserError, match="were no text; the last was a page of HTML"):
        ask(tmp_path, teacher, make_cases(20))
    assert len(teacher.asked) == STUCK


@pytest.mark.parametrize("concurrency", [1, 3])
@pytest.mark.parametrize(("limits", "answered"), [({"max_tokens": 100}, 6), ({"max_spend": 59}, 2)])
def test_no_limit_is_ever_exceeded_and_the_rest_is_counted(tmp_path, limits, answered, concurrency):
    """15 tokens a question, which cost 10 + 2 * 5 = 20: six questions for 100 tokens, two for 59."""
    journal, budget, left = ask(tmp_path, Scripted(concurrency=concurrency), **limits)
    assert (len(journal.answered), left) == (answered, 8 - answered)
    assert budget.tokens == 15 * answered
    assert budget.spent == 20 * answered


def test_a_limit_counts_what_a_question_takes_not_what_it_might(tmp_path):
    """Each may take 40 and takes 15: of 100 tokens, 15n + 40 <= 100 lets five be asked."""
    journal, budget, left = ask(tmp_path, Scripted(bound=(30, 10)), max_tokens=100)
    assert (len(journal.answered), left, budget.tokens) == (5, 3, 75)


@pytest.mark.parametrize("concurrency", [1, 3])
def test_a_failure_keeps_every_reply_that_came(tmp_path, concurrency):
    def answer(case):
        if case.row.index == 2:
            raise UserError("The endpoint is down.")
        return right(case)

    teacher = Scripted(answer, concurrency=concurrency)
    with pytest.raises(UserError, match="endpoint is down"):
        ask(tmp_path, teacher)
    noted = set(Journal(tmp_path).answered)
    assert {(0, 2), (0, 3), (1, 2), (1, 3)} <= noted
    assert noted == {key for key in teacher.asked if key[0] != 2}


def test_a_third_partys_fault_is_laid_at_its_door(tmp_path):
    teacher = Scripted()
    teacher.reply = lambda cases: []
    with pytest.raises(UserError, match="The teacher 'scripted' of .* gave 0 replies to 1 questions"):
        ask(tmp_path, teacher)


def test_ctrl_c_waits_for_what_is_under_way(tmp_path):
    def answer(case):
        if case.row.index == 1:
            os.kill(os.getpid(), signal.SIGINT)
        return right(case)

    teacher = Scripted(answer)
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        ask(tmp_path, teacher)
    assert Journal(tmp_path).answered == set(teacher.asked)
    assert len(teacher.asked) < 8
    assert signal.getsignal(signal.SIGINT) == before
