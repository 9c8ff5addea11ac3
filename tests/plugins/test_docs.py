"""The plugins that docs/plugins.md prints in full pass `recalign plugins check`."""

import re
import sys
from pathlib import Path

import pytest

from recalign.plugins.check.plugin import check
from recalign.plugins.kinds import KINDS
from recalign.plugins.registry import find_entry
from tests.fake_distribution import install

PAGE = (Path(__file__).parents[2] / "docs" / "plugins.md").read_text(encoding="utf-8")
SOURCES = [block for block in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL) if "@hookimpl" in block]


def kind_of(source):
    return KINDS[re.search(r"def recalign_(\w+)", source)[1]]


def test_metrics_objectives_decoders_and_recommenders_are_shown():
    assert {"metric", "objective", "decoder", "recommender"} <= {kind_of(source).name for source in SOURCES}


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
