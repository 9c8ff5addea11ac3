"""Deleting: what is not this recipe's own, at rest and inside its folder stays, whatever the records say."""

import ast
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

import recalign
from recalign import removal
from recalign.errors import UserError
from recalign.removal import discard, remove_run, sweep
from recalign.workflow.plan import plan
from recalign.workflow.recipe import load_recipe
from recalign.workflow.scheduler import execute
from recalign.workflow.signatures import signature_of
from recalign.workspace import RunFolder, atomic, write_json
from tests import fake_commands

RECIPE = """
[[step]]
name = "data"
command = "prepare"
matrix.fold = [1, 2]

[[step]]
name = "sft"
command = "sft"
data = "@data"
"""
ROOT = Path("runs/x")
STEP = ROOT / "sft/fold=1"


@pytest.fixture(autouse=True)
def fakes(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RECALIGN_HOME", raising=False)
    fake_commands.install(monkeypatch)
    Path("x.toml").write_text(RECIPE, "utf-8")
    yield
    signature_of.cache_clear()


def run(*overrides, **options):
    execute(plan(load_recipe("x.toml", overrides), ROOT), ROOT, **options)


def tree(*folders):
    """All files with their content, links with their targets."""
    paths = [path for folder in folders for path in sorted(Path(folder).rglob("*"))]
    return {
        str(path): os.readlink(path) if path.is_symlink() else path.read_bytes()
        for path in paths
        if path.is_symlink() or path.is_file()
    }


def by_hand(folder, status="done", **facts):
    """A run that a user made with a command."""
    made = RunFolder(Path(folder))
    made.begin("sft", {"epochs": 7}, {})
    (made.path / "half").write_text("hours of work")
    if status == "done":
        made.finish({})
    if facts:
        write_json(made.path / "run.json", {**made.record, **facts})
    return made


def edit(file, change):
    content = json.loads(Path(file).read_text())
    change(content)
    Path(file).write_text(json.dumps(content))


def refused(*overrides, naming, **options):
    """A changed recipe is refused with what is in the way; every file is as it was, but for the steps that go on."""
    before = tree(".")
    with pytest.raises(UserError) as error:
        run("sft.epochs=3", *overrides, **options)
    told = f"{error.value}"
    for word in (naming, "sft/fold=1"):
        assert word in told
    goes_on = (str(ROOT / "recipe.json"), *([str(ROOT / "sft/fold=2")] if options.get("keep_going") else []))
    kept = {name: content for name, content in before.items() if not name.startswith(goes_on)}
    after = tree(".")
    assert {name: after.get(name) for name in kept} == kept
    return told


def test_what_the_recipe_made_is_removed_and_made_again():
    run()
    (STEP / "log").mkdir()
    run("sft.epochs=3")
    assert RunFolder(STEP).record["options"]["epochs"] == 3.0
    assert not (STEP / "log").exists()
    claim = RunFolder(STEP).record["claim"]
    assert claim == json.loads((ROOT / "recipe.json").read_text())["sft/fold=1"]["claim"]
    assert (claim["recipe"], claim["step"]) == ("x", "sft/fold=1")


def test_a_step_that_was_refused_owns_nothing_afterwards():
    by_hand(STEP)
    before = tree(STEP)
    with pytest.raises(UserError, match="holds another run"):
        run()
    for _ in range(2):
        assert "this recipe did not make" in refused(naming="by hand")
    assert tree(STEP) == before


def test_a_process_at_work_in_a_steps_folder_is_not_disturbed():
    run()
    work = (
        "from pathlib import Path; from recalign.workspace import RunFolder as R\n"
        f"R(Path({str(STEP)!r})).begin('sft', {{}}, {{}}, overwrite=True); print('begun', flush=True); input()"
    )
    with subprocess.Popen([sys.executable, "-c", work], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout.readline() == b"begun\n"
        (STEP / "half").write_text("x")
        refused(naming=f"Process {other.pid} is at work")
        # even where run.json carries the recipe's claim
        claim = json.loads((ROOT / "recipe.json").read_text())["sft/fold=1"]["claim"]
        edit(STEP / "run.json", lambda record: record.update(claim=claim))
        refused(naming=f"Process {other.pid} is at work")
        refused(naming=f"Process {other.pid} is at work", jobs=2)
        other.kill()
    run("sft.epochs=3")


def _note(text="mine"):
    (STEP / "notes.txt").write_text(text)


def _deep_note():
    (STEP / "model").mkdir()
    (STEP / "model" / "notes.txt").write_text("mine")


def _link_inside():
    outside = Path("outside")
    outside.mkdir()
    (outside / "thesis.tex").write_text("mine")
    (STEP / "link").symlink_to(outside.resolve())


def _link_instead():
    shutil.move(STEP, "elsewhere")
    STEP.symlink_to(Path("elsewhere").resolve())


def _link_above():
    shutil.move(STEP.parent, "elsewhere")
    STEP.parent.symlink_to(Path("elsewhere").resolve())


def _nested_run():
    by_hand(STEP / "decode-beam-test")


def _nested_run_in_capitals():
    (STEP / "decode").mkdir()
    (STEP / "decode" / "RUN.JSON").write_text("{}")


def _nested_recipe():
    Path("y.toml").write_text(RECIPE, "utf-8")
    execute(plan(load_recipe("y.toml"), STEP / "y"), STEP / "y")


def _another_recipe():
    shutil.rmtree(STEP)
    Path("y.toml").write_text(RECIPE, "utf-8")
    execute(plan(load_recipe("y.toml"), Path("runs/y")), Path("runs/y"))
    shutil.move("runs/y/sft/fold=1", STEP)


def _exchanged():
    shutil.move(STEP, "spare")
    shutil.move(ROOT / "sft/fold=2", STEP)
    shutil.move("spare", ROOT / "sft/fold=2")


def _by_hand_instead():
    shutil.rmtree(STEP)
    by_hand(STEP)


def _ledger_names_a_foreign_run():
    """The hand-edited recipe.json agrees with run.json of another recipe's step in all but whose it is."""
    _another_recipe()
    theirs = RunFolder(STEP).record["claim"]
    edit(ROOT / "recipe.json", lambda steps: steps["sft/fold=1"]["claim"].update(token=theirs["token"]))


def _ledger_without_claim():
    edit(ROOT / "recipe.json", lambda steps: steps["sft/fold=1"].pop("claim"))


def _empty_claims():
    edit(ROOT / "recipe.json", lambda steps: steps["sft/fold=1"].update(claim={}))
    edit(STEP / "run.json", lambda record: record.pop("claim"))


def _claims_of_nothing():
    edit(ROOT / "recipe.json", lambda steps: steps["sft/fold=1"].update(claim={}))
    edit(STEP / "run.json", lambda record: record.update(claim={}))


def _claims_of_another_step():
    _exchanged()
    edit(ROOT / "recipe.json", lambda steps: steps["sft/fold=1"].update(claim=steps["sft/fold=2"]["claim"]))


def _lost_ledger():
    (ROOT / "recipe.json").unlink()
    run()


def _lying_record():
    edit(STEP / "run.json", lambda record: record.update(files=[*record["files"], "../../../x.toml"]))
    _note()


def _linked_record():
    shutil.move(STEP / "run.json", "run.json")
    (STEP / "run.json").symlink_to(Path("run.json").resolve())


def _pipe():
    os.mkfifo(STEP / "pipe")


CASES = {
    _note: "notes.txt",
    _deep_note: "model/notes.txt",
    _link_inside: "link",
    _link_instead: "symbolic link",
    _link_above: "symbolic link",
    _nested_run: "decode-beam-test",
    _nested_run_in_capitals: "decode",
    _nested_recipe: "y",
    _another_recipe: "recipe y",
    _exchanged: "step 'sft/fold=2'",
    _by_hand_instead: "by hand",
    _ledger_names_a_foreign_run: "recipe y",
    _ledger_without_claim: "did not make",
    _empty_claims: "did not make",
    _claims_of_nothing: "did not make",
    _claims_of_another_step: "did not make",
    _lost_ledger: "did not make",
    _lying_record: "notes.txt",
    _linked_record: "changed by somebody else",
    _pipe: "pipe",
}


@pytest.mark.parametrize("happened", CASES, ids=lambda case: case.__name__.strip("_"))
@pytest.mark.parametrize("keep_going", [False, True], ids=["stop", "keep-going"])
def test_a_changed_recipe_removes_nothing_that_is_not_its_own(happened, keep_going):
    run()
    happened()
    refused(naming=CASES[happened], keep_going=keep_going)


@pytest.mark.parametrize("text", ["", "{", "[]", "1", '{"options": 3}', '{"process": [1]}'])
def test_a_broken_run_json_is_refused_without_a_traceback(text):
    run()
    (STEP / "run.json").write_text(text)
    before = tree(STEP)
    with pytest.raises(UserError, match=r"run\.json"):
        run("sft.epochs=3")
    assert tree(STEP) == before


@pytest.mark.parametrize("text", ["{", "[]", '{"sft": 1}', '{"sft/fold=1": {"key": "x"}}'])
def test_a_broken_recipe_json_is_refused_without_a_traceback(text):
    run()
    (ROOT / "recipe.json").write_text(text)
    before = tree(ROOT)
    with pytest.raises(UserError, match=r"recipe\.json"):
        run("sft.epochs=3")
    assert tree(ROOT) == before


def test_a_refusal_comes_before_hours_of_other_steps():
    run()
    _note()
    fake_commands.calls.clear()
    refused("data.seed=5", naming="notes.txt")
    assert fake_commands.calls == []


def test_an_unfinished_step_by_hand_is_not_removed_although_it_cannot_resume():
    folder = RunFolder(ROOT / "data/fold=1")
    folder.begin("prepare", {"source": "elsewhere"}, {})
    (folder.path / "half").write_text("x")
    folder.interrupt()
    before = tree(folder.path)
    with pytest.raises(UserError, match="holds another run"):
        run()
    assert tree(folder.path) == before


class Killed(BaseException):
    """The process ends here, with no handler of ours."""


STOPS = [
    ("recalign.workflow.scheduler.Ledger.note", "before"),
    ("recalign.workflow.scheduler.Ledger.note", "after"),
    ("recalign.workspace.RunFolder.clear", "before"),
    ("recalign.workspace.RunFolder.clear", "after"),
    ("pathlib.Path.rename", "before"),
    ("pathlib.Path.rename", "after"),
    ("pathlib.Path.unlink", "before"),
    ("pathlib.Path.unlink", "after"),
    ("pathlib.Path.rmdir", "before"),
    ("pathlib.Path.rmdir", "after"),
    ("recalign.workspace.RunFolder.begin", "after"),
    ("recalign.workspace.RunFolder.finish", "before"),
    ("recalign.workspace.RunFolder.finish", "after"),
]


@pytest.mark.parametrize("count", range(3))
@pytest.mark.parametrize(("where", "when"), STOPS, ids=lambda value: value.rpartition(".")[2])
def test_killed_at_any_moment_the_next_run_ends_as_one_that_was_not(where, when, count, monkeypatch):
    owner, name = where.rsplit(".", 1)
    target = Path if owner == "pathlib.Path" else getattr(sys.modules[owner.rpartition(".")[0]], owner.split(".")[-1])
    real, calls = getattr(target, name), []

    def stop(*arguments, **options):
        if owner == "pathlib.Path" and ".tmp" in str(arguments[0]):  # of writing; see test_workspace
            return real(*arguments, **options)
        calls.append(arguments)
        if len(calls) == count + 1 and when == "before":
            raise Killed
        result = real(*arguments, **options)
        if len(calls) == count + 1:
            raise Killed
        return result

    run()
    with monkeypatch.context() as patch:
        patch.setattr(target, name, stop)
        try:
            run("sft.epochs=3")
        except Killed:
            pass
    (ROOT / "recipe.lock").unlink(missing_ok=True)
    run("sft.epochs=3")
    found = sorted(str(path.relative_to(ROOT)) for path in ROOT.rglob("*") if path.is_file())
    steps = [
        f"{name}/fold={fold}/{file}" for name in ("data", "sft") for fold in (1, 2) for file in ("half", "run.json")
    ]
    assert found == sorted([*steps, "recipe.json"])
    assert not [path for path in ROOT.rglob(".*")]
    assert all(RunFolder(ROOT / f"sft/fold={fold}").record["options"]["epochs"] == 3.0 for fold in (1, 2))
    run("sft.epochs=4")  # all of it is still the recipe's own


class TestRemoveRun:
    def test_a_folder_replaced_between_the_look_and_the_removal_comes_back(self, monkeypatch):
        made = by_hand("runs/sft")
        record = made.record
        real = removal.check_run

        def look(folder, *arguments, **options):
            real(folder, *arguments, **options)
            shutil.move(folder, "gone")
            Path(folder).mkdir()
            (Path(folder) / "thesis.tex").write_text("mine")

        monkeypatch.setattr(removal, "check_run", look)
        with pytest.raises(UserError, match="changed by somebody else"):
            remove_run(made.path, record)
        assert tree("runs") == {"runs/sft/thesis.tex": b"mine"}

    def test_what_comes_in_during_the_removal_is_kept_and_named(self, monkeypatch):
        made = by_hand("runs/sft")
        real = removal._delete

        def delete(content):
            (content.folder / "late.txt").write_text("mine")
            real(content)

        monkeypatch.setattr(removal, "_delete", delete)
        with pytest.raises(UserError, match="while it was being removed") as error:
            remove_run(made.path, made.record)
        (kept,) = Path("runs").rglob("late.txt")
        assert kept.parent.name in error.value.what

    @pytest.mark.parametrize("folder", ["runs/x/../sft", "sft", "runs/x", "/"])
    def test_what_lies_outside_is_refused(self, folder):
        by_hand("runs/sft")
        by_hand("sft")
        before = tree(".")
        with pytest.raises(UserError, match="does not lie in"):
            remove_run(Path(folder), {"command": "sft"}, within=Path("runs/x"))
        assert tree(".") == before

    def test_the_folder_that_one_is_in_is_refused(self, monkeypatch):
        made = by_hand("runs/sft")
        monkeypatch.chdir(made.path)
        with pytest.raises(UserError, match="that you are in"):
            RunFolder(Path(".")).begin("sft", {}, {}, overwrite=True)
        assert (made.path.resolve() / "half").exists() or Path("half").exists()

    def test_runs_at_rest_inside_go_with_an_overwritten_one_but_not_a_recipes(self):
        made = by_hand("runs/sft")
        by_hand("runs/sft/decode/eval")
        RunFolder(Path("runs/sft")).begin("sft", {}, {}, overwrite=True)
        assert os.listdir("runs/sft") == ["run.json"]
        by_hand("runs/sft/decode", claim={"recipe": "x", "step": "decode", "token": "0"})
        (made.path / "half").write_text("x")
        with pytest.raises(UserError, match="runs/sft/decode"):
            made.begin("sft", {"epochs": 1}, {}, overwrite=True)
        assert (made.path / "decode/half").exists()

    def test_of_an_unfinished_run_only_what_such_a_run_makes_is_removed(self):
        made = RunFolder(Path("runs/sft"))
        made.begin("sft", {}, {}, makes=("model", "check*"))
        for file in ("model/weights", "checkpoints/1/state"):
            (made.path / file).parent.mkdir(parents=True)
            (made.path / file).write_text("x")
        (made.path / "notes.txt").write_text("mine")
        with pytest.raises(UserError, match=r"notes\.txt"):
            made.begin("sft", {"epochs": 1}, {}, overwrite=True)
        made.finish({})
        assert made.record["files"] == [
            "checkpoints/1/state",
            "model/weights",
        ]  # what was put there meanwhile is no part
        with pytest.raises(UserError, match=r"notes\.txt"):
            made.begin("sft", {"epochs": 1}, {}, overwrite=True)
        (made.path / "notes.txt").unlink()
        assert made.begin("sft", {"epochs": 1}, {}, overwrite=True) == "fresh"
        assert os.listdir(made.path) == ["run.json"]

    def test_caches_that_others_make_in_a_run_go_with_it(self):
        made = by_hand("runs/data")
        (made.path / ".tries").mkdir()
        (made.path / ".tries" / "a.safetensors").write_text("x")
        assert made.begin("sft", {}, {}, overwrite=True) == "fresh"

    def test_a_removal_that_a_kill_cut_short_is_finished_by_the_next_run(self):
        made = by_hand("runs/sft")
        made.path.rename("runs/.sft.999999999.removed")
        Path("runs/.sft.999999998.removed").mkdir()
        Path("runs/.sft.999999998.removed/thesis.tex").write_text("mine")  # nothing proves that this is ours
        alive = Path(f"runs/.sft.{os.getppid()}.removed")
        shutil.copytree("runs/.sft.999999999.removed", alive)
        sweep(made.path)
        assert sorted(os.listdir("runs")) == sorted([".sft.999999998.removed", alive.name])


class TestDiscard:
    def test_files_and_folders_inside_go_and_missing_ones_are_fine(self):
        Path("run/checkpoints/1").mkdir(parents=True)
        Path("run/checkpoints/1/state").write_text("x")
        discard(Path("run/checkpoints"), inside=Path("run"))
        discard(Path("run/checkpoints"), inside=Path("run"))
        assert os.listdir("run") == []

    @pytest.mark.parametrize(
        "path", ["run", "run/../thesis", "thesis", "run/link", "run/link/a", "run/inner", "run/old"]
    )
    def test_what_is_outside_or_a_link_or_a_run_stays(self, path):
        Path("thesis").mkdir()
        Path("thesis/a").write_text("mine")
        Path("run/old").mkdir(parents=True)
        Path("run/link").symlink_to(Path("thesis").resolve())
        Path("run/old/link").symlink_to(Path("thesis/a").resolve())
        by_hand("run/inner")
        before = tree("thesis", "run")
        with pytest.raises(UserError, match="would be removed"):
            discard(Path(path), inside=Path("run"))
        assert tree("thesis", "run") == before

    def test_a_folder_is_not_put_in_the_place_of_a_link_or_of_one_with_a_run_in_it(self):
        by_hand("runs/sft/inner")
        Path("link").symlink_to(Path("runs/sft").resolve())
        before = tree("runs")
        for place in ("link", "runs/sft"):
            with pytest.raises(UserError, match="would be removed"), atomic(Path(place)) as temporary:
                temporary.mkdir()
        assert tree("runs") == before
        assert sorted(os.listdir(".")) == ["link", "runs", "x.toml"]


DELETES = {"rmtree", "unlink", "rmdir", "removedirs"}  # and os.remove: other things have a remove too


def test_nothing_else_in_the_package_deletes():
    package, found = Path(recalign.__file__).parent, {}
    for path in package.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            name = node.func.attr if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) else ""
            if name in DELETES or (name and ast.unparse(node.func) == "os.remove"):
                found.setdefault(path.name, set()).add(name)
    assert found == {"removal.py": {"unlink", "rmdir"}, "locks.py": {"unlink"}}  # a lock's own file goes with the lock


def test_two_starts_at_the_same_moment_are_told_apart():
    ROOT.mkdir(parents=True)
    start = (
        "import os, sys; from pathlib import Path\n"
        "from recalign.errors import UserError; from recalign.locks import take\n"
        "print('ready', flush=True); sys.stdin.readline()\n"
        "try:\n    take(Path('runs/x/recipe.lock'), 'running')\n    print('taken', flush=True)\n"
        "except UserError:\n    print('refused', flush=True)\n"
        "sys.stdin.readline()"
    )
    write_json(ROOT / "recipe.lock", {"pid": 999999999, "born": 0.0})  # both find the lock of one that is gone
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    both = [subprocess.Popen([sys.executable, "-c", start], **pipes) for _ in range(4)]
    assert [each.stdout.readline() for each in both] == ["ready\n"] * 4
    for each in both:
        each.stdin.write("now\n")
        each.stdin.flush()
    assert sorted(each.stdout.readline() for each in both) == ["refused\n"] * 3 + ["taken\n"]
    with pytest.raises(UserError, match=r"Process \d+ is running a recipe in runs/x"):
        run()
    for each in both:
        each.kill()
        each.communicate()
    run()
    assert not (ROOT / "recipe.lock").exists()


def test_a_folder_is_begun_by_one_of_two_at_the_same_moment():
    begin = (
        "import sys; from pathlib import Path; from recalign.errors import UserError\n"
        "from recalign.workspace import RunFolder\n"
        "print('ready', flush=True); sys.stdin.readline()\n"
        "try:\n    RunFolder(Path('runs/sft')).begin('sft', {'seed': sys.argv[1]}, {})\n"
        "    print('begun', flush=True)\n"
        "except UserError:\n    print('refused', flush=True)\n"
        "sys.stdin.readline()"
    )
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    both = [subprocess.Popen([sys.executable, "-c", begin, str(seed)], **pipes) for seed in range(4)]
    assert [each.stdout.readline() for each in both] == ["ready\n"] * 4
    for each in both:
        each.stdin.write("now\n")
        each.stdin.flush()
    answers = [each.stdout.readline() for each in both]
    assert sorted(answers) == ["begun\n"] + ["refused\n"] * 3
    record = RunFolder(Path("runs/sft")).record
    assert record["options"]["seed"] == str(answers.index("begun\n"))
    assert psutil.pid_exists(int(record["process"]["pid"]))
    for each in both:
        each.kill()
        each.communicate()
