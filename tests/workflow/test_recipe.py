"""Recipes: reading, overriding, expanding; every mistake is named before anything runs."""

from pathlib import Path

import pytest

from recalign.errors import UserError
from recalign.plugins.registry import list_plugins
from recalign.workflow.plan import plan
from recalign.workflow.recipe import embedded_recipes, load_recipe
from recalign.workflow.signatures import signature_of
from tests import fake_commands

CHAIN = """
title = "Chain"

[defaults]
seed = 7

[defaults.sft]
epochs = 2

[[step]]
name = "data"
command = "prepare"
source = "recbole"
path = "raw"
drop-invalid = true

[[step]]
command = "sft"
data = "@data"
learning_rate = 1e-3

[[step]]
name = "blade"
command = "align"
model = "@sft"
params = { tau = 0.5, length_normalise = false }
"""

SWEEP = """
[[step]]
name = "data"
command = "prepare"
matrix.fold = [1, 2]

[[step]]
name = "sft"
command = "sft"
data = "@data"
matrix.seed = [0, 1]

[[step]]
name = "align"
command = "align"
model = "@sft"
matrix.method = [
  { name = "grpo", objective = "grpo" },
  { name = "blade 0.1", objective = "blade", params = { tau = 0.1 } },
]

[[step]]
name = "all"
command = "compare"
runs = ["@sft", "@align"]

[[step]]
name = "pooled"
command = "compare"
group = ["SFT=@sft", "{method}=@align"]
"""


