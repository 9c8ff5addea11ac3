"""`recalign plugins`: list, show, check, new."""

import json
import subprocess
import sys
from importlib.metadata import EntryPoint

import pytest

from recalign import cli, console
from recalign.commands import plugins
from recalign.errors import UserError
from recalign.metrics.expression import parse_expression
from recalign.plugins.check.plugin import check
from recalign.plugins.kinds import KINDS
from recalign.plugins.registry import PluginEntry, find_entry
from tests.fake_distribution import REWARD, install

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

FLAWS = {
    "NaN": ("self.params.weight * lists.lengths.astype(np.float64)", "np.full(len(lists), np.nan)", "NaN or infinity"),
    "shape": ("lists.lengths.astype(np.float64)", "np.ones(3)", "shape (3,) for 6 lists"),
    "raises": ("lists.lengths.astype(np.float64)", "lists.missing", "AttributeError"),
    "undocumented": ('    """How many positions the list has."""\n', "", "has no docstring"),
    "no description": (', description="multiplies the value"', "", "weight has no description"),
    "no default": ("Field(1.0, ", "Field(", "weight has no default"),
    "writes": ("        return", "        lists.items[:] = 0\n        return", "changes the lists"),
}


HEAD = """\"\"\"A mean that its family does not take.\"\"\"
from recalign.api import Credit, {family}, hookimpl
{wanted}

@hookimpl
def recalign_objective():
    return Mine


class Mine({family}):
    \"\"\"It divides by a count of its own.\"\"\"

    {params}

"""
MEAN_OF_ITS_OWN = {
    "TokenObjective": HEAD.format(
        family="TokenObjective", wanted="from recalign.api import NoParams\n", params="Params = NoParams"
    )
    + """    def count(self, batch):
        return (batch.labels > 2).sum()

    def loss(self, batch):
        kept = batch.labels > 2
        return -batch.logits.log_softmax(1)[kept].mean(1).sum() / self.count(batch), {}

""",
    "PreferenceObjective": HEAD.format(family="PreferenceObjective", wanted="", params="")
    + """    def count(self, batch):
        return batch.choices.sum()

    def loss(self, batch):
        return -batch.token_logps.square().sum() / self.count(batch), {}

""",
    "RolloutObjective": HEAD.format(family="RolloutObjective", wanted="", params="")
    + """    def count(self, batch):
        return batch.mask.sum()

    def credit(self, groups):
        return Credit(groups.rewards)

    def loss(self, batch):
        return -(batch.advantages * batch.logps * batch.mask).sum() / self.count(batch), {}

""",
}


