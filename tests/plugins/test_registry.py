"""The registry: names without imports, clashes, broken packages, hooks that do not fit."""

import subprocess
import sys
from importlib.metadata import entry_points

import pytest

from recalign.api import Metric
from recalign.commands import plugins
from recalign.errors import UserError
from recalign.plugins import registry
from recalign.plugins.kinds import KINDS
from tests.fake_distribution import REWARD, install


@pytest.fixture
def site(tmp_path, monkeypatch):
    """A folder on sys.path whose modules are forgotten afterwards."""
    monkeypatch.syspath_prepend(str(tmp_path))
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if str(tmp_path) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


def rewards(**names):
    return {"recalign.metrics": names}


def test_a_third_party_plugin_is_found_by_its_entry_points_name(site):
    install(site, "fake-length", rewards(length="fake_length"), {"fake_length": REWARD})
    cls = registry.find("metric", "length")
    assert issubclass(cls, Metric)
    assert registry.create("metric", "length", {"weight": "2"}).params.weight == 2.0
    entry = registry.find_entry("metric", "length")
    assert (entry.package, entry.version, entry.summary, entry.problem) == (
        "fake-length",
        "1.2",
        "A made-up reward.",
        "",
    )


def test_two_packages_that_claim_one_name_are_both_named(site):
    for package in ("fake-one", "fake-two"):
        module = package.replace("-", "_")
        install(site, package, rewards(length=module), {module: REWARD})
    with pytest.raises(UserError, match="claimed by fake-one 1.2 and fake-two 1.2"):
        registry.find("metric", "length")
    assert [entry.package for entry in registry.list_plugins("metric") if entry.name == "length"] == [
        "fake-one",
        "fake-two",
    ]
    assert registry.find("metric", "ndcg").__name__ == "NDCG"


def test_a_claim_to_a_built_in_name_is_an_error_not_an_override(site):
    install(site, "fake-ndcg", rewards(ndcg="fake_ndcg"), {"fake_ndcg": REWARD})
    with pytest.raises(UserError, match="'ndcg' is claimed by fake-ndcg 1.2 and recalign"):
        registry.find("metric", "ndcg")


def test_one_distribution_found_twice_is_no_clash(site, tmp_path_factory, monkeypatch):
    other = tmp_path_factory.mktemp("again")
    for folder in (site, other):
        install(folder, "fake-length", rewards(length="fake_length"), {"fake_length": REWARD})
    monkeypatch.syspath_prepend(str(other))
    assert len([entry for entry in registry.list_plugins("metric") if entry.name == "length"]) == 1


def test_a_package_that_fails_to_import_is_named_and_hurts_nothing_else(site):
    install(site, "fake-broken", rewards(broken="fake_broken"), {"fake_broken": "import there_is_no_such_module\n"})
    with pytest.raises(
        UserError, match="'broken' of package fake-broken 1.2 fails to import: ModuleNotFoundError"
    ) as error:
        registry.find("metric", "broken")
    assert "every other plugin still works" in error.value.hint
    assert issubclass(registry.find("metric", "recall"), Metric)


@pytest.mark.parametrize(
    ("source", "problem"),
    [("def (:\n", "does not parse"), (None, "there is no module fake_odd")],
    ids=["syntax error", "missing module"],
)
def test_listing_tells_broken_packages_without_importing_them(site, source, problem):
    install(site, "fake-odd", rewards(odd="fake_odd"), {"fake_odd": source} if source else {})
    entry = registry.find_entry("metric", "odd")
    assert problem in entry.problem
    assert entry.summary == ""
    assert "fake_odd" not in sys.modules


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (REWARD.replace("def recalign_metric():", "def recalign_metric(config):"), "has a hook that does not fit"),
        (REWARD.replace("def recalign_metric():", "def recalign_rewrd():"), "has a hook that does not fit"),
        (REWARD.replace("return Length", "return Params"), "returns no AnyMetric class"),
        (REWARD.replace("return Length", "return Length()"), "returns no AnyMetric class"),
        (REWARD.replace("return Length", "return Lenght"), "NameError"),
        ("VALUE = 1\n", "returns no AnyMetric class"),
    ],
    ids=["argument", "misspelt hook", "wrong class", "instance", "hook raises", "no hook"],
)
def test_a_hook_that_does_not_fit_is_explained(site, source, message):
    install(site, "fake-hook", rewards(hook="fake_hook"), {"fake_hook": source})
    with pytest.raises(UserError, match=message) as error:
        registry.find("metric", "hook")
    assert "fake-hook" in error.value.what


def test_an_unknown_name_suggests_the_nearest():
    with pytest.raises(UserError, match="There is no objective named 'blad'") as error:
        registry.find("objective", "blad")
    assert error.value.hint == "Did you mean 'blade' or 'bear'?"


def test_one_name_may_serve_two_kinds():
    kinds = {entry.kind for entry in registry.list_plugins() if entry.name == "bon"}
    assert kinds == {"objective", "decoder"}


def test_every_built_in_comes_through_an_entry_point_and_none_is_broken():
    entries = [entry for entry in registry.list_plugins() if entry.package == "recalign"]
    declared = sum(len(entry_points(group=kind.group)) for kind in KINDS.values())
    assert 15 <= len(entries) <= declared
    assert {entry.name: entry.problem for entry in entries if entry.problem} == {}
    assert all(entry.summary for entry in entries)


def test_listing_imports_no_plugin_and_nothing_heavy():
    program = (
        "import sys; from recalign.plugins.registry import list_plugins; "
        "[(entry.summary, entry.problem) for entry in list_plugins()]; "
        "print(sorted(m for m in sys.modules if m.startswith('recalign.') or m in ('torch', 'polars', 'transformers')))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert (
        done.stdout.strip()
        == "['recalign.errors', 'recalign.params', 'recalign.plugins', 'recalign.plugins.hookspecs', "
        "'recalign.plugins.kinds', 'recalign.plugins.registry']"
    )


def test_a_group_that_is_not_read_is_told_wherever_its_plugin_is_missed(site, call):
    install(site, "fake-length", {"recalign.metric": {"length": "fake_length"}}, {"fake_length": REWARD})
    said = "fake-length declares 'length' in the entry-point group 'recalign.metric', which is not read. "
    assert registry.strays() == [said + "Did you mean 'metrics'?"]
    with pytest.raises(UserError, match="There is no metric named 'length'") as caught:
        registry.find("metric", "length")
    assert caught.value.hint == said + "Did you mean 'metrics'?"
    assert plugins.list_()["unread"] == [said + "Did you mean 'metrics'?"]
    for command, expected in (("list",), 0), (("show", "length"), 2), (("check", "fake-length"), 2):
        code, told = call("plugins", *command)
        assert code == expected and said.strip() in told


def test_a_group_of_another_program_is_none_of_ours(site):
    install(site, "other", {"recaligner.metrics": {"length": "fake_length"}}, {"fake_length": REWARD})
    assert registry.strays() == []
