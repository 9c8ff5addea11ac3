"""A third party's package, installed into a fresh folder, works by its name alone."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

PLUGINS = Path(__file__).parents[2] / "plugins"
PACKAGES = ("recalign-novelty", "recalign-example-objective", "recalign-calibration", "recalign-rerank")

RECIPE = """
[[step]]
name = "data"
command = "prepare"
source = "synthetic"
params = { users = 60, items = 30 }

[[step]]
command = "sft"
data = "@data"
max-steps = 4

[[step]]
command = "align"
data = "@data"
model = "@sft"
objective = "OBJECTIVE"
reward = "ndcg@5 + 0.1*novelty"
max-steps = 2
report = false
params = { group_size = 4 }

[[step]]
command = "decode"
data = "@data"
model = "@align"

[[step]]
command = "eval"
predictions = "@decode"
metrics = "ndcg@5,novelty,novelty@3(smoothing=2)"
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A folder into which pip has installed both example packages."""
    folder = tmp_path_factory.mktemp("site")
    options = ["--quiet", "--no-deps", "--no-build-isolation", "--no-index", "--disable-pip-version-check", "--target"]
    packages = [str(PLUGINS / name) for name in PACKAGES]
    subprocess.run([sys.executable, "-m", "pip", "install", *options, str(folder), *packages], check=True)
    return folder


def recalign(site, *arguments, cwd=None):
    """Run the command line in a new process with --json; return what it prints."""
    environment = {**os.environ, "PYTHONPATH": str(site), "OMP_NUM_THREADS": "1"}
    environment.pop("RECALIGN_HOME", None)
    done = subprocess.run(
        [sys.executable, "-m", "recalign", *arguments, "--json"],
        cwd=cwd or site,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_the_packages_are_listed_with_their_versions(site):
    found = {row["name"]: row for row in recalign(site, "plugins", "list")["plugins"]}
    assert (found["novelty"]["kind"], found["novelty"]["package"]) == ("metric", "recalign-novelty")
    assert (found["rloo"]["kind"], found["rloo"]["package"]) == ("objective", "recalign-example-objective")
    assert not found["novelty"]["problem"]


@pytest.mark.parametrize("package", PACKAGES)
def test_the_packages_pass_the_check(site, package):
    assert recalign(site, "plugins", "check", package)["checked"]


def test_parameters_of_an_installed_plugin_are_shown(site):
    params = recalign(site, "plugins", "show", "novelty")["plugins"][0]["params"]
    assert [(row["name"], row["bounds"], row["default"]) for row in params] == [("smoothing", "> 0", 1.0)]


def test_a_reward_expression_of_an_installed_plugin_passes_a_dry_run(site, tmp_path):
    (tmp_path / "x.toml").write_text(RECIPE.replace("OBJECTIVE", "rloo"), "utf-8")
    assert len(recalign(site, "run", "x.toml", "--dry-run", cwd=tmp_path)["steps"]) == 5


@pytest.mark.slow
@pytest.mark.parametrize("objective", ["blade", "rloo"])
def test_an_installed_reward_aligns_and_evaluates(site, tmp_path, objective):
    recipe = RECIPE.replace("OBJECTIVE", objective)
    if objective == "blade":
        recipe = recipe.replace("group_size = 4", "group_size = 4, reference_lists = 4")
    (tmp_path / "x.toml").write_text(recipe, "utf-8")
    report = recalign(site, "run", "x.toml", cwd=tmp_path)
    metrics = report["steps"][-1]["results"]["metrics"]
    assert metrics["novelty"]["mean"] > 1.0
    assert {"ndcg@5", "novelty", "novelty@3(smoothing=2)"} <= set(metrics)