@pytest.fixture
def site(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if name.startswith(("fake_", "recalign_my_")):
            del sys.modules[name]


def call(capsys, *arguments):
    """Exit code, parsed stdout, stderr."""
    with pytest.raises(SystemExit) as stop:
        cli.main(["plugins", *arguments, "--json"])
    captured = capsys.readouterr()
    console.configure()
    return stop.value.code, json.loads(captured.out), captured.err


def test_list_names_kind_package_and_version_of_every_plugin(capsys):
    code, result, _ = call(capsys, "list")
    assert code == 0
    blade = next(row for row in result["plugins"] if row["name"] == "blade")
    assert (blade["kind"], blade["package"], blade["problem"]) == ("objective", "recalign", "")
    assert blade["summary"].startswith("BLADE")
    assert {row["kind"] for row in result["plugins"]} == set(KINDS)


def test_list_of_one_kind(capsys):
    _, result, _ = call(capsys, "list", "--kind", "metric")
    assert {row["kind"] for row in result["plugins"]} == {"metric"}
    code, result, _ = call(capsys, "list", "--kind", "rewards")
    assert code == 2
    assert "'reward'" in result["hint"]


def test_list_marks_clashes_and_broken_packages(site, capsys):
    install(site, "fake-one", {"recalign.metrics": {"ndcg": "fake_one"}}, {"fake_one": REWARD})
    install(site, "fake-two", {"recalign.metrics": {"gone": "fake_two"}}, {})
    code, result, _ = call(capsys, "list")
    problems = {(row["name"], row["package"]): row["problem"] for row in result["plugins"] if row["problem"]}
    assert code == 0
    assert problems == {
        ("ndcg", "fake-one"): "name claimed twice",
        ("ndcg", "recalign"): "name claimed twice",
        ("gone", "fake-two"): "there is no module fake_two",
    }


def test_show_prints_parameters_with_bounds_defaults_and_paper(capsys):
    plugins.show("blade")
    text = capsys.readouterr().out
    for expected in ("tau", ">= 0", "0.3", "BLADE, SIGIR 2026", "recalign 0.1"):
        assert expected in text


def test_show_of_a_name_of_two_kinds_shows_both_or_the_one_asked_for(capsys):
    _, result, _ = call(capsys, "show", "bon")
    assert [plugin["kind"] for plugin in result["plugins"]] == ["objective", "decoder"]
    _, result, _ = call(capsys, "show", "bon", "--kind", "decoder")
    assert [plugin["kind"] for plugin in result["plugins"]] == ["decoder"]


def test_show_of_an_unknown_name_suggests_the_nearest(capsys):
    code, result, _ = call(capsys, "show", "blad")
    assert code == 2
    assert "'blade'" in result["hint"]


def test_check_passes_a_sound_package(site, capsys):
    install(site, "fake-sound", {"recalign.metrics": {"length": "fake_sound"}}, {"fake_sound": REWARD})
    code, result, _ = call(capsys, "check", "fake_sound")
    assert code == 0
    assert result["checked"] == ["metric length"]


@pytest.mark.parametrize("flaw", FLAWS)
def test_check_finds_flaws(site, capsys, flaw):
    old, new, message = FLAWS[flaw]
    assert old in REWARD
    install(site, "fake-flaw", {"recalign.metrics": {"length": "fake_flaw"}}, {"fake_flaw": REWARD.replace(old, new)})
    code, result, _ = call(capsys, "check", "fake-flaw")
    assert code == 2
    assert message in result["error"]


def test_check_passes_all_built_ins():
    assert plugins.check("recalign")["checked"]


@pytest.mark.parametrize("family", ["TokenObjective", "PreferenceObjective", "RolloutObjective"])
@pytest.mark.parametrize("weight", ["", "    def weight(self, batch):\n        return self.count(batch)\n"])
def test_check_cuts_a_batch_and_asks_for_the_weight_of_the_parts(site, family, weight):
    name = f"fake_{family.lower()}_{len(weight)}"
    install(site, name, {"recalign.objectives": {"mine": name}}, {name: MEAN_OF_ITS_OWN[family] + weight})
    point = EntryPoint("mine", name, "group")
    problems = check(PluginEntry("objective", "mine", name, "1.2", point))
    found = [line for line in problems if "mean of its parts' losses by their weights" in line]
    assert (problems == []) if weight else (problems == found != [])


def test_check_of_an_unknown_package_suggests_the_nearest():
    with pytest.raises(UserError, match="No installed package 'recalgn'") as error:
        plugins.check("recalgn")
    assert "'recalign'" in error.value.hint


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("sign", ["_", "-"])
def test_new_writes_a_package_whose_test_and_check_pass(kind, sign, site):
    folder, name = site / "made", f"my{sign}{kind}"
    plugins.new(kind, name, folder)
    test = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    done = subprocess.run(test, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert " passed" in done.stdout

    sys.path.insert(0, str(folder))
    project = tomllib.loads((folder / "pyproject.toml").read_text("utf-8"))
    ((declared, module),) = project["project"]["entry-points"][KINDS[kind].group].items()
    assert declared == name
    assert project["tool"]["hatch"]["build"]["targets"]["wheel"]["only-include"] == [f"{module}.py"]
    point = EntryPoint(declared, module, KINDS[kind].group)
    assert check(PluginEntry(kind, declared, project["project"]["name"], "0.1.0", point)) == []


def test_a_reward_with_a_hyphen_is_written_in_expressions_like_any_other(site):
    plugins.new("metric", "my-reward", site / "made")
    sys.path.insert(0, str(site / "made"))
    install(site, "recalign-my-reward", {"recalign.metrics": {"my-reward": "recalign_my_reward"}}, {})
    expression = parse_expression("ndcg@5-0.5*my-reward(weight=2) - my-reward")
    assert [(term.coefficient, term.metric.name) for term in expression.terms] == [
        (1.0, "ndcg"),
        (-0.5, "my-reward"),
        (-1.0, "my-reward"),
    ]
    assert parse_expression(expression.text).text == expression.text
    assert [term.text for term in parse_expression("ndcg-mgu").terms] == ["ndcg", "mgu"]
    for text in ("my - reward", "my -reward", "my- reward"):
        with pytest.raises(UserError, match="no metric named 'my'"):
            parse_expression(text)


def test_a_kind_answers_to_all_of_its_words(capsys, site):
    _, metrics, _ = call(capsys, "list", "--kind", "metric")
    _, rewards, _ = call(capsys, "list", "--kind", "reward")
    assert rewards == metrics
    _, shown, _ = call(capsys, "show", "popularity", "--kind", "baseline")
    assert [plugin["kind"] for plugin in shown["plugins"]] == ["recommender"]
    plugins.new("reward", "my-reward", site / "made")
    assert '[project.entry-points."recalign.metrics"]' in (site / "made" / "pyproject.toml").read_text("utf-8")


RECOMMENDER = '''"""A made-up recommender."""
import numpy as np
from recalign.api import Recommender, hookimpl


class Flat(Recommender):
    """Scores items by a number that it learns."""

    def fit(self, data, seed):
        self.values = np.arange(len(data.catalogue), dtype=float)

    def scores(self, rows):
        return np.tile(self.values, (len(rows), 1))

    def save(self, folder):
        np.save(folder / "values.npy", self.values)

    def load(self, folder, catalogue):
        self.values = np.load(folder / "values.npy")


@hookimpl
def recalign_recommender():
    return Flat
'''


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("", "", None),
        ("np.tile(self.values, (len(rows), 1))", "self.values", "shape (8,) for 3 rows and 8 items"),
        ("np.tile(self.values, (len(rows), 1))", "np.full((len(rows), 8), np.nan)", "returns NaN"),
        ("np.tile(self.values,", "np.tile(np.random.rand(8),", "two values for the same rows"),
        ("np.tile(self.values,", "np.tile(self.values * len(rows),", "depend on the rows beside it"),
        ('= np.load(folder / "values.npy")', "= np.zeros(len(catalogue))", "differ after save and load"),
        ("np.save(folder", "self.missing(folder", "AttributeError"),
    ],
)
def test_check_tries_recommenders(site, old, new, message):
    assert old in RECOMMENDER
    source = RECOMMENDER.replace(old, new) if old else RECOMMENDER
    install(site, "fake-flat", {"recalign.recommenders": {"flat": "fake_flat"}}, {"fake_flat": source})
    problems = check(find_entry("recommender", "flat"))
    assert problems == [] if message is None else any(message in problem for problem in problems)


