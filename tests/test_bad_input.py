"""What goes wrong for users, at the command line: exit code 2 (130 for Ctrl-C), advice, no traceback, nothing lost."""

import json

import polars as pl
import pytest

from recalign.models.policy import load_policy
from recalign.workspace import RunFolder
from tests.disks import full_disk
from tests.evaluation.prepared import write_decoded, write_small
from tests.fake_dataset import write_dataset
from tests.fake_distribution import install

ALIGN = ["--max-steps", "2", "--prompts-per-step", "4", "-p", "group_size=2", "-p", "reference_lists=4", "--no-report"]
SFT = ["--model", "builtin:tiny,hidden=32", "--epochs", "1", "--batch-size", "8"]

PLUGIN = '''
import numpy as np
from recalign.api import {base}, hookimpl


class Bad({base}):
    """Misbehaves."""
{body}

@hookimpl
def recalign_{kind}():
    return Bad
'''


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    """A dataset and a finished run with a random tiny model."""
    folder = tmp_path_factory.mktemp("start")
    dataset = write_dataset(folder / "data")
    events = {"user_id": ["a", "b"], "item": [0, 1], "timestamp": [0.0, 1.0], "rating": [None, None], "gain": [1.0] * 2}
    pl.DataFrame(events, schema_overrides={"rating": pl.Float64}).write_parquet(folder / "data/interactions.parquet")
    run = RunFolder(folder / "sft")
    run.begin("sft", {"seed": 0}, {})
    load_policy("builtin:tiny,hidden=32", dataset).save(run.path / "model")
    run.finish({})
    return folder


@pytest.fixture
def plugin(tmp_path, monkeypatch):
    """`plugin(kind, base, body)`: install a plugin named `bad` of the package bad-KIND."""

    def make(kind, base, body):
        folder = tmp_path / f"site-{kind}"
        module = f"bad_{kind}_{abs(hash((base, body)))}"
        source = PLUGIN.format(kind=kind, base=base, body=body)
        install(folder, f"bad-{kind}", {f"recalign.{kind}s": {"bad": module}}, {module: source})
        monkeypatch.syspath_prepend(str(folder))

    return make


def interrupt(*_, **__):
    raise KeyboardInterrupt


def model_and_data(start):
    return ["--data", start / "data", "--model", start / "sft"]


# ------------------------------------------------------------ tables


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("usr_id,item_id,timestamp\n1,a,1\n", ["no column 'user_id'", "Did you mean 'usr_id'", "-p user=COLUMN"]),
        ("user_id,item_id,timestamp\n1,a,1\n1,b,never\n", ["row 2: timestamp = 'never' is not a time", "Mend"]),
        ("user_id,item_id,timestamp\n1,a,1\n1,b,1,2,3\n", ["row 2: 5 fields, but the header has 3"]),
        ("user_id,item_id,timestamp\n", ["no items", "Check the path"]),
        ("", ["raw.csv is empty", "the file you meant"]),
        ("user_id,item_id,timestamp\n1,a,1\n1,b,2\n", ["2 events have 2 distinct times", "Pass --split user"]),
        ("PK\x03\x04\x00\x00,\x01\n\x00\x00,\x00\n", ["begins with no header of text"]),
    ],
)
def test_tables_that_cannot_be_used(call, tmp_path, text, said):
    file, out = tmp_path / "raw.csv", tmp_path / "out"
    file.write_text(text)
    code, told = call("prepare", "table", file, "--out", out)
    assert code == 2
    assert [each for each in said if each not in told] == []
    assert not out.exists()


def test_items_that_the_catalogue_lacks(call, tmp_path):
    (tmp_path / "raw.csv").write_text("user_id,item_id,timestamp\n1,a,1\n1,zz,2\n")
    (tmp_path / "items.csv").write_text("item_id,title\na,A\n")
    code, told = call("prepare", "table", tmp_path / "raw.csv", "-p", f"items={tmp_path / 'items.csv'}")
    assert code == 2
    assert "row 2: item 'zz'" in told
    assert "--drop-invalid" in told


def test_histories_that_are_too_short(call, tmp_path):
    (tmp_path / "raw.csv").write_text("user_id,item_id,timestamp\n" + "".join(f"{u},a{u},{u}\n" for u in range(20)))
    code, told = call("prepare", "table", tmp_path / "raw.csv", "--split", "user", "--folds", "2")
    assert code == 2
    assert "--targets" in told and "--min-history" in told


