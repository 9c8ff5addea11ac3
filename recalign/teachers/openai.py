"""openai: a model behind any endpoint that speaks OpenAI's chat completions, many questions at a time."""

from __future__ import annotations

import contextlib
import itertools
import math
import os
import random
import threading
import time
from collections.abc import Sequence
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ValidationError
from pydantic import Field as ReplyField

from recalign.api import Case, Field, Params, Reply, Teacher, TeacherContext, UserError, hookimpl

if TYPE_CHECKING:
    from openai import APIConnectionError, APIError, APIStatusError, OpenAI

ENVELOPE = 64
"""Tokens that a chat template adds to a prompt, at most."""
SHOWN = 160
"""Characters of an endpoint's own error message that are shown."""
GO_ON = "What was answered is kept; the same command with --resume goes on."
THINKING = "</think>"


class OpenAiParams(Params):
    """Parameters of `openai`."""

    model: str = Field("", description="name of the model at the endpoint; empty: the environment's OPENAI_MODEL")
    base_url: str = Field(
        "",
        description="address of the endpoint, such as http://localhost:8000/v1; empty: the environment's "
        "OPENAI_BASE_URL, or OpenAI's own",
    )
    key_variable: str = Field("OPENAI_API_KEY", description="environment variable that holds the key")
    temperature: float | None = Field(None, ge=0, description="temperature of sampling; by default the endpoint's own")
    max_tokens: int = Field(1024, ge=1, description="maximum number of tokens of a reply, thinking included")
    limit_field: Literal["max_tokens", "max_completion_tokens"] = Field(
        "max_tokens", description="name by which the endpoint takes that maximum"
    )
    concurrency: int = Field(8, ge=1, description="number of questions under way at a time")
    retries: int = Field(
        5,
        ge=0,
        description="times that a question is sent again after 429, 5xx or a broken connection, waiting longer each "
        "time, or as long as the endpoint asks for",
    )
    longest_wait: float = Field(
        600.0, gt=0, description="seconds that an endpoint may ask to wait; one that asks for more ends the command"
    )
    timeout: float = Field(120.0, gt=0, description="seconds to wait for a reply")
    input_price: float | None = Field(None, ge=0, description="price of a million prompt tokens, for --max-spend")
    output_price: float | None = Field(None, ge=0, description="price of a million completion tokens, for --max-spend")


class _Message(BaseModel):
    content: str | None = None


class _Choice(BaseModel):
    message: _Message


class _Usage(BaseModel):
    prompt_tokens: int = ReplyField(0, ge=0)
    completion_tokens: int = ReplyField(0, ge=0)


class _Completion(BaseModel):
    """What is read of a chat completion; endpoints add more."""

    choices: list[_Choice] = ReplyField(min_length=1)
    usage: Any = None


