"""Tests of a GPU take its branches, and products of float32 are of float32."""

import pytest
import torch

from recalign.decoding import prompt_cache, shared_attention
from tests.fake_dataset import TITLES, write_dataset
from tests.fake_models import byte_level_tokenizer, save_model
from tests.gpu.on_device import DEVICE


@pytest.fixture(autouse=True)
def _as_a_gpu_does(monkeypatch):
    """Products of float32 are of float32; the trial on a CPU takes a GPU's branches."""
    torch.set_float32_matmul_precision("highest")
    if DEVICE == "cpu":
        monkeypatch.setattr(shared_attention, "ROW_BY_ROW", set())
        monkeypatch.setattr(prompt_cache, "TOKENS_A_PASS", {True: 32768, False: 32768})


@pytest.fixture(scope="module")
def worlds(tmp_path_factory):
    """A small dataset of each task, and a random model as if it had been downloaded."""
    folder = tmp_path_factory.mktemp("worlds")
    made = {
        "list": write_dataset(folder / "list"),
        "next": write_dataset(folder / "next", task="next"),
        "rank": write_dataset(folder / "rank", task="rank", list_length=4),
    }
    return {**made, "llama": save_model(folder / "llama", byte_level_tokenizer(TITLES), context=2048)}