def test_a_path_that_a_source_never_looked_at(call, plugin, tmp_path):
    plugin("source", "Source", "    def read(self, path, seed):\n        pass\n")
    code, told = call("prepare", "bad", tmp_path / "nowhere")
    assert (code, f"{tmp_path / 'nowhere'} does not exist" in told) == (2, True)


@pytest.mark.parametrize(("name", "said"), [("wandbb", "Did you mean 'wandb'"), ("comet_ml", "is not installed")])
def test_loggers_that_are_not_there(call, start, tmp_path, name, said):
    code, told = call("sft", "--data", start / "data", *SFT, "--report-to", name, "--out", tmp_path / "out")
    assert (code, said in told) == (2, True)
    assert not (tmp_path / "out").exists()


def test_no_relevant_target(call):
    code, told = call("prepare", "synthetic", "-p", "users=50", "--relevance", "rating>=40")
    assert code == 2
    assert "No target of the split 'train' is relevant under --relevance 'rating>=40'" in told


# ------------------------------------------------------------ what is named is not what it should be


@pytest.mark.parametrize("command", ["sft", "align", "decode", "export"])
def test_a_model_folder_without_a_model(call, start, tmp_path, command):
    (tmp_path / "empty").mkdir()
    data = [] if command == "export" else ["--data", start / "data"]
    code, told = call(command, *data, "--model", tmp_path / "empty", "--out", tmp_path / "out")
    assert code == 2
    assert f"{tmp_path / 'empty'} holds no model" in told
    assert "Name a run folder, a Hugging Face folder" in told


def test_a_model_of_an_unfinished_run(call, start, tmp_path):
    RunFolder(tmp_path / "half").begin("sft", {}, {})
    code, told = call("decode", "--data", start / "data", "--model", tmp_path / "half")
    assert code == 2
    assert "Its `recalign sft` is unfinished: go on with --resume." in told


def test_a_dataset_that_is_a_run_or_nothing(call, start):
    code, told = call("sft", "--data", start / "sft")
    assert (code, "(it has no dataset.json)" in told) == (2, True)
    code, told = call("sft", "--data", start / "nowhere")
    assert (code, "(it does not exist)" in told) == (2, True)


@pytest.mark.parametrize("file", ["items.parquet", "interactions.parquet", "test/data.arrow"])
@pytest.mark.parametrize("cut", [True, False])
def test_a_damaged_dataset(call, tmp_path, file, cut):
    data = tmp_path / "data"
    write_small(data)
    (data / file).write_bytes((data / file).read_bytes()[:50]) if cut else (data / file).unlink()
    code, told = call("baseline", "item-knn", "--data", data)
    assert code == 2
    assert file.partition("/")[0] in told
    assert "Prepare the dataset again." in told


@pytest.mark.parametrize("command", ["prepare", "sft", "decode"])
def test_an_output_folder_that_is_a_file(call, start, tmp_path, command):
    (tmp_path / "thesis.tex").write_text("x")
    given = {"prepare": [], "sft": ["--data", start / "data", *SFT], "decode": model_and_data(start)}[command]
    code, told = call(command, *given, "--out", tmp_path / "thesis.tex")
    assert code == 2
    assert "thesis.tex is a file, and the output is a folder. Choose another --out." in told
    assert (tmp_path / "thesis.tex").read_text() == "x"


def test_evaluating_and_comparing_what_is_no_such_thing(call, start, tmp_path):
    code, told = call("eval", start / "data")
    assert (code, f"Make some with `recalign decode --model {start / 'data'}`" in told) == (2, True)
    code, told = call("compare", start / "sft")
    assert (code, f"Make one with `recalign eval {start / 'sft'}`" in told) == (2, True)


def test_lists_longer_than_the_models_own(call, start, tmp_path):
    code, told = call("decode", *model_and_data(start), "--size", "7", "--out", tmp_path / "out")
    assert code == 2
    assert "have 3 items, not 7" in told
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[[step]]\n", "step 1 names no command"),
        ('[[step]]\ncommand = "trian"\n', "'trian'"),
        ("[[step]\n", "no readable TOML"),
        ('[[step]]\ncommand = "sft"\nepoch = 3\n', "Did you mean 'epochs'"),
        ('[[step]]\ncommand = "sft"\ndata = "@dta"\n', "dta"),
    ],
)
def test_recipes_with_typing_errors(call, tmp_path, text, said):
    (tmp_path / "x.toml").write_text(text)
    code, told = call("run", tmp_path / "x.toml")
    assert code == 2
    assert said in told