class OpenAiTeacher(Teacher):
    """Asks a chat model over HTTP and takes the text of its first choice; thinking before `</think>` is left out.

    The key is read from the environment and written nowhere: not in run.json, not in logs, not in errors. 429 and 5xx
    are waited out, as long as Retry-After says, or longer each time; Ctrl-C ends the waiting. Where an endpoint states
    no usage, a reply counts as many tokens as its question has bytes, plus `max_tokens`: more than it can have taken.
    """

    Params = OpenAiParams
    paper = "The teacher of R2Rank, there DeepSeek-R1, is asked by such an endpoint."
    remote = True
    _client: OpenAI
    _key: str

    @property
    def model(self) -> str:
        """Name of the model at the endpoint."""
        return str(self.params.model or os.environ.get("OPENAI_MODEL", ""))

    @property
    def identity(self) -> dict[str, Any]:
        """The model and how it is sampled; the same model may be asked at another address, or faster."""
        return {"model": self.model, **self.params.model_dump(include={"temperature", "max_tokens"})}

    @property
    def concurrency(self) -> int:
        """Return how many questions are asked at a time, as the parameter says."""
        return int(self.params.concurrency)

    def begin(self, context: TeacherContext) -> None:
        """Look for the package, the model's name and the key; nothing is sent yet.

        Raises:
            UserError: one of them is missing.
        """
        super().begin(context)
        try:
            import openai
        except ImportError as error:
            raise UserError(
                "The teacher 'openai' needs the package openai.", "Install it: pip install 'recalign[teachers]'."
            ) from error
        if not self.model:
            raise UserError("The teacher 'openai' has no model.", "Pass -p model=NAME, or set OPENAI_MODEL.")
        self._key = os.environ.get(self.params.key_variable, "")
        if not self._key:
            raise UserError(
                f"The environment variable {self.params.key_variable} with the endpoint's key is not set.",
                f"export {self.params.key_variable}=...; for a local server that asks for none, any text will do.",
            )
        self._stop = threading.Event()
        self._client = openai.OpenAI(
            api_key=self._key,
            base_url=self.params.base_url or None,
            max_retries=0,  # its own waits know no end but theirs
            timeout=self.params.timeout,
        )

    def most_tokens(self, case: Case) -> tuple[int, int]:
        """Return the bytes of the prompt and what a chat template adds, and `max_tokens`: no tokenizer makes more."""
        return len(case.prompt.encode()) + ENVELOPE, int(self.params.max_tokens)

    def price(self, prompt_tokens: int, completion_tokens: int) -> float | None:
        """Return the price by `input_price` and `output_price`, per million tokens."""
        prices = (self.params.input_price, self.params.output_price)
        if None in prices:
            return None
        return (prompt_tokens * prices[0] + completion_tokens * prices[1]) / 1e6

    def reply(self, cases: Sequence[Case]) -> Sequence[Reply]:
        """Send one prompt after the other.

        Raises:
            UserError: the endpoint is down, refuses the key, or goes on refusing after all retries.
        """
        return [self._ask(case) for case in cases]

    def _ask(self, case: Case) -> Reply:
        """Ask until there is a reply, or it is clear that there will be none."""
        import openai

        sampling = {} if self.params.temperature is None else {"temperature": self.params.temperature}
        for attempt in itertools.count(1):
            try:
                response = self._client.chat.completions.with_raw_response.create(
                    model=self.model,
                    messages=[{"role": "user", "content": case.prompt}],
                    **{self.params.limit_field: self.params.max_tokens},
                    **sampling,
                )
                return self._read(response.text, case)
            except (openai.APIStatusError, openai.APIConnectionError) as error:
                asked = _retry_after(error)
                if not _passes(error):
                    return self._refused(error, attempt)
                if asked is not None and asked > self.params.longest_wait:
                    raise self._asked_to_wait(error, asked) from None
                if attempt > self.params.retries:
                    return self._refused(error, attempt)
                if self._stop.wait(_back_off(attempt) if asked is None else asked):
                    return self._refused(error, attempt)
        raise AssertionError

    def stop_waiting(self) -> None:
        """Send no question again."""
        self._stop.set()

    def _read(self, body: str, case: Case) -> Reply:
        """What the body of a successful response holds."""
        prompt, completion = self.most_tokens(case)
        try:
            completed = _Completion.model_validate_json(body)
        except ValidationError:
            return Reply("", prompt, completion, problem=self._what_it_is(body))
        try:
            usage = _Usage.model_validate(completed.usage)
        except ValidationError:  # none, or one that counts nothing
            usage = _Usage(prompt_tokens=prompt, completion_tokens=completion)
        text = (completed.choices[0].message.content or "").rpartition(THINKING)[2].strip()
        problem = "" if text else "a message without text"
        return Reply(text, usage.prompt_tokens, usage.completion_tokens, problem)

    def _refused(self, error: APIStatusError | APIConnectionError, attempts: int) -> Reply:
        """Tell what concerns one question from what concerns all.

        Raises:
            UserError: it concerns all.
        """
        import openai

        if isinstance(error, openai.APITimeoutError):
            raise UserError(
                f"The endpoint {self._address} gave no reply within {self.params.timeout:g} seconds, "
                f"{_times(attempts)}.",
                f"Raise -p timeout, or lower -p concurrency or -p max_tokens. {GO_ON}",
            ) from None
        if isinstance(error, openai.APIConnectionError):
            cause = error.__cause__ or error
            raise UserError(
                f"The endpoint {self._address} cannot be reached: {self._shown(f'{type(cause).__name__}: {cause}')}.",
                f"Check -p base_url and that the server runs. {GO_ON}",
            ) from None
        code, what = error.status_code, f"{error.status_code}: {self._shown(error.message)}"
        if code in (401, 403):
            raise UserError(
                f"The endpoint {self._address} refuses the key in {self.params.key_variable} ({what}).",
                f"Check the key. {GO_ON}",
            ) from None
        if code == 404:
            raise UserError(
                f"The endpoint {self._address} knows no model '{self.model}', or no chat completions ({what}).",
                "Check -p model and -p base_url, which usually ends in /v1.",
            ) from None
        if _passes(error):
            raise UserError(
                f"The endpoint {self._address} refused a question {_times(attempts)} ({what}).",
                f"Wait, or lower -p concurrency. {GO_ON}",
            ) from None
        return Reply(problem=f"an error ({what})")

    def _asked_to_wait(self, error: APIError, seconds: float) -> UserError:
        return UserError(
            f"The endpoint {self._address} asks to wait {seconds:,.0f} seconds ({self._shown(error.message)}).",
            f"Wait, or raise -p longest_wait, which is {self.params.longest_wait:g}. {GO_ON}",
        )

    @property
    def _address(self) -> str:
        """Host and port: the rest of an address may hold secrets."""
        parts = urlsplit(str(self._client.base_url))
        return parts.netloc.rpartition("@")[2]

    def _shown(self, text: str) -> str:
        """A message without the key and of one short line."""
        line = " ".join(text.replace(self._key, "***").split()).rstrip(".")
        return line if len(line) <= SHOWN else f"{line[:SHOWN]}..."

    def _what_it_is(self, body: str) -> str:
        """Say what came in place of a chat completion."""
        if not body.strip():
            return "nothing"
        if body.lstrip().startswith("<"):
            return "a page of HTML"
        return f"no chat completion ({self._shown(body)})"


def _passes(error: APIStatusError | APIConnectionError) -> bool:
    """Whether what an endpoint says may be otherwise a little later."""
    code = getattr(error, "status_code", None)
    return code is None or code in (408, 409, 429) or code >= 500


def _retry_after(error: APIStatusError | APIConnectionError) -> float | None:
    """Seconds that an endpoint asks to wait (RFC 9110, 10.2.3: a number of them, or a date); None: it asks for none."""
    headers = error.response.headers if hasattr(error, "response") else {}
    stated, milliseconds = headers.get("retry-after", ""), headers.get("retry-after-ms", "")
    for read in (
        lambda: float(milliseconds) / 1000,
        lambda: float(stated),
        lambda: parsedate_to_datetime(stated).timestamp() - time.time(),
    ):
        with contextlib.suppress(ValueError, TypeError):  # a date without a zone
            if math.isfinite(seconds := read()):
                return max(0.0, seconds)
    return None


def _back_off(attempt: int) -> float:
    """Seconds to wait after an attempt: twice as long each time, up to eight, and a little less by chance."""
    return float(min(0.5 * 2 ** (attempt - 1), 8.0) * (1 - 0.25 * random.random()))


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"


@hookimpl
def recalign_teacher() -> type[Teacher]:
    """Return the plugin class to recalign."""
    return OpenAiTeacher
