"""Lineage: what predictions say of the model that made them."""

from recalign.runs.lineage import KEY, Lineage, of_model, of_predictions
from recalign.workspace import RunFolder


def trained(folder, command="sft"):
    run = RunFolder(folder)
    run.begin(command, {"model": "x", "training": {"seed": 3}}, {}, facts={"seed": 3})
    run.finish({"seconds": 7.0})
    return folder


def test_a_models_run_gives_name_seed_options_and_seconds(tmp_path):
    found = of_model(str(trained(tmp_path / "blade" / "fold=1")), split="valid", size=10)
    assert (found.label, found.seed, found.training_seconds) == ("blade", 3, 7.0)
    assert found.options == {"model": "x", "training": {"seed": 3}}
    assert (found.split, found.size, found.exclude_history) == ("valid", 10, None)


def test_of_any_other_model_the_name_is_known(tmp_path):
    assert of_model("Qwen/Qwen3-0.6B") == Lineage("Qwen/Qwen3-0.6B")
    (tmp_path / "hub").mkdir()
    assert of_model(str(tmp_path / "hub")) == Lineage("hub")
    assert of_model(str(trained(tmp_path / "data", "prepare"))) == Lineage("data")


def test_predictions_keep_it(tmp_path):
    wanted = of_model(str(trained(tmp_path / "sft")), data="d", size=5, exclude_history=True)
    RunFolder(tmp_path / "decode").begin("decode", {}, {}, facts={KEY: wanted.as_dict()})
    assert of_predictions(tmp_path / "decode") == wanted


def test_predictions_without_a_record_are_named_by_their_folder(tmp_path):
    assert of_predictions(tmp_path / "mine") == Lineage("mine")