@pytest.fixture(autouse=True)
def fakes(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RECALIGN_HOME", raising=False)
    fake_commands.install(monkeypatch)
    yield
    signature_of.cache_clear()


def steps(text, *overrides):
    Path("x.toml").write_text(text, "utf-8")
    return plan(load_recipe("x.toml", overrides), Path("runs/x"))


def by_id(text, *overrides):
    return {step.id: step for step in steps(text, *overrides)}


def refuse(text, *overrides):
    with pytest.raises(UserError) as error:
        steps(text, *overrides)
    assert not Path("runs").exists()
    return error.value


class TestChain:
    def test_a_step_is_spelt_as_one_would_type_it(self):
        data, sft, blade = steps(CHAIN)
        assert data.arguments == "recbole raw --seed 7 --drop-invalid --out runs/x/data".split()
        expected = "--seed 7 --epochs 2 --data runs/x/data --learning-rate 0.001 --out runs/x/sft"
        assert sft.arguments == expected.split()
        assert " ".join(blade.arguments).startswith("--seed 7 --model runs/x/sft -p tau=0.5 -p length_normalise=false")

    def test_references_become_needs(self):
        assert [step.needs for step in steps(CHAIN)] == [(), ("data",), ("sft",)]

    def test_a_reference_may_name_something_inside_the_folder(self):
        text = CHAIN.replace('model = "@sft"', 'model = "@sft/model"')
        assert by_id(text)["blade"].options["model"] == "runs/x/sft/model"

    def test_a_changed_option_changes_the_keys_of_what_is_downstream_only(self):
        before, after = by_id(CHAIN), by_id(CHAIN, "sft.epochs=3")
        assert before["data"].key == after["data"].key
        assert before["sft"].key != after["sft"].key
        assert before["blade"].key != after["blade"].key

    def test_a_changed_input_file_changes_the_keys(self):
        Path("raw").mkdir()
        Path("raw/a.inter").write_text("x")
        before = by_id(CHAIN)
        Path("raw/a.inter").write_text("y")
        assert all(before[name].key != step.key for name, step in by_id(CHAIN).items())

    def test_keys_do_not_depend_on_where_outputs_go(self):
        recipe = load_recipe("x.toml") if steps(CHAIN) else None
        assert [s.key for s in plan(recipe, Path("a"))] == [s.key for s in plan(recipe, Path("b"))]


class TestSweep:
    def test_a_step_runs_at_every_place_of_its_own_sweep_and_of_what_it_builds_on(self):
        ids = [step.id for step in steps(SWEEP)]
        assert len(ids) == 2 + 4 + 8 + 2
        assert ids[2:6] == ["sft/fold=1/seed=0", "sft/fold=1/seed=1", "sft/fold=2/seed=0", "sft/fold=2/seed=1"]

    def test_a_reference_finds_the_same_place(self):
        step = by_id(SWEEP)["align/fold=2/seed=1/method=blade-0.1"]
        assert step.needs == ("sft/fold=2/seed=1",)
        assert step.options["model"] == "runs/x/sft/fold=2/seed=1"
        assert step.options["params"] == {"tau": 0.1}

    def test_an_option_of_several_values_gathers_the_whole_sweep(self):
        step = by_id(SWEEP)["all"]
        assert len(step.needs) == 12
        assert step.arguments[:2] == ["runs/x/sft/fold=1/seed=0", "runs/x/sft/fold=1/seed=1"]

    def test_a_label_pools_what_shares_it(self):
        groups = by_id(SWEEP)["pooled"].options["group"]
        assert [group.partition("=")[0] for group in groups] == ["SFT", "grpo", "blade-0.1"]
        assert [len(group.split(",")) for group in groups] == [4, 4, 4]

    def test_a_gathering_step_with_an_axis_of_its_own_gathers_that_place(self):
        text = SWEEP + '[[step]]\nname = "each"\ncommand = "compare"\nruns = "@align"\n'
        text += 'matrix.method = [{ name = "grpo" }]\n'
        assert by_id(text)["each/method=grpo"].needs == tuple(
            f"align/fold={fold}/seed={seed}/method=grpo" for fold in (1, 2) for seed in (0, 1)
        )

    def test_parameters_can_be_swept(self):
        text = CHAIN.replace("tau = 0.5, ", "") + "matrix.params.tau = [0.1, 1.0]\n"
        options = by_id(text)["blade/tau=0.1"].options["params"]
        assert options == {"length_normalise": False, "tau": 0.1}

    def test_an_evaluation_names_two_decodings(self):
        text = (
            CHAIN
            + """
[[step]]
name = "beam"
command = "decode"
model = "@sft"
decoder = "beam"

[[step]]
name = "exact"
command = "decode"
model = "@sft"
decoder = "exact"

[[step]]
command = "eval"
predictions = "@beam"
exact = "@exact"
"""
        )
        found = by_id(text)["eval"]
        assert found.needs == ("beam", "exact")
        assert found.options["exact"] == "runs/x/exact"

    def test_a_parameter_may_be_a_reference_with_a_sweep_of_its_own(self):
        text = (
            SWEEP
            + """
[[step]]
name = "helped"
command = "decode"
model = "model"
decoder = "d3"
params = { assistant = "@sft/model", alpha = 0.5 }
"""
        )
        found = by_id(text)["helped/fold=1/seed=0"]
        assert found.options["params"] == {"assistant": "runs/x/sft/fold=1/seed=0/model", "alpha": 0.5}
        assert found.needs == ("sft/fold=1/seed=0",)

    def test_text_may_name_its_place(self):
        text = SWEEP.replace('data = "@data"', 'data = "@data/{fold}"')
        assert "runs/x/data/fold=2/{fold}" not in str(by_id(text)["sft/fold=2/seed=0"].options)


class TestSet:
    def test_a_step_option_is_set(self):
        assert by_id(CHAIN, "data.path=../other")["data"].options["path"] == "../other"

    def test_a_bare_option_is_replaced_wherever_it_is_stated(self):
        plain = by_id(CHAIN, "tau=0.1", "epochs=9")
        assert plain["blade"].options["params"]["tau"] == 0.1
        assert plain["sft"].options["epochs"] == 9
        assert [step.id for step in steps(SWEEP, "fold=2", "seed=[5]")][:2] == ["data/fold=2", "sft/fold=2/seed=5"]

    def test_a_sweep_over_named_places_is_narrowed_by_name(self):
        methods = {step.axes["method"] for step in steps(SWEEP, "method=grpo") if step.name == "align"}
        assert methods == {"grpo"}
        error = refuse(SWEEP, "method=grop")
        assert "no such place" in error.what
        assert "'grpo'" in error.hint

    def test_dashes_and_underscores_are_one(self):
        assert by_id(CHAIN, "learning-rate=0.5")["sft"].options["learning-rate"] == 0.5

    def test_parameters_and_defaults_are_reached_by_their_path(self):
        assert by_id(CHAIN, "blade.params.tau=1.0")["blade"].options["params"]["tau"] == 1.0
        assert by_id(CHAIN, "defaults.seed=1")["data"].options["seed"] == 1

    @pytest.mark.parametrize(
        ("assignment", "what", "hint"),
        [
            ("epochs", "not of the form", "--set"),
            ("epoch=1", "states 'epoch' nowhere", "'epochs'"),
            ("blad.tau=1", "no step 'blad'", "'blade'"),
            ("sft.epoch=1", "takes no 'epoch'", "'epochs'"),
            ("sft.epochs=many", "--epochs", "recalign sft --help"),
            ("sft.name=../../x", "name = '../../x'", "letters"),
            ("sft.name=..", "name = '..'", "not in front"),
            ("sft.name=data", "two steps are named 'data'", "of its own"),
            ("sft.command=rm", "command = 'rm'", ""),
            ("data.source.x=1", "'source' is no table", "data.source="),
        ],
    )
    def test_what_cannot_be_set_is_refused(self, assignment, what, hint):
        error = refuse(CHAIN, assignment)
        assert what in error.what
        assert hint in error.hint


MISTAKES = {
    "toml": ("[[step]", "is no readable TOML", ""),
    "empty": ("", "has no steps", "[[step]]"),
    "top key": ("titel = 1\n" + CHAIN, "unknown key 'titel'", "'title'"),
    "command": ('[[step]]\ncommand = "aling"', "command = 'aling'", "'align'"),
    "run": ('[[step]]\ncommand = "run"', "command = 'run'", ""),
    "twice": ('[[step]]\ncommand = "prepare"\n[[step]]\ncommand = "prepare"', "two steps are named 'prepare'", ""),
    "name": ('[[step]]\ncommand = "prepare"\nname = "a/b"', "name = 'a/b'", "letters"),
    "name above": ('[[step]]\ncommand = "prepare"\nname = ".."', "name = '..'", "not in front"),
    "name here": ('[[step]]\ncommand = "prepare"\nname = "."', "name = '.'", "not in front"),
    "name hidden": ('[[step]]\ncommand = "prepare"\nname = ".tries"', "name = '.tries'", "not in front"),
    "name taken": ('[[step]]\ncommand = "prepare"\nname = "Logs"', "name = 'Logs'", "recipe.json"),
    "name in capitals": (
        '[[step]]\ncommand = "prepare"\n[[step]]\nname = "Prepare"\ncommand = "prepare"',
        "two steps are named 'prepare'",
        "",
    ),
    "sweep above": (
        '[[step]]\ncommand = "prepare"\nmatrix."../../x" = [{ name = "a", fold = 1 }]',
        "sweep '../../x'",
        "letters",
    ),
    "place in capitals": (
        '[[step]]\ncommand = "prepare"\nmatrix.x = [{ name = "A", fold = 1 }, { name = "a", fold = 2 }]',
        "names a place twice",
        "case",
    ),
    "place long": (
        f'[[step]]\ncommand = "prepare"\nmatrix.source = ["{"x" * 300}"]',
        "too long for a folder",
        "short",
    ),
    "option": ('[[step]]\ncommand = "prepare"\nidentifer = "title"', "takes no 'identifer'", "'identifier'"),
    "default": (CHAIN.replace("seed = 7", "sede = 7"), "no step takes 'sede'", "'seed'"),
    "default command": (CHAIN.replace("[defaults.sft]", "[defaults.stf]"), "no step runs this command", "'sft'"),
    "default option": (CHAIN.replace("epochs = 2", "epoch = 2"), "takes no 'epoch'", "'epochs'"),
    "out": ('[[step]]\ncommand = "prepare"\nout = "x"', "'out' is decided by the recipe", "Leave it out"),
    "type": ('[[step]]\ncommand = "prepare"\nfold = "two"', "Invalid value for '--fold'", "prepare --help"),
    "bounds": ('[[step]]\ncommand = "prepare"\nfold = 0', "Invalid value for '--fold'", "prepare --help"),
    "choice": ('[[step]]\ncommand = "prepare"\nidentifier = "tilte"', "Invalid value for '--identifier'", ""),
    "switch": ('[[step]]\ncommand = "prepare"\ndrop-invalid = "yes"', "no switch position", "true or false"),
    "list": ('[[step]]\ncommand = "prepare"\nfold = [1, 2]', "takes one value", "matrix"),
    "table": ('[[step]]\ncommand = "prepare"\nfold = { a = 1 }', "neither text nor a number", ""),
    "missing": ('[[step]]\ncommand = "sft"', "Missing option '--data'", "sft --help"),
    "path": (
        '[[step]]\ncommand = "prepare"\npath = "./x.csv"',
        "Step 'prepare': ./x.csv does not exist",
        "Check the path",
    ),
    "path of no source": (f'[[step]]\ncommand = "prepare"\npath = "{__file__}"', "No source recognises", "SOURCE PATH"),
    "reference": (CHAIN.replace('"@sft"', '"@stf"'), "no earlier step 'stf'", "'sft'"),
    "later": (
        '[[step]]\ncommand = "sft"\ndata = "@data"\n[[step]]\nname = "data"\ncommand = "prepare"',
        "no earlier",
        "",
    ),
    "matrix": ('[[step]]\ncommand = "prepare"\nmatrix = 3', "is no table", "matrix.seed"),
    "matrix empty": ('[[step]]\ncommand = "prepare"\nmatrix.fold = []', "is no list of values", ""),
    "matrix option": ('[[step]]\ncommand = "prepare"\nmatrix.flod = [1]', "takes no 'flod'", "'fold'"),
    "matrix twice": ('[[step]]\ncommand = "prepare"\nfold = 1\nmatrix.fold = [1]', "stated both", ""),
    "matrix place": ('[[step]]\ncommand = "prepare"\nmatrix.fold = [1, 1]', "names a place twice", ""),
    "matrix name": ('[[step]]\ncommand = "prepare"\nmatrix.x = [{ fold = 1 }]', "has no name", ""),
    "matrix clash": (SWEEP.replace("matrix.seed", "matrix.fold").replace("[0, 1]", "[3]"), "takes no 'fold'", ""),
    "placeholder": (SWEEP.replace("{method}", "{metod}"), "names no sweep 'metod'", "'method'"),
    "plugin": (CHAIN + 'objective = "blad"', "no objective named 'blad'", "'blade'"),
    "parameter": (CHAIN.replace("tau = 0.5", "tua = 0.5"), "no parameter 'tua'", "'tau'"),
    "parameter bounds": (CHAIN.replace("tau = 0.5", "tau = -1"), "tau = '-1' is refused", ""),
    "reward": (CHAIN + 'reward = "ndgc@5"', "ndgc", "'ndcg'"),
    "params": (CHAIN.replace("{ tau = 0.5, length_normalise = false }", "3"), "params = 3 is no table", "tau"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_named_before_anything_runs(mistake):
    text, what, hint = MISTAKES[mistake]
    error = refuse(text)
    assert what in error.what
    assert hint in error.hint


def test_labels_lead_into_no_other_folder(tmp_path):
    text = '[[step]]\ncommand = "prepare"\nmatrix.x = [{ name = "..", fold = 1 }, { name = "a/../../b", fold = 2 }]'
    (tmp_path / "x.toml").write_text(text, "utf-8")
    outs = [step.out for step in plan(load_recipe(str(tmp_path / "x.toml")), tmp_path / "root")]
    assert outs == [tmp_path / "root/prepare/x=..", tmp_path / "root/prepare/x=a-..-..-b"]


def test_a_recipe_whose_name_is_no_folder_is_refused(tmp_path):
    (tmp_path / "...toml").write_text(CHAIN, "utf-8")
    with pytest.raises(UserError, match="folder of its name, '\\.\\.'"):
        load_recipe(str(tmp_path / "...toml"))


def test_an_unknown_recipe_suggests_the_embedded_ones():
    with pytest.raises(UserError, match="no recipe 'quickstrat'") as error:
        load_recipe("quickstrat")
    assert "'quickstart'" in error.value.hint
    with pytest.raises(UserError, match=r"quickstart\.toml does not exist"):
        load_recipe("quickstart.toml")


def test_a_recipe_named_without_its_suffix_is_found_beside(tmp_path):
    (tmp_path / "mine.toml").touch()
    with pytest.raises(UserError) as error:
        load_recipe(str(tmp_path / "mine"))
    assert f"'{tmp_path / 'mine.toml'}'" in error.value.hint


def test_the_embedded_recipes_are_found():
    assert {"quickstart", "blade-ml-100k", "blade-ml-100k-gpu"} <= set(embedded_recipes())


def named(value, key):
    """All values of a key, however deep."""
    if isinstance(value, dict):
        own = [value[key]] if isinstance(value.get(key), str) else []
        return own + [found for each in value.values() for found in named(each, key)]
    return [found for each in value for found in named(each, key)] if isinstance(value, list) else []


@pytest.mark.parametrize("size", ["cpu", "gpu"])
def test_every_objective_and_the_decoders_of_the_next_task_have_a_recipe(size):
    names = [name for name in embedded_recipes() if name.endswith("-gpu") == (size == "gpu")]
    steps = [load_recipe(name).document for name in names]
    objectives = {entry.name for entry in list_plugins("objective") if entry.package == "recalign"}
    assert objectives - {"sft", *named(steps, "objective")} == set()  # sft's is sft
    assert {"beam", "exact", "d3", "igd"} - {"beam", *named(steps, "decoder")} == set()  # decode's is beam
