"""`recalign recommend`: one history, a file, or many lines on stdin; every answer fits its schema."""

import ast
import io
import json
import re
import shutil
import sys
from pathlib import Path

import pytest

from recalign import cli, console, python
from recalign.commands.schemas import SCHEMAS
from recalign.errors import UserError
from tests.fake_dataset import TITLES, write_dataset

TINY = "builtin:tiny,hidden=32,layers=1"


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run of sft, whose dataset lies elsewhere, made by the command line."""
    folder = tmp_path_factory.mktemp("recommend")
    write_dataset(folder / "data", task="next")
    train(folder / "data", folder / "sft")
    return folder / "sft"


def train(data, out):
    options = ["--max-steps", "2", "--valid-rows", "4", "--metric", "none", "--quiet"]
    with pytest.raises(SystemExit) as stop:
        cli.main(["sft", "--data", str(data), "--model", TINY, "--out", str(out), *options])
    assert not stop.value.code


@pytest.fixture
def typed(trained, capsys, monkeypatch):
    """`typed(*arguments, stdin=b"")`: exit code, stdout, stderr; the model is the trained one unless named."""

    def call(*arguments, stdin=None):
        if stdin is not None:
            monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        model = [] if "--model" in arguments else ["--model", trained]
        with pytest.raises(SystemExit) as stop:
            cli.main(["recommend", *map(str, [*model, *arguments])])
        console.configure()
        out, err = capsys.readouterr()
        assert "Traceback" not in err
        return stop.value.code or 0, out, " ".join(err.split())

    return call


def answers(out):
    lines = [json.loads(line) for line in out.splitlines()]
    for each in lines:
        SCHEMAS[each["schema"].partition("/")[0]].model_validate(each, strict=True)
    return lines


def test_a_person_gets_a_table_and_json_has_the_same_list(typed, trained):
    asked = ["--history", "ship red", "--history", "101", "--size", 3]
    code, out, _ = typed(*asked)
    assert code == 0
    assert "Ship Red" in out and "Ship Old" in out
    code, printed, _ = typed(*asked, "--json")
    (found,) = answers(printed)
    assert code == 0
    assert (found["decoder"], found["model"]) == ("beam", str(trained))
    assert found["data"] == str(trained.parent / "data")  # nobody named it: the run notes it
    assert [each["title"] for each in found["history"]] == ["Ship Red", "Ship Old"]
    shown = [each["title"] for each in found["recommended"]]
    assert len(shown) == 3 and not {"Ship Red", "Ship Old"} & set(shown)
    assert sorted(shown, key=out.index) == shown


def test_a_file_holds_a_history_and_the_command_line_goes_on_from_it(typed, tmp_path):
    file = tmp_path / "watched.txt"
    file.write_bytes("\ufeffShip Red\r\n\r\n  101 \n".encode())
    (found,) = answers(typed("--history-file", file, "--history", "Robot Red", "--json")[1])
    assert [each["item"] for each in found["history"]] == [0, 1, 5]


def test_lines_are_answered_one_by_one_and_bad_ones_by_their_error(typed):
    stdin = b"\xef\xbb\xbfShip Red\t101\r\n"  # a byte order mark, and Windows' line end
    stdin += b'{"history": ["Ship Red", 101]}\n'
    stdin += b"\n"
    stdin += b"Ship Rde\n"
    stdin += b"Ship \xff\n"
    stdin += b'{"history": ["100"], "size": 99}\n'
    stdin += b'{"history": ["100"], "candidates": ["105", "106"], "size": 1, "profile": "x"}\n'
    stdin += b'{"histroy": ["100"]}\n{"history": "100"}\n{"history": [true]}\n{"history": [\n{"candidates": ["105"]}\n'
    stdin += b'{"history": ["100", "\\ud800"]}\n'
    stdin += b"x" * (1 << 21) + b"\n"
    stdin += b"100"  # the last line does not end
    code, out, err = typed("--stdin", "--size", 2, stdin=stdin)
    assert code == 2
    assert "11 of 15 lines could not be answered" in err
    found = answers(out)
    assert [each["line"] for each in found] == list(range(1, 16))
    assert [each["line"] for each in found if "error" not in each] == [1, 2, 7, 15]
    assert found[0]["recommended"] == found[1]["recommended"] and len(found[0]["recommended"]) == 2
    assert len(found[6]["recommended"]) == 1 and found[6]["recommended"][0]["item"] in (5, 6)
    told = {each["line"]: f"{each['error']} {each['hint']}" for each in found if "error" in each}
    for line, words in {
        3: "The history is empty",
        4: "Did you mean 'Ship Red'",
        5: "Line 5 is not in UTF-8: byte 6 is 0xff",
        6: "the catalogue has 20 items",
        8: "no key 'histroy'. Did you mean 'history'?",
        9: "Line 9: history",
        10: "Line 10: history.0",
        11: "Line 11 is not readable JSON",
        12: "Line 12: history: field required",
        13: "Line 13 is not readable JSON",
        14: "Line 14 has more than 1,048,576 bytes",
    }.items():
        assert words in told[line], line


def test_lines_that_are_all_good_end_well_and_no_line_is_no_answer(typed):
    code, out, err = typed("--stdin", stdin=b"100\nShip Old\n")
    assert (code, len(answers(out)), "could not" in err) == (0, 2, False)
    assert typed("--stdin", stdin=b"")[:2] == (0, "")
    code, out, _ = typed("--stdin", "--json", stdin=b"100\nnobody\n")
    first, second, end = answers(out)
    assert (code, first["line"], second["line"]) == (2, 1, 2)
    assert end["error"] == "1 of 2 lines could not be answered."


def test_every_answer_is_out_before_the_next_line_is_read(trained, monkeypatch):
    """As it must be where a program asks, reads the answer, and asks again."""

    class Conversation(io.BytesIO):
        def readline(self, *size):
            heard.append(out.getvalue().count("\n"))
            return super().readline(*size)

    heard, out = [], io.StringIO()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO()))
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr("sys.stdin", type("In", (), {"buffer": Conversation(b"100\n101\n102\n")}))
    with pytest.raises(SystemExit):
        cli.main(["recommend", "--model", str(trained), "--stdin", "--quiet"])
    console.configure()
    assert heard == [0, 1, 2, 3]


def test_a_reader_who_left_ends_the_answering(trained, monkeypatch):
    answered = []
    monkeypatch.setattr("recalign.console.write", lambda line: answered.append(line) or False)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"100\n" * 5)))
    with pytest.raises(SystemExit) as stop:
        cli.main(["recommend", "--model", str(trained), "--stdin", "--quiet"])
    console.configure()
    assert len(answered) == 1 and not stop.value.code


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "No history is named"),
        (["--history", "Ship Rde"], "Did you mean 'Ship Red'"),
        (["--history", ""], "has the title or id ''"),
        (["--history", "100", "--history", "Ship Red"], "names 'Ship Red' twice, at places 1 and 2"),
        (["--history", "100", "--size", "21"], "the catalogue has 20 items"),
        (["--history", "100", "--size", "0"], "--size"),
        (["--history", "100", "--stdin"], "--stdin brings histories of its own"),
        (["--history", "100", "--decoder", "beem"], "Did you mean 'beam'"),
        (["--history", "100", "--model", "nowhere/at/all"], "does not exist"),
        (["--history", "100", "--data", "nowhere"], "is not a prepared dataset"),
        (["--history-file", "nowhere.txt"], "nowhere.txt does not exist"),
    ],
)
def test_bad_input_is_told(typed, arguments, told):
    code, out, err = typed(*arguments)
    assert (code, out) == (2, "")
    assert told in err


def test_files_that_hold_no_history_are_told(typed, tmp_path):
    (tmp_path / "empty.txt").write_text("\n \n")
    assert "names no item" in typed("--history-file", tmp_path / "empty.txt")[2]
    (tmp_path / "latin.txt").write_bytes("Amélie".encode("latin-1"))
    code, _, err = typed("--history-file", tmp_path / "latin.txt")
    assert code == 2 and "latin.txt is not readable" in err


def test_a_model_whose_dataset_is_gone_says_where_it_was_and_takes_another_place(typed, trained, tmp_path):
    shutil.copytree(trained, tmp_path / "deep" / "sft")
    write_dataset(tmp_path / "copy", task="next")
    record = json.loads((tmp_path / "deep" / "sft" / "run.json").read_text())
    (tmp_path / "deep" / "sft" / "run.json").write_text(json.dumps({**record, "dataset": "/gone/data"}))
    asked = ["--model", tmp_path / "deep" / "sft", "--history", "100"]
    code, _, err = typed(*asked)
    assert code == 2
    assert "was trained on /gone/data, which is gone" in err and "--data" in err
    assert typed(*asked, "--data", tmp_path / "copy")[0] == 0


def test_another_catalogue_is_taken_only_where_it_is_named_and_titles_are_text(typed, tmp_path):
    write_dataset(tmp_path / "other", task="next", titles=[f"{title} Two" for title in TITLES])
    code, out, _ = typed("--history", "Ship Red Two", "--data", tmp_path / "other", "--json")
    assert code == 0
    assert all(each["title"].endswith(" Two") for each in answers(out)[0]["recommended"])


def test_the_newest_model_of_the_workspace_is_asked_and_a_workspace_without_one_says_so(typed, trained, monkeypatch):
    monkeypatch.setenv("RECALIGN_HOME", str(trained.parent))
    with pytest.raises(SystemExit) as stop:
        cli.main(["recommend", "--history", "100", "--quiet"])
    assert not stop.value.code
    monkeypatch.setenv("RECALIGN_HOME", str(trained.parent / "nowhere"))
    with pytest.raises(SystemExit) as stop:
        cli.main(["recommend", "--history", "100"])
    assert stop.value.code == 2


def test_the_rank_task_says_what_it_needs(typed, tmp_path):
    write_dataset(tmp_path / "rank", task="rank")
    asked = ["--model", TINY, "--data", tmp_path / "rank", "--history", "100"]
    code, _, err = typed(*asked)
    assert code == 2 and "--candidate" in err
    code, out, _ = typed(*asked, "--candidate", "105", "--candidate", "Robot Old", "--profile", "a user", "--json")
    assert code == 0
    assert sorted(each["item"] for each in answers(out)[0]["recommended"]) == [5, 6]


def test_the_examples_of_the_page_come_out(typed, tmp_path, monkeypatch, capsys):
    page = (Path(__file__).parents[2] / "docs" / "recommend.md").read_text("utf-8")
    monkeypatch.chdir(tmp_path)
    films = ["Alien (1979)", "Aliens (1986)", "Babe (1995)", "Heat (1995)"]
    train(write_dataset(tmp_path / "data", task="next", titles=[*films, *TITLES]).path, "runs/sft")
    capsys.readouterr()
    exec(re.findall(r"```python\n(.*?)```", page, re.DOTALL)[0], {})
    shown = ast.literal_eval(capsys.readouterr().out)
    assert len(shown) == 5 and set(shown) <= {*films, *TITLES}
    lines = [line.strip() for line in page.splitlines() if line.startswith(("    Alien", "    {"))]
    code, out, _ = typed("--model", "runs/sft", "--stdin", "--size", 5, stdin="\n".join(lines).encode())
    first, second = answers(out)
    assert code == 0
    assert [each["title"] for each in first["recommended"]] == shown
    assert {each["title"] for each in second["recommended"]} == set(films) - {"Alien (1979)"}


def test_python_is_told_of_lines_that_could_not_be_answered(trained, monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"100\n")))
    assert python.recommend(model=trained, stdin=True, quiet=True) == {}
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"nobody\n")))
    with pytest.raises(UserError, match="1 of 1 lines"):
        python.recommend(model=trained, stdin=True, quiet=True)
    assert [each["line"] for each in answers(capsys.readouterr().out)] == [1, 1]
