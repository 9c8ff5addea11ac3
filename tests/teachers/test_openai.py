"""The teacher `openai` against a real HTTP server: good replies, bad ones, keys, refusals, servers that are down."""

import socket
import threading
import time
from email.utils import formatdate

import pytest

from recalign.api import TeacherContext
from recalign.errors import UserError
from recalign.plugins.registry import create
from tests.rationales.doubles import CATALOGUE, make_cases
from tests.teachers.server import (
    BROKEN,
    BROKEN_OFF,
    HALF,
    NOTHING,
    PAGE,
    TOO_MANY,
    Answer,
    completion,
    serving,
)

CASE = make_cases(1)[0]
UNCOUNTED = Answer('{"choices": [{"message": {"content": "x"}}], "usage": {"prompt_tokens": "many"}}')
KEY = "sk-very-secret"


@pytest.fixture(autouse=True)
def _environment(monkeypatch):
    for name in ("OPENAI_BASE_URL", "OPENAI_MODEL", "http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)


def begun(url, **params):
    teacher = create("teacher", "openai", {"model": "m", "base_url": url, "retries": 2, "timeout": 20, **params})
    teacher.begin(TeacherContext(CATALOGUE, lambda: None, lambda name: None))
    return teacher


def test_the_prompt_goes_out_with_key_and_sampling_and_the_text_comes_back():
    with serving(lambda number, body: completion("Because.\n<answer>Recommend</answer>")) as endpoint:
        (reply,) = begun(endpoint.url, temperature=0.5, max_tokens=99).reply([CASE])
    assert reply.text == "Because.\n<answer>Recommend</answer>"
    assert (reply.prompt_tokens, reply.completion_tokens, reply.problem) == (7, 3, "")
    ((path, headers, body),) = endpoint.requests
    assert path == "/v1/chat/completions"
    assert headers["authorization"] == f"Bearer {KEY}"
    assert body["messages"] == [{"role": "user", "content": CASE.prompt}]
    assert {name: body[name] for name in ("model", "temperature", "max_tokens")} == {
        "model": "m",
        "temperature": 0.5,
        "max_tokens": 99,
    }


def test_names_and_addresses_come_from_the_environment(monkeypatch):
    with serving(lambda number, body: completion("x")) as endpoint:
        monkeypatch.setenv("OPENAI_BASE_URL", endpoint.url)
        monkeypatch.setenv("OPENAI_MODEL", "theirs")
        monkeypatch.setenv("OTHER_KEY", "sk-other")
        teacher = create("teacher", "openai", {"key_variable": "OTHER_KEY", "limit_field": "max_completion_tokens"})
        teacher.begin(TeacherContext(CATALOGUE, lambda: None, lambda name: None))
        teacher.reply([CASE])
    ((_, headers, body),) = endpoint.requests
    assert headers["authorization"] == "Bearer sk-other"
    assert (body["model"], body["max_completion_tokens"]) == ("theirs", 1024)
    assert not {"temperature", "max_tokens"} & set(body)
    assert teacher.identity == {"model": "theirs", "temperature": None, "max_tokens": 1024}


def test_thinking_before_the_text_is_left_out():
    with serving(lambda number, body: completion("<think>Hm, <answer>?</think>\n\nYes.")) as endpoint:
        assert begun(endpoint.url).reply([CASE])[0].text == "Yes."


@pytest.mark.parametrize("first", [TOO_MANY, BROKEN, BROKEN_OFF], ids=["429", "500", "broken off"])
def test_what_passes_is_waited_out(first):
    with serving(lambda number, body: first if number < 2 else completion("x")) as endpoint:
        assert begun(endpoint.url).reply([CASE])[0].text == "x"
    assert len(endpoint.requests) == 3


@pytest.mark.parametrize(("answer", "code"), [(TOO_MANY, "429"), (BROKEN, "500")])
def test_what_does_not_pass_stops_and_says_so(answer, code):
    with serving(lambda number, body: answer) as endpoint, pytest.raises(UserError) as error:
        begun(endpoint.url).reply([CASE])
    assert f"refused a question 3 times ({code}: " in error.value.what
    assert "--resume" in error.value.hint
    assert len(endpoint.requests) == 3


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        (PAGE, "a page of HTML"),
        (HALF, "no chat completion ({"),
        (NOTHING, "nothing"),
        (Answer('{"choices": []}'), "no chat completion ("),
        (Answer('{"error": "later"}'), "no chat completion ("),
        (completion(""), "a message without text"),
        (completion(None), "a message without text"),
        (Answer('{"error": {"message": "too long"}}', 400), "an error (400: "),
    ],
)
def test_what_is_no_text_is_a_problem_of_its_question(answer, problem):
    with serving(lambda number, body: answer) as endpoint:
        (reply,) = begun(endpoint.url).reply([CASE])
    assert reply.problem.startswith(problem)
    assert reply.text == ""


@pytest.mark.parametrize("answer", [completion("x", prompt=None), completion("x", prompt=-3), UNCOUNTED, HALF])
def test_replies_without_usage_count_as_more_than_they_can_have_taken(answer):
    with serving(lambda number, body: answer) as endpoint:
        teacher = begun(endpoint.url, max_tokens=50)
        (reply,) = teacher.reply([CASE])
    assert (reply.prompt_tokens, reply.completion_tokens) == (len(CASE.prompt) + 64, 50)
    assert teacher.most_tokens(CASE) == (len(CASE.prompt) + 64, 50)