# ------------------------------------------------------------ plugins that misbehave


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("    def score(self, lists):\n        return np.full(len(lists), np.nan)\n", "returned nan for user 'u"),
        ("    def score(self, lists):\n        return np.ones(1)\n", "returned shape [1] for"),
        ("    def score(self, lists):\n        return 1 / 0\n", "raised ZeroDivisionError in score"),
    ],
)
def test_metrics(call, start, plugin, tmp_path, body, said):
    plugin("metric", "Metric", body)
    code, told = call("align", *model_and_data(start), "--reward", "ndcg + bad", *ALIGN, "--out", tmp_path / "out")
    assert code == 2
    assert said in told
    assert "The metric 'bad' of package bad-metric 1.2" in told


def test_a_source_that_raises(call, plugin, tmp_path):
    plugin("source", "Source", "    def read(self, path, seed):\n        return {}['rows']\n")
    code, told = call("prepare", "bad", tmp_path, "--out", tmp_path / "out")
    assert code == 2
    assert "The source 'bad' of package bad-source 1.2 raised" in told
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("events", "said"),
    [
        ('pl.LazyFrame({"user_id": ["1"]})', "frames that cannot be read: ColumnNotFoundError"),
        ('pl.scan_csv("gone.csv")', "FileNotFoundError"),
        ('good.with_columns(pl.col("item_id").map_elements(lambda _: {}["x"], return_dtype=pl.String))', "KeyError"),
        ("None", "hands over neither events nor windows"),
    ],
)
def test_a_source_whose_frames_cannot_be_read(call, plugin, tmp_path, events, said):
    body = f"""
    def read(self, path, seed):
        import polars as pl
        from recalign.api import RawData
        items = pl.LazyFrame({{"item_id": ["a", "b"], "title": ["A", "B"], "genres": [[], []], "text": ["", ""]}})
        good = pl.LazyFrame({{"user_id": ["1", "1"], "item_id": ["a", "b"], "timestamp": [0.0, 1.0]}})
        return RawData(items, {events})
"""
    plugin("source", "Source", body)
    code, told = call("prepare", "bad", tmp_path, "--out", tmp_path / "out")
    assert code == 2
    assert "The source 'bad' of package bad-source 1.2" in told
    assert said in told
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "code",
    [
        "pl.scan_csv(path).with_columns(genres=pl.lit(''), text=pl.lit(''))",
        "pl.read_csv(path).lazy()",
        "path.read_text(encoding='utf-8')",
        "json.loads(path.read_bytes())",
    ],
)
def test_data_that_a_source_cannot_read_are_not_its_fault(call, plugin, tmp_path, code):
    body = f"""
    def read(self, path, seed):
        import json
        import polars as pl
        from recalign.api import RawData
        return RawData({code}, {code})
"""
    plugin("source", "Source", body)
    file = tmp_path / "raw.csv"
    file.write_bytes(b'item_id,title\n\xff\xfe,"open\n1,2,3,4\n')
    code, told = call("prepare", "bad", file, "--out", tmp_path / "out")
    assert code == 2
    assert f"The source 'bad' of package bad-source 1.2 cannot read {file}" in told
    assert "fault" not in told


def test_a_token_objective_that_raises(call, start, plugin, tmp_path):
    plugin("objective", "TokenObjective", "    def loss(self, batch):\n        return 1 / 0\n")
    code, told = call("sft", "--data", start / "data", *SFT, "--objective", "bad", "--out", tmp_path / "out")
    assert code == 2
    assert "'bad' of package bad-objective 1.2 raised ZeroDivisionError in loss" in told


def test_a_rollout_objective_that_raises(call, start, plugin, tmp_path):
    body = "    def credit(self, groups):\n        return 1 / 0\n    def loss(self, batch):\n        pass\n"
    plugin("objective", "RolloutObjective", body)
    fast = ["--max-steps", "1", "--prompts-per-step", "4", "--no-report", "--out", tmp_path / "out"]
    code, told = call("align", *model_and_data(start), "--objective", "bad", *fast)
    assert code == 2
    assert "The objective 'bad' of package bad-objective 1.2 raised ZeroDivisionError in credit" in told


def test_a_decoder_that_raises(call, start, plugin, tmp_path):
    plugin("decoder", "Decoder", "    def decode(self, engine, rows, size):\n        return 1 / 0\n")
    code, told = call("decode", *model_and_data(start), "--decoder", "bad", "--out", tmp_path / "out")
    assert code == 2
    assert "The decoder 'bad' of package bad-decoder 1.2 raised ZeroDivisionError in decode" in told
    assert not (tmp_path / "out").exists()


# ------------------------------------------------------------ a full disk


