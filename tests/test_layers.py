"""The import layers of docs/architecture.md, read off the source."""

import ast
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
MODULES = sorted(path for path in PACKAGE.rglob("*.py") if path.parent.name != "recipes")

# From the bottom up: a module may import what is on its own level or below it.
LEVELS = [
    {"errors", ""},
    {"console", "locks", "removal", "workspace", "params"},
    {"hookspecs"},
    {"data", "registry", "api"},  # what a source hands over is prepared by data; api shows plugins its rows
    {"rewards", "objectives", "sources"},
    {"evaluation"},
    {"generation"},
    {"decoders"},
    {"training"},
    {"checks", "scaffold", "signatures"},
    {"recipe"},
    {"planning"},
    {"workers", "scheduler"},
    {"commands"},
    {"cli", "__main__"},
]
LEVEL = {name: level for level, names in enumerate(LEVELS) for name in names}
PUBLIC = ("recalign.api", "recalign.errors", "recalign.metrics.expression", "recalign.recommenders.assistants")

TORCH_BELONGS = {"objectives", "training", "generation", "decoders"}


def room(path: Path) -> str:
    """`commands` of recalign/commands/run.py, `cli` of recalign/cli.py, `` of recalign/__init__.py."""
    first = path.relative_to(PACKAGE).parts[0]
    return "" if first == "__init__.py" else first.removesuffix(".py")


def imports(path: Path, *, module_level: bool) -> set[str]:
    """Full names of what a module imports, leaving out what is for type checkers only."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    typing_only = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")
        for inner in ast.walk(node)
    }
    local = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        for inner in ast.walk(node)
    }
    names = set()
    for node in ast.walk(tree):
        if id(node) in typing_only or (module_level and id(node) in local):
            continue
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} uses a relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module}
    return names


def rooms_imported(path: Path, *, module_level: bool) -> set[str]:
    parts = (name.split(".") for name in imports(path, module_level=module_level))
    return {split[1] for split in parts if split[0] == "recalign" and len(split) > 1 and split[1] in LEVEL}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_only_go_down(path):
    assert room(path) in LEVEL, f"{path.name} has no place in the layers"
    upward = {name for name in rooms_imported(path, module_level=True) if LEVEL[name] > LEVEL[room(path)]}
    assert upward == set()


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_heavy_libraries_are_imported_at_module_level_only_where_they_belong(path):
    found = {name.split(".")[0] for name in imports(path, module_level=True)} & HEAVY
    allowed = {"torch"} | (HEAVY if room(path) == "training" else set()) if room(path) in TORCH_BELONGS else set()
    allowed |= {"transformers"} if room(path) == "generation" else set()
    assert found <= allowed


@pytest.mark.parametrize(
    "path",
    [path for path in MODULES if room(path) in {"rewards", "objectives", "decoders", "sources"}],
    ids=lambda p: p.stem,
)
def test_built_in_plugins_use_the_public_api_and_their_own_kind_only(path):
    public = (*PUBLIC, f"recalign.{room(path)}")
    strangers = {name for name in imports(path, module_level=False) if name.startswith("recalign.")}
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
