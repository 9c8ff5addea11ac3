"""The layers of docs/architecture.md, read off the source: every import counts, in functions and for types too."""

import ast
import re
from collections import Counter
from functools import lru_cache
from pathlib import Path

import pytest

import recalign

PACKAGE = Path(recalign.__file__).parent
HEAVY = {
    "torch",
    "transformers",
    "datasets",
    "peft",
    "accelerate",
    "polars",
    "scipy",
    "matplotlib",
    "pyarrow",
    "tokenizers",
}
MODULES = sorted(path for path in PACKAGE.rglob("*.py") if path.relative_to(PACKAGE).parts[0] != "recipes")

# From the ground up: a room imports only rooms that stand before it, so no two rooms import each other.
ORDER = [
    "",  # recalign/__init__.py: the version
    "errors",
    "reading",
    "params",
    "locks",
    "removal",
    "console",
    "threads",
    "interrupts",
    "huge_pages",
    "invocation",
    "workspace",
    "data",
    "variations",
    "api",
    "plugins",
    "tasks",
    "runs",
    "preparation",
    "text",
    "recommenders",
    "metrics",
    "models",
    "decoding",
    "objectives",
    "backbones",
    "decoders",
    "sources",
    "teachers",
    "rationales",
    "testing",
    "evaluation",
    "training",
    "comparison",
    "commands",
    "workflow",
    "python",
    "cli",
    "__main__",
]
PLACE = {room: place for place, room in enumerate(ORDER)}

BUILT_IN = {"metrics", "objectives", "decoders", "sources", "recommenders", "backbones", "teachers"}
TORCH_BELONGS = {"objectives", "training", "decoding", "decoders", "models", "text", "recommenders"}
TRANSFORMERS_BELONG = {"training", "models", "decoding"}


def room(path: Path) -> str:
    """`commands` of recalign/commands/sft.py, `cli` of recalign/cli.py, `` of recalign/__init__.py."""
    first = path.relative_to(PACKAGE).parts[0]
    return "" if first == "__init__.py" else first.removesuffix(".py")


@lru_cache
def imports(path: Path, *, module_level: bool = False) -> set[str]:
    """Full names of what a module imports; at module level only: without functions' imports and those for types."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    apart = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        or (isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"))
        for inner in ast.walk(node)
    }
    names = set()
    for node in ast.walk(tree):
        if module_level and id(node) in apart:
            continue
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} uses a relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module}
    return names


def rooms_imported(path: Path) -> set[str]:
    parts = (name.split(".") for name in imports(path))
    return {split[1] for split in parts if split[0] == "recalign" and len(split) > 1 and split[1] in PLACE}


def test_every_room_has_its_place():
    assert {room(path) for path in MODULES} == set(ORDER)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_only_go_down(path):
    """Also in functions and for types: so there is no cycle between rooms."""
    here = PLACE[room(path)]
    assert {name for name in rooms_imported(path) if PLACE[name] > here} == set()


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_heavy_libraries_are_imported_at_module_level_only_where_they_belong(path):
    found = {name.split(".")[0] for name in imports(path, module_level=True)} & HEAVY
    lazy = path.parent == PACKAGE / "plugins" / "check"  # imported when a plugin is checked
    allowed = {"torch"} if room(path) in TORCH_BELONGS or lazy else set()
    allowed |= HEAVY if room(path) in TRANSFORMERS_BELONG else set()
    assert found <= allowed


PLUGINS = [path for path in MODULES if room(path) in BUILT_IN and "@hookimpl" in path.read_text(encoding="utf-8")]


@pytest.mark.parametrize("path", PLUGINS, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_built_in_plugins_use_what_third_parties_may_use_too(path):
    """The api, the errors, expressions of metrics, assistants, tasks, and helpers of their own kind."""
    public = (
        "recalign.api",
        "recalign.errors",
        "recalign.metrics.expression",
        "recalign.recommenders",
        "recalign.tasks",
        f"recalign.{room(path)}",
    )
    strangers = {name for name in imports(path) if name.startswith("recalign.")}
    assert {name for name in strangers if not name.startswith(public)} == set()


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_files_are_read_in_one_sitting(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 400


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_functions_fit_a_screen(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    long = {
        node.name: node.end_lineno - node.lineno + 1
        for node in functions
        if node.end_lineno - node.body[0].lineno + 1 > 70  # a command's signature is its option list
    }
    assert long == {}


def test_no_two_classes_have_one_name():
    """But plugins, which are named like their methods: the objective and the decoder `judge`."""
    names = Counter(
        node.name
        for path in MODULES
        if path not in PLUGINS
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(node, ast.ClassDef)
    )
    assert {name for name, count in names.items() if count > 1} == set()


def test_packages_of_a_room_do_not_import_each_other():
    """`training/online` rests on `training/logprobs` and never the other way round."""
    packages = {".".join(("recalign", *path.relative_to(PACKAGE).parts)): path for path in PACKAGE.glob("*/*/")}
    packages = {name: path for name, path in packages.items() if (path / "__init__.py").exists()}
    imported = {name: set().union(*map(imports, path.rglob("*.py"))) for name, path in packages.items()}
    pairs = {
        (one, two) for one in packages for two in packages if any(f"{x}.".startswith(f"{two}.") for x in imported[one])
    }
    assert ("recalign.training.online", "recalign.training.logprobs") in pairs
    assert {(one, two) for one, two in pairs if one < two and (two, one) in pairs} == set()


PROSE = sorted([*(PACKAGE.parent / "docs").rglob("*.md"), PACKAGE.parent / "README.md"])
ROOTS = {path.name for path in (PACKAGE, PACKAGE.parent) for path in path.iterdir() if path.is_dir()}


@pytest.mark.parametrize("path", PROSE, ids=lambda path: str(path.relative_to(PACKAGE.parent)))
def test_files_of_this_project_that_prose_names_exist(path):
    """A lone `trainer.py` may be any module; a name in capitals is the reader's, and `runs/data/` the workspace's."""
    named = re.findall(r"`((?:[\w.-]+/)*[\w-]+\.py|(?:[\w.-]+/)+)`", path.read_text(encoding="utf-8"))
    ours = [name for name in named if name.endswith(".py") or (name.split("/")[0] in ROOTS and name[:5] != "runs/")]
    modules = {module.name for module in MODULES}
    places = (PACKAGE.parent, PACKAGE, path.parent)
    lost = {name for name in ours if name not in modules and not any((place / name).exists() for place in places)}
    assert {name for name in lost if not re.search("[A-Z]{2}", name)} == set()
