"""README and docs: the commands that they show exist and parse, CI runs them, and the snippets work."""

import re
import shlex
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from recalign import cli
from recalign.planning import plan
from recalign.recipe import embedded_recipes, load_recipe
from recalign.signatures import UsageError, signature_of

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
DOCS = {path: path.read_text(encoding="utf-8") for path in [ROOT / "README.md", *sorted(ROOT.glob("docs/**/*.md"))]}


def fenced(text, language):
    return re.findall(rf"```{language}\n(.*?)```", text, flags=re.DOTALL)


def shown_commands():
    """Every `recalign ...` line of a shell block or an indented block."""
    for path, text in DOCS.items():
        lines = [line for block in fenced(text, "sh") for line in block.splitlines()]
        lines += [line.strip() for line in text.splitlines() if line.startswith("    recalign ")]
        for line in lines:
            for part in line.split("&&"):
                if part.strip().startswith("recalign "):
                    where = path.relative_to(ROOT).as_posix()
                    yield pytest.param(re.split(r"\s{2,}", part.strip())[0], id=f"{where}: {part.strip()[:60]}")


def parse(line):
    """Parse as the command line would, running nothing."""
    _, command, *arguments = shlex.split(line)
    if command == "plugins":
        assert arguments[0] in {"list", "show", "check", "new"}
        return
    assert command in cli.COMMANDS
    signature_of(command).parse(arguments, line)


@pytest.mark.parametrize("line", shown_commands())
def test_commands_shown_parse(line):
    parse(line)


def test_an_option_that_does_not_exist_would_be_noticed():
    with pytest.raises((UsageError, Exception), match="No such option"):
        parse("recalign align --objektive blade")


def test_ci_runs_the_readmes_test_command():
    commands = [line for block in fenced(README, "sh") for line in block.splitlines()]
    assert commands[0] == "pip install -c constraints.txt . && recalign run quickstart"
    assert re.fullmatch(r'pip install -c constraints\.txt -e "\.\[test,dev\]" && pytest', commands[1])
    script = (ROOT / ".ci/run").read_text(encoding="utf-8")
    pattern = re.search(r"grep -E '(.*?)' README.md", script)[1]
    assert re.findall(pattern, README, flags=re.MULTILINE) == [commands[1]]


@pytest.mark.parametrize("path", DOCS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(path):
    targets = [link for link in re.findall(r"\]\(([^)#]+)\)", DOCS[path]) if "://" not in link]
    assert [link for link in targets if not (path.parent / link).exists()] == []


def test_the_recipe_in_the_docs_is_sound(tmp_path):
    text = fenced((ROOT / "docs/recipes.md").read_text(encoding="utf-8"), "toml")[0]
    (tmp_path / "x.toml").write_text(text, "utf-8")
    assert len(plan(load_recipe(str(tmp_path / "x.toml")), tmp_path)) == 1 + 1 + 2 + 2 + 2 + 1


def test_the_reward_in_the_docs_passes_the_check(tmp_path, monkeypatch):
    from recalign.commands.plugins import check
    from tests.fake_distribution import install

    source = fenced((ROOT / "docs/plugins.md").read_text(encoding="utf-8"), "python")[0]
    points = tomllib.loads(fenced((ROOT / "docs/plugins.md").read_text(encoding="utf-8"), "toml")[0])
    monkeypatch.syspath_prepend(str(tmp_path))
    install(tmp_path, "recalign-serendipity", points["project"]["entry-points"], {"recalign_serendipity": source})
    assert check("recalign-serendipity")["checked"] == ["reward serendipity"]


def test_constraints_pin_every_dependency_once_per_python():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["test"]]
    lines = [line for line in (ROOT / "constraints.txt").read_text("utf-8").splitlines() if line and line[0] != "#"]
    pins = [line.partition("==")[0] for line in lines]
    names = {re.split(r"[<>=;\[ ]", each)[0].lower().replace("_", "-") for each in wanted}
    assert names <= set(pins)
    assert "torch==2.13.0" in lines
    assert all("==" in line and "+" not in line and "@" not in line for line in lines)
    twice = {name for name in pins if pins.count(name) > 1}
    assert all("python_version" in line for line in lines if line.partition("==")[0] in twice)


def test_a_built_wheel_brings_the_recipes_and_the_entry_points(tmp_path, monkeypatch):
    from hatchling import build

    monkeypatch.chdir(ROOT)
    wheel = zipfile.ZipFile(tmp_path / build.build_wheel(str(tmp_path)))
    names = wheel.namelist()
    assert {f"recalign/recipes/{name}.toml" for name in embedded_recipes()} <= set(names)
    assert not [name for name in names if name.startswith(("tests/", "plugins/"))]
    metadata = next(name for name in names if name.endswith("entry_points.txt"))
    assert "blade = recalign.objectives.blade" in wheel.read(metadata).decode()


def test_a_source_distribution_can_be_built_from(tmp_path, monkeypatch):
    from hatchling import build

    monkeypatch.chdir(ROOT)
    names = tarfile.open(tmp_path / build.build_sdist(str(tmp_path))).getnames()
    tails = {name.partition("/")[2] for name in names}
    assert {"pyproject.toml", "README.md", "LICENSE", "constraints.txt", "recipes/quickstart.toml"} <= tails
