"""A real HTTP server on this machine that speaks chat completions, well or badly, as a test scripts it."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

JSON = "application/json"


@dataclass
class Answer:
    """What the server sends: `body` as text; `promised` bytes more are announced and never come."""

    body: str
    status: int = 200
    kind: str = JSON
    headers: dict[str, str] = field(default_factory=dict)
    promised: int = 0


def completion(text: str | None, prompt: int | None = 7, completed: int = 3) -> Answer:
    """A chat completion; without usage where `prompt` is None."""
    body = {
        "id": "1",
        "object": "chat.completion",
        "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}],
    }
    if prompt is not None:
        body["usage"] = {"prompt_tokens": prompt, "completion_tokens": completed, "total_tokens": prompt + completed}
    return Answer(json.dumps(body))


TOO_MANY = Answer('{"error": {"message": "slow down"}}', 429, headers={"retry-after-ms": "5"})
BROKEN = Answer('{"error": {"message": "oops"}}', 500, headers={"retry-after-ms": "5"})
PAGE = Answer("<!doctype html><title>Sign in</title>", 200, "text/html")
HALF = Answer('{"id": "1", "choices": [{"index": 0, "mess')
NOTHING = Answer("")
BROKEN_OFF = Answer('{"id": "1"', promised=500)


@dataclass
class Endpoint:
    """What a test sees of the server: its address, and all requests (path, headers in lower case, body)."""

    url: str
    requests: list[tuple[str, dict[str, str], dict]]


@contextlib.contextmanager
def serving(answer: Callable[[int, dict], Answer]) -> Iterator[Endpoint]:
    """Serve until the block ends; `answer(number of the request, from 0, its body)` says what is sent."""
    requests, lock = [], threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with lock:
                number = len(requests)
                requests.append((self.path, {name.lower(): value for name, value in self.headers.items()}, body))
            sent = answer(number, body)
            data = sent.body.encode()
            self.send_response(sent.status)
            for name, value in {"Content-Type": sent.kind, **sent.headers}.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(data) + sent.promised))
            self.end_headers()
            self.wfile.write(data)
            self.close_connection = bool(sent.promised)

        def log_message(self, *arguments):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield Endpoint(f"http://127.0.0.1:{server.server_port}/v1", requests)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
