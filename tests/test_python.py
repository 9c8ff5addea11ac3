"""`recalign.python`, and docs/python.md, whose blocks run one after the other."""

import doctest
import json
import re
from pathlib import Path

import numpy as np
import pytest

from recalign import cli, console
from recalign import python as recalign
from recalign.errors import UserError
from tests.fake_dataset import write_dataset

PAGE = Path(__file__).parent.parent / "docs" / "python.md"


def test_the_page_comes_out_as_it_says(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shown = "\n".join(re.findall(r"```python\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL))
    example = doctest.DocTestParser().get_doctest(shown, {}, "python", "python.md", 0)
    told = []
    results = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS).run(
        example, out=told.append
    )
    assert results.attempted > 25 and results.failed == 0, "".join(told)


@pytest.fixture
def dataset(tmp_path):
    return write_dataset(tmp_path / "data")


def test_every_command_of_the_command_line_is_a_function():
    names = {"eval": "evaluate"}
    assert all(
        callable(getattr(recalign, names.get(name, name))) for name in cli.COMMANDS if name not in ("doctor", "schema")
    )


def test_a_function_returns_what_json_prints(dataset, tmp_path, capsys, monkeypatch):
    options = {"data": dataset.path, "model": "builtin:tiny,hidden=32,layers=1"}
    returned = recalign.decode(**options, out=tmp_path / "out", quiet=True)
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        typed = [text for key, value in options.items() for text in (f"--{key}", str(value))]
        cli.main(["decode", *typed, "--out", str(tmp_path / "out"), "--json"])
    console.configure()
    printed = json.loads(capsys.readouterr().out)
    assert stop.value.code == 0
    assert {key: value for key, value in printed.items() if key != "schema"} == json.loads(json.dumps(returned))


def test_options_are_checked_as_on_the_command_line(dataset, tmp_path):
    for options, message in (
        ({"splt": "test"}, "decode takes no 'splt'"),
        ({"split": "tset"}, "'tset' is not one of"),
        ({"size": 0}, "greater than or equal to 1|not in the range"),
        ({"params": {"temprature": 1}, "decoder": "sample"}, "no parameter 'temprature'"),
    ):
        with pytest.raises(UserError, match=message):
            recalign.decode(data=dataset.path, model="builtin:tiny", out=tmp_path / "out", **options)
    with pytest.raises(UserError, match="3 arguments without a name"):
        recalign.prepare("synthetic", "a", "b")
    with pytest.raises(UserError, match="1 arguments without a name"):
        recalign.sft("x")


def test_quiet_says_nothing_and_leaves_the_console_as_it_was(dataset, tmp_path, capsys):
    recalign.decode(data=dataset.path, model="builtin:tiny,hidden=32", out=tmp_path / "out", quiet=True)
    assert capsys.readouterr() == ("", "")
    console.say("heard")
    assert "heard" in capsys.readouterr().err


def test_scores_are_those_of_the_metric(dataset):
    rows = dataset.rows("test")[:2]
    reward = recalign.parse_reward("hit@2", dataset.catalogue)
    first = int(rows[0].relevant[0])
    other = next(item for item in range(20) if item not in rows[0].targets and item != first)
    assert recalign.score(reward, [[other, first], [-1, -1]], rows).tolist() == [1.0, 0.0]
    assert recalign.score(reward, [[first, -1], [-1, -1]], rows, lengths=[0, 0]).tolist() == [0.0, 0.0]


@pytest.mark.parametrize(
    ("items", "message"),
    [([[0, 1]], "shape .1, 2. for 2 rows"), ([[0], [20]], "names item 20"), ([[-2], [0]], "item -2")],
)
def test_arrays_that_do_not_fit_are_refused(dataset, items, message):
    reward = recalign.parse_reward("hit", dataset.catalogue)
    with pytest.raises(UserError, match=message):
        recalign.score(reward, np.array(items), dataset.rows("test")[:2])


def test_what_is_missing_is_told(dataset, tmp_path):
    for call in (
        lambda: recalign.load_dataset(tmp_path / "nowhere"),
        lambda: recalign.load_model("builtin:huge", dataset),
        lambda: recalign.load_predictions(tmp_path),
        lambda: recalign.parse_reward("ndgc", dataset.catalogue),
        lambda: recalign.create_plugin("metrik", "ndcg"),
        lambda: recalign.run_command("decode", model=str(tmp_path)),
    ):
        with pytest.raises(UserError):
            call()
