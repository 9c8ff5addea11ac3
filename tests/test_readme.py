"""README and docs: the commands that they show exist and parse, CI runs them, and the snippets work."""

import itertools
import re
import shlex
import sys
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest

from recalign import cli
from recalign.workflow.plan import plan
from recalign.workflow.recipe import embedded_recipes, load_recipe
from recalign.workflow.signatures import UsageError, signature_of

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
    _, command, *arguments = itertools.takewhile(lambda word: word not in ("<", ">", "|"), shlex.split(line))
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
    prose = re.sub(r"^```.*?^```", "", DOCS[path], flags=re.DOTALL | re.MULTILINE)  # code indexes and calls: `a[b](c)`
    targets = [link for link in re.findall(r"\]\(([^)#]+)\)", prose) if "://" not in link]
    assert [link for link in targets if not (path.parent / link).exists()] == []


def write_atomic_files(folder):
    """A small stand-in for MovieLens-100k: 50 users who rate 20 of 40 items."""
    folder.mkdir()
    random = np.random.default_rng(0)
    events = ["user_id:token\titem_id:token\trating:float\ttimestamp:float"]
    for user in range(50):
        for time, item in enumerate(random.permutation(40)[:20]):
            events.append(f"{user}\t{item}\t{random.integers(3, 6)}\t{1000 * user + time}")
    items = ["item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq"]
    items += [f"{item}\tFilm {item}\t1995\t{('Drama', 'Comedy')[item % 2]}" for item in range(40)]
    (folder / "ml-100k.inter").write_text("\n".join(events) + "\n")
    (folder / "ml-100k.item").write_text("\n".join(items) + "\n")


QUICK = {
    "prepare": ["--windows-per-user", "1"],
    "sft": ["--max-steps", "2", "--valid-rows", "8"],
    "align": [*"--max-steps 1 --prompts-per-step 2 --valid-rows 8 -p group_size=2 -p reference_lists=2".split()],
}
"""Options that make a walk through the docs short."""


@pytest.mark.parametrize(("file", "heading"), [("README.md", "One command at a time"), ("docs/tutorial.md", "")])
def test_the_commands_shown_work_one_after_the_other(file, heading, tmp_path, monkeypatch, capsys):
    write_atomic_files(tmp_path / "ml-100k")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RECALIGN_HOME")
    text = (ROOT / file).read_text(encoding="utf-8").partition(f"## {heading}")[2]
    text = text.partition("\n## ")[0] if heading else text
    lines = [line for block in fenced(text, "sh") for line in block.splitlines()]
    shown = [shlex.split(line)[1:] for line in lines if line.startswith("recalign ") and " run " not in line]
    assert [arguments[0] for arguments in shown][-1] in ("compare", "export")
    for arguments in shown:
        with pytest.raises(SystemExit) as stop:
            cli.main([*arguments, *QUICK.get(arguments[0], [])])
        assert not stop.value.code, (arguments, capsys.readouterr().err)


def test_the_recipe_in_the_docs_is_sound(tmp_path):
    text = fenced((ROOT / "docs/recipes.md").read_text(encoding="utf-8"), "toml")[0]
    (tmp_path / "x.toml").write_text(text, "utf-8")
    assert len(plan(load_recipe(str(tmp_path / "x.toml")), tmp_path)) == 1 + 1 + 2 + 2 + 2 + 1


def test_the_metric_in_the_docs_passes_the_check(tmp_path, monkeypatch):
    from recalign.commands.plugins import check
    from tests.fake_distribution import install

    source = fenced((ROOT / "docs/plugins.md").read_text(encoding="utf-8"), "python")[0]
    points = tomllib.loads(fenced((ROOT / "docs/plugins.md").read_text(encoding="utf-8"), "toml")[0])
    monkeypatch.syspath_prepend(str(tmp_path))
    install(tmp_path, "recalign-serendipity", points["project"]["entry-points"], {"recalign_serendipity": source})
    assert check("recalign-serendipity")["checked"] == ["metric serendipity"]


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
    page = {f"recalign/comparison/page/report.{suffix}" for suffix in ("html.jinja", "css", "js")}
    assert page <= set(names)


def test_a_source_distribution_can_be_built_from(tmp_path, monkeypatch):
    from hatchling import build

    monkeypatch.chdir(ROOT)
    names = tarfile.open(tmp_path / build.build_sdist(str(tmp_path))).getnames()
    tails = {name.partition("/")[2] for name in names}
    assert {"pyproject.toml", "README.md", "LICENSE", "constraints.txt", "recipes/quickstart.toml"} <= tails