CORPUS = '''"""A made-up metric of all lists together."""
from recalign.api import CorpusMetric, hookimpl


class Length(CorpusMetric):
    """Mean length."""

    def score(self, predictions, rows):
        return predictions.lengths.mean()


@hookimpl
def recalign_metric():
    return Length
'''


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        ("predictions.lengths.mean()", None),
        ("predictions.lengths", "shape (6,)"),
        ("predictions.lengths.mean() * float('nan')", "NaN or infinity"),
    ],
)
def test_check_tries_metrics_of_all_lists_together(site, returned, message):
    source = CORPUS.replace("predictions.lengths.mean()", returned)
    install(site, "fake-corpus", {"recalign.metrics": {"corpus": "fake_corpus"}}, {"fake_corpus": source})
    problems = check(find_entry("metric", "corpus"))
    assert problems == [] if message is None else any(message in problem for problem in problems)


@pytest.mark.parametrize(
    ("kind", "name"),
    [("metrics", "x"), ("metric", "My-Thing"), ("metric", "class"), ("metric", "-x"), ("decoder", "a--b")],
)
def test_new_refuses_odd_kinds_and_names(kind, name, tmp_path):
    with pytest.raises(UserError):
        plugins.new(kind, name, tmp_path / "made")
    assert not (tmp_path / "made").exists()


def test_new_never_writes_into_a_folder_with_something_in_it(tmp_path):
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(UserError, match="not empty"):
        plugins.new("metric", "x", tmp_path)
