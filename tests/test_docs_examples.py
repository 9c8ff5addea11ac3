"""The pages of docs/methods: every objective, reward and decoder is listed, and the examples come out as they say."""

import doctest
import re
from pathlib import Path

import pytest

from recalign.plugins.registry import list_plugins

METHODS = Path(__file__).parent.parent / "docs" / "methods"
OBJECTIVES = sorted(entry.name for entry in list_plugins("objective") if entry.package == "recalign")
REWARDS = sorted(entry.name for entry in list_plugins("metric") if entry.package == "recalign")
RECOMMENDERS = sorted(entry.name for entry in list_plugins("recommender") if entry.package == "recalign")
DECODERS = sorted(entry.name for entry in list_plugins("decoder") if entry.package == "recalign")


def examples_come_out(name):
    page = (METHODS / f"{name}.md").read_text("utf-8")
    shown = "\n".join(block for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if ">>>" in block)
    example = doctest.DocTestParser().get_doctest(shown, {}, name, f"{name}.md", 0)
    results = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE).run(example)
    return results.attempted > 0 and results.failed == 0


@pytest.mark.parametrize("name", OBJECTIVES)
def test_every_objective_has_a_listed_page_whose_example_comes_out(name):
    assert examples_come_out(name)
    assert re.search(rf"^\| `{name}` \|.*\({name}\.md\) \|$", (METHODS / "README.md").read_text("utf-8"), re.MULTILINE)


@pytest.mark.parametrize("name", REWARDS)
def test_every_reward_is_in_a_table(name):
    assert re.search(rf"^\| `{name}(@k)?`", (METHODS / "rewards.md").read_text("utf-8"), re.MULTILINE)


@pytest.mark.parametrize("name", RECOMMENDERS)
def test_every_recommender_is_in_a_table(name):
    page = (METHODS.parent / "baselines.md").read_text("utf-8")
    assert any(f"`{name}`" in line.split("|")[1] for line in page.splitlines() if line.startswith("| `"))


@pytest.mark.parametrize("name", DECODERS)
def test_every_decoder_is_in_a_table(name):
    assert re.search(rf"^\| `{name}` \|", (METHODS / "decoders.md").read_text("utf-8"), re.MULTILINE)


@pytest.mark.parametrize("name", ["rewards", "decoders"])
def test_the_examples_of_rewards_and_decoders_come_out(name):
    assert examples_come_out(name)
