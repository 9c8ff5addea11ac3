"""The plugins that docs/plugins.md prints in full pass `recalign plugins check`."""

import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from recalign.api import AnswerBatch, Decoder
from recalign.models.modules import attached
from recalign.models.policy import load_policy
from recalign.plugins.check.plugin import check
from recalign.plugins.kinds import KINDS
from recalign.plugins.registry import find_entry
from recalign.training.supervised import SftOptions, train_supervised
from recalign.training.training_options import TrainingOptions
from tests.decoding.doubles import make_engine, row
from tests.fake_dataset import write_dataset
from tests.fake_distribution import install

PAGE = (Path(__file__).parents[2] / "docs" / "plugins.md").read_text(encoding="utf-8")
SOURCES = [block for block in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL) if "@hookimpl" in block]


def kind_of(source):
    return KINDS[re.search(r"def recalign_(\w+)", source)[1]]


def test_plugins_of_every_kind_are_shown():
    assert set(KINDS) <= {kind_of(source).name for source in SOURCES}


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source[3:].partition(":")[0])
def test_it_passes_the_check(source, tmp_path, monkeypatch):
    name = source[3:].partition(":")[0].split("@")[0]
    module = "shown_" + name.replace("-", "_")
    kind = kind_of(source)
    install(tmp_path, "shown", {kind.group: {name: module}}, {module: source})
    monkeypatch.syspath_prepend(str(tmp_path))
    try:
        assert check(find_entry(kind.name, name)) == []
    finally:
        sys.modules.pop(module, None)


def shown(name):
    source = next(source for source in SOURCES if source[3:].partition(":")[0] == name)
    namespace = {}
    exec(compile(source, name, "exec"), namespace)
    return namespace


@pytest.mark.parametrize("name", ["popular", "coherent"])
def test_the_decoders_shown_rank_items_that_a_beam_finds(name):
    engine = make_engine([np.array([3, 4 + item]) for item in range(12)])
    rows = [row(0, [0, 1]), row(1, [2, 3, 4])]
    decoder = next(
        cls for cls in shown(name).values() if isinstance(cls, type) and issubclass(cls, Decoder) and cls is not Decoder
    )
    found = decoder().decode(engine, rows, 5)
    assert found.items.shape == found.scores.shape == (2, 5)
    assert found.lengths.tolist() == [5, 5]
    assert (np.diff(found.scores) <= 0).all()
    if name == "coherent":
        items, _ = engine.beam(rows, width=5, size=5)
        assert [set(each) for each in found.items.tolist()] == [set(each) for each in items.tolist()]


def test_the_source_shown_reads_its_files_and_recognises_them(tmp_path):
    source = shown("hetrec-lastfm")["HetrecLastfm"]
    assert source.recognises(tmp_path) == ""
    (tmp_path / "user_artists.dat").write_text("userID\tartistID\tweight\n2\t51\t13883\n2\t52\t11690\n")
    (tmp_path / "artists.dat").write_text('id\tname\turl\n51\tDuran "Duran\thttp://x\n52\tMorcheeba\thttp://y\n')
    raw = source().read(tmp_path, 0)
    assert source.recognises(tmp_path) == "user_artists.dat and artists.dat"
    assert raw.items.collect()["title"].to_list() == ['Duran "Duran', "Morcheeba"]
    assert raw.events.collect()["rating"].to_list() == [13883.0, 11690.0]


def test_the_objective_with_a_head_trains_it():
    objective = shown("foresight")["Foresight"]()
    objective.modules = {name: make(4) for name, make in objective.module_makers.items()}
    hidden = torch.ones(3, 4)
    answers = AnswerBatch(torch.zeros(3, 5), torch.tensor([1, 2, 3]), torch.tensor([0, 0, 1]), hidden=hidden)
    loss, figures = objective.loss(answers)
    said = objective.modules["foresight"](hidden[:1]).item()
    head = np.mean([(said - np.log(left)) ** 2 for left in (2, 1, 1)])
    assert float(loss) == pytest.approx(np.log(5) + 0.1 * head)
    assert figures == {"foresight_loss": pytest.approx(head)}
    loss.backward()
    assert objective.modules["foresight"].weight.grad.abs().sum() > 0


def test_a_model_is_trained_on_the_embeddings_of_the_backbone_shown(tmp_path, monkeypatch):
    source = next(source for source in SOURCES if kind_of(source).name == "backbone")
    install(
        tmp_path, "shown", {"recalign.backbones": {"genre-popularity": "shown_backbone"}}, {"shown_backbone": source}
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    dataset = write_dataset(tmp_path / "data", identifier="atomic", task="next")
    training = TrainingOptions(epochs=1, batch_size=12, learning_rate=1e-2)
    options = {"backbone": "genre-popularity", "backbone_params": {"width": 4}, "training": training}
    try:
        train_supervised(dataset, tmp_path / "out", SftOptions(**options))
        policy = load_policy(str(tmp_path / "out"), dataset, trainable=True)
    finally:
        sys.modules.pop("shown_backbone", None)
    assert policy.settings["backbone"] == {"name": "genre-popularity", "params": {"width": 4}}
    assert sum(each.requires_grad for each in attached(policy.model)["item_embeddings"].parameters()) == 4
