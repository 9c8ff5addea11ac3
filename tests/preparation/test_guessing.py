import pytest

from recalign.data.dataset import PreparedDataset
from recalign.errors import UserError
from recalign.preparation.guessing import guess, named_source
from recalign.workflow.plan import plan
from recalign.workflow.recipe import load_recipe
from tests.sources import formats


def test_a_path_alone_is_prepared_by_the_source_that_recognises_it(call, tmp_path):
    formats.movielens_1m(tmp_path / "ml-1m")
    code, told = call("prepare", tmp_path / "ml-1m", "--out", tmp_path / "out", "--split", "user")
    assert (code, "is taken for the source movielens (ratings.dat and movies.dat)" in told) == (0, True), told
    assert PreparedDataset(tmp_path / "out").info["options"]["source"] == "movielens"


def test_several_candidates_are_named(call, tmp_path):
    formats.movielens_1m(tmp_path / "raw")
    formats.yelp(tmp_path / "raw")
    code, told = call("prepare", tmp_path / "raw")
    assert code == 2
    assert "may be for movielens (ratings.dat and movies.dat) or yelp (yelp_academic_dataset_review.json" in told
    assert "Name the source: recalign prepare SOURCE PATH" in told


def test_what_nothing_recognises_is_told_with_what_it_holds(tmp_path):
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(UserError, match=r"No source recognises .* It holds notes.txt\."):
        guess(tmp_path)


def test_a_table_is_taken_only_if_no_other_source_knows_it(tmp_path):
    plain = formats.pack(tmp_path / "log.csv", "user_id,item_id,timestamp\na,b,1\n")
    assert guess(plain)[0] == "table"
    assert guess(formats.last_out(tmp_path / "amazon", history=False))[0] == "amazon"


def test_a_path_that_is_not_there_and_a_name_that_is_misspelt(call, tmp_path):
    code, told = call("prepare", tmp_path / "nowhere")
    assert (code, "does not exist" in told) == (2, True)
    code, told = call("prepare", "movilens")
    assert (code, "Did you mean 'movielens'" in told) == (2, True)


def test_a_source_that_is_named_keeps_its_path(tmp_path):
    assert named_source("table", tmp_path) == ("table", tmp_path)
    assert named_source("synthetic", None) == ("synthetic", None)


def test_a_source_that_fails_to_recognise_hinders_no_other(monkeypatch, tmp_path, capsys):
    from recalign.sources.steam import Steam

    def fail(path):
        raise ValueError("broken")

    monkeypatch.setattr(Steam, "recognises", fail)
    assert guess(formats.movielens_32m(tmp_path))[0] == "movielens"
    assert "The source 'steam' cannot say whether" in capsys.readouterr().err


@pytest.mark.parametrize("key", ["source", "path"])
def test_a_path_without_a_source_is_read_by_the_one_that_recognises_it(call, key, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file = formats.movielens_1m(tmp_path / "ml") / "ratings.dat"
    text = f'[[step]]\ncommand = "prepare"\n{key} = "ml"\nsplit = "user"'
    (tmp_path / "x.toml").write_text(text, "utf-8")
    (before,) = plan(load_recipe("x.toml"), tmp_path / "root")
    file.write_bytes(file.read_bytes().replace(b"::5::", b"::4::"))
    (after,) = plan(load_recipe("x.toml"), tmp_path / "root")
    assert (before.arguments[0], before.key == after.key) == ("ml", False)
    assert call("run", "x.toml")[0] == 0
    assert PreparedDataset(tmp_path / "runs/x/prepare").info["options"]["source"] == "movielens"
