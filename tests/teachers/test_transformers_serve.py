"""The teacher `openai` against a server that somebody else wrote: `transformers serve` with a tiny model."""

import importlib.util
import os
import socket
import subprocess
import sys
import time
import urllib.request

import pytest

from recalign.api import TeacherContext
from recalign.plugins.registry import create
from tests.fake_models import byte_level_tokenizer, save_model
from tests.rationales.doubles import CATALOGUE, make_cases

LACKING = [name for name in ("fastapi", "uvicorn") if importlib.util.find_spec(name) is None]


@pytest.fixture
def endpoint(tmp_path):
    """The address of a server with a model of random weights, and the model's name there."""
    tokenizer = byte_level_tokenizer(["row 0, item 2? Because it fits."], chat=True)
    model = save_model(tmp_path / "model", tokenizer)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-c", "from transformers.cli.transformers import main; main()", "serve", str(model)]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    with (tmp_path / "log").open("w") as log:
        options = ["--port", str(port), "--device", "cpu"]
        server = subprocess.Popen([*command, *options], env=environment, stdout=log, stderr=subprocess.STDOUT)
        try:
            for _ in range(600):
                assert server.poll() is None, (tmp_path / "log").read_text()
                try:
                    urllib.request.urlopen(f"http://localhost:{port}/health", timeout=1)
                    break
                except OSError:
                    time.sleep(0.2)
            yield f"http://localhost:{port}/v1", str(model)
        finally:
            server.terminate()
            server.wait(30)


@pytest.mark.slow
@pytest.mark.skipif(bool(LACKING), reason=f"`transformers serve` needs {' and '.join(LACKING)}")
def test_a_model_behind_transformers_serve_replies_with_text_and_usage(endpoint, monkeypatch):
    url, model = endpoint
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OPENAI_API_KEY", "any")
    teacher = create("teacher", "openai", {"model": model, "base_url": url, "max_tokens": 12})
    teacher.begin(TeacherContext(CATALOGUE, lambda: None, lambda name: None))
    replies = teacher.reply(make_cases(2))
    assert [reply.problem for reply in replies] == [""] * 4
    assert all(reply.text for reply in replies)
    bounds = [teacher.most_tokens(case)[0] for case in make_cases(2)]
    assert all(0 < reply.prompt_tokens <= bound for reply, bound in zip(replies, bounds, strict=True))
    assert all(0 < reply.completion_tokens <= 12 for reply in replies)