def test_a_full_disk_while_preparing(call, tmp_path):
    with full_disk(4000):
        code, told = call("prepare", "synthetic", "-p", "users=50", "--out", tmp_path / "out", "--quiet")
    assert (code, "Free some space" in told) == (2, True)
    assert not (tmp_path / "out").exists()
    assert call("prepare", "synthetic", "-p", "users=50", "--out", tmp_path / "out", "--quiet")[0] == 0


def test_a_full_disk_while_training(call, start, tmp_path):
    given = ["sft", "--data", start / "data", *SFT, "--out", tmp_path / "out"]
    with full_disk(20_000):
        code, told = call(*given)
    assert (code, "Free some space" in told) == (2, True)
    assert call(*given, "--resume")[0] == 0
    assert RunFolder(tmp_path / "out").done


def test_a_full_disk_at_the_end_of_training(call, start, tmp_path, monkeypatch):
    from recalign.models.policy import Policy

    save = Policy.save

    def limited(self, folder):
        with full_disk(20_000):
            save(self, folder)

    given = ["align", *model_and_data(start), *ALIGN, "--out", tmp_path / "out"]
    with monkeypatch.context() as patch:
        patch.setattr(Policy, "save", limited)
        code, told = call(*given)
    assert (code, "Free some space" in told) == (2, True)
    assert not (tmp_path / "out" / "model").exists()
    assert call(*given, "--resume")[0] == 0
    assert RunFolder(tmp_path / "out").done


def test_a_full_disk_while_decoding(call, start, tmp_path):
    given = ["decode", *model_and_data(start), "--out", tmp_path / "out"]
    with full_disk(2000):  # room for a batch and for run.json, none for predictions.parquet
        code, told = call(*given)
    assert (code, "predictions.parquet failed" in told, "Free some space" in told) == (2, True, True)
    assert call(*given, "--resume")[0] == 0
    assert RunFolder(tmp_path / "out").done


def test_a_full_disk_while_evaluating_and_comparing(call, tmp_path):
    dataset = write_small(tmp_path / "data")
    folder = write_decoded(tmp_path / "sft", dataset, [[1, 3, 2]] * 4)
    with full_disk(2500):
        code, told = call("eval", folder, "--no-baselines")
    assert (code, "per_user.parquet failed" in told, "Free some space" in told) == (2, True, True)
    assert call("eval", folder, "--no-baselines")[0] == 0
    with full_disk(2500):
        code, told = call("compare", folder)
    assert (code, "Free some space" in told) == (2, True)
    assert call("compare", folder)[0] == 0


# ------------------------------------------------------------ Ctrl-C


def test_ctrl_c_while_preparing(call, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("recalign.preparation.pipeline.write_rows", interrupt)
        assert call("prepare", "synthetic", "-p", "users=50", "--out", tmp_path / "out")[0] == 130
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("command", "where"),
    [
        ("sft", "recalign.training.offline.token_step.TokenStep.accumulate"),
        ("sft", "recalign.training.validation.validation_loss"),
        ("align", "recalign.training.online.reference_lists.ReferenceLists.ensure"),
        ("align", "recalign.training.online.rollout_step.RolloutStep.accumulate"),
        ("decode", "recalign.decoding.batches.decode_rows"),
    ],
)
def test_ctrl_c_in_a_resumable_step(call, start, tmp_path, monkeypatch, command, where):
    given = {
        "sft": ["--data", start / "data", *SFT],
        "align": [*model_and_data(start), *ALIGN],
        "decode": model_and_data(start),
    }[command]
    given = [command, *given, "--out", tmp_path / "out"]
    with monkeypatch.context() as patch:
        patch.setattr(where, interrupt)
        code, told = call(*given)
    assert (code, "--resume" in told) == (130, True)
    assert RunFolder(tmp_path / "out").record["status"] == "interrupted"
    assert call(*given, "--resume")[0] == 0
    assert RunFolder(tmp_path / "out").done


def test_ctrl_c_while_evaluating_and_comparing(call, tmp_path, monkeypatch):
    dataset = write_small(tmp_path / "data")
    folder = write_decoded(tmp_path / "sft", dataset, [[1, 3, 2]] * 4)
    for command, where in [
        (["eval", folder], "recalign.evaluation.evaluate.recommend_beside"),
        (["compare", folder], "recalign.comparison.report_files.write_report"),
    ]:
        with monkeypatch.context() as patch:
            patch.setattr(where, interrupt)
            assert call(*command)[0] == 130
        assert call(*command)[0] == 0
    assert json.loads((tmp_path / "runs/compare/table.json").read_text())["reference"] == "sft"