def test_a_refused_key_is_named_by_its_variable_and_never_shown():
    echo = Answer(f'{{"error": {{"message": "Incorrect API key provided: {KEY}"}}}}', 401)
    with serving(lambda number, body: echo) as endpoint, pytest.raises(UserError) as error:
        begun(endpoint.url).reply([CASE])
    assert "refuses the key in OPENAI_API_KEY (401: " in error.value.what
    assert KEY not in str(error.value) + repr(error.value.__cause__)
    assert len(endpoint.requests) == 1


def test_an_endpoint_that_echoes_the_key_in_a_reply_does_not_get_it_shown():
    with serving(lambda number, body: Answer(f'{{"key": "{KEY}"}}')) as endpoint:
        (reply,) = begun(endpoint.url).reply([CASE])
    assert KEY not in reply.problem


def test_an_unknown_model_is_told():
    answer = Answer('{"error": {"message": "no such model"}}', 404)
    with serving(lambda number, body: answer) as endpoint, pytest.raises(UserError, match="knows no model 'm'"):
        begun(endpoint.url).reply([CASE])


def test_an_endpoint_that_is_down_is_told_without_the_secrets_of_its_address():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]  # bound, and nobody listens
        with pytest.raises(UserError) as error:
            begun(f"http://me:hunter2@127.0.0.1:{port}/v1?token=hunter2", retries=0).reply([CASE])
    assert f"The endpoint 127.0.0.1:{port} cannot be reached" in error.value.what
    assert "hunter2" not in str(error.value)


def test_an_endpoint_that_does_not_answer_in_time_is_told():
    enough = threading.Event()

    def answer(number, body):
        enough.wait(20)
        return completion("x")

    with serving(answer) as endpoint:
        with pytest.raises(UserError, match=r"gave no reply within 0.2 seconds, 2 times") as error:
            begun(endpoint.url, retries=1, timeout=0.2).reply([CASE])
        enough.set()
    assert "-p timeout" in error.value.hint


def in_a_second():
    return formatdate(time.time() + 1, usegmt=True)


@pytest.mark.parametrize(
    ("header", "value", "least"),
    [("retry-after", "0.6", 0.6), ("retry-after-ms", "600", 0.6), ("retry-after", in_a_second, 0.0)],
)
def test_an_endpoint_is_waited_for_as_long_as_it_asks(header, value, least):
    def answer(number, body):
        stated = value if isinstance(value, str) else value()
        return completion("x") if number else Answer("{}", 429, headers={header: stated})

    with serving(answer) as endpoint:
        teacher, started = begun(endpoint.url), time.monotonic()
        assert teacher.reply([CASE])[0].text == "x"
    assert time.monotonic() - started >= least
    assert len(endpoint.requests) == 2


@pytest.mark.parametrize("value", ["soon", "-3", "nan", "inf", "Fri, 27 Nov 2026 25:00:00", ""])
def test_what_asks_for_no_time_is_waited_for_a_little(value):
    def answer(number, body):
        return completion("x") if number else Answer("{}", 503, headers={"retry-after": value})

    with serving(answer) as endpoint:
        assert begun(endpoint.url).reply([CASE])[0].text == "x"


def test_an_endpoint_that_asks_to_wait_for_long_ends_it():
    busy = Answer('{"error": {"message": "slow down"}}', 429, headers={"Retry-After": "3600"})
    with serving(lambda number, body: busy) as endpoint, pytest.raises(UserError) as error:
        begun(endpoint.url).reply([CASE])
    assert "asks to wait 3,600 seconds (" in error.value.what and "slow down" in error.value.what
    assert "-p longest_wait, which is 600" in error.value.hint and "--resume" in error.value.hint
    assert len(endpoint.requests) == 1


def test_a_refused_key_is_told_whatever_the_endpoint_asks_for():
    refused = Answer('{"error": {"message": "no"}}', 401, headers={"Retry-After": "3600"})
    with serving(lambda number, body: refused) as endpoint, pytest.raises(UserError, match="refuses the key"):
        begun(endpoint.url).reply([CASE])


def test_who_wants_to_stop_waits_for_no_retry():
    busy = Answer("{}", 429, headers={"Retry-After": "300"})
    with serving(lambda number, body: busy) as endpoint:
        teacher = begun(endpoint.url)
        threading.Timer(0.5, teacher.stop_waiting).start()
        with pytest.raises(UserError, match="refused a question once"):
            teacher.reply([CASE])


@pytest.mark.parametrize(("missing", "says"), [("OPENAI_API_KEY", "OPENAI_API_KEY"), ("", "has no model")])
def test_a_missing_key_or_model_is_told_before_anything_is_sent(monkeypatch, missing, says):
    if missing:
        monkeypatch.delenv(missing)
    with pytest.raises(UserError, match=says):
        begun("http://127.0.0.1:1/v1", **({} if missing else {"model": ""}))


def test_prices_are_per_million_tokens_and_unknown_by_default():
    teacher = create("teacher", "openai", {"model": "m", "input_price": 0.5, "output_price": 2})
    assert teacher.price(1_000_000, 500_000) == pytest.approx(1.5)
    assert create("teacher", "openai", {"model": "m"}).price(1, 1) is None
