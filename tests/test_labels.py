"""Labels and titles that could steer a terminal or break a table: shown as plain text in every format."""

import io

import pytest

from recalign import cli, console
from recalign.console import label, printable
from tests.evaluation.prepared import write_decoded, write_small

ODD = "a\x1b[31mred\x07|b\nc<script>alert(1)</script>$x_1^2$ \\end{table} `*[l](u)*\u202e" + "z" * 5000


def test_control_characters_are_spelt_out_and_line_breaks_stay():
    assert printable("a\x1b[0m\tb\nc\x07\x9b\u202ed") == "a\\x1b[0m\tb\nc\\x07\\x9b\\u202ed"
    assert label(" a\n b\x1b ") == "a b\\x1b"
    assert len(label("z" * 5000)) < 250


def test_nothing_that_is_said_steers_the_terminal(capsys, monkeypatch):
    from rich.table import Table

    table = Table("a\x1b]0;title\x07")
    table.add_row("b\x1b[2J")
    console.configure()
    console.say("say \x1b[31m")
    console.warn("warn \x1b[31m")
    console.error("error \x1b[31m", "hint \x1b[31m")
    console.show(table)
    said = capsys.readouterr()
    assert "\x1b" not in said.out + said.err
    assert said.err.count("\\x1b[31m") == 4
    assert "\\x1b]0;t" in said.out and "\\x1b[2J" in said.out


def test_a_terminal_still_gets_its_colours():
    stream = io.StringIO()
    made = console._Console(file=stream, force_terminal=True, color_system="standard", highlight=False)
    made.print("[bold red]error:[/] \x1b[2J")
    assert stream.getvalue().startswith("\x1b[1;31merror:\x1b[0m \\x1b[2J")


def test_an_odd_label_is_one_plain_line_in_every_format(call, tmp_path):
    dataset = write_small(tmp_path / "data")
    folder = write_decoded(tmp_path / "sft", dataset, [[1, 3, 2]] * 4)
    other = write_decoded(tmp_path / "other", dataset, [[3, 2, 1]] * 4)
    assert call("eval", folder, "--no-baselines", "--label", ODD)[0] == 0
    assert call("eval", other, "--no-baselines")[0] == 0
    code, told = call("compare", folder, other, "--out", tmp_path / "out")
    assert code == 0, told
    texts = {file.name: file.read_text() for file in (tmp_path / "out").rglob("*") if file.suffix in (".md", ".tex")}
    assert {"table.md", "table.tex"} <= set(texts)
    for text in texts.values():
        assert not any(character in text for character in "\x1b\x07\u202e")
        assert "z" * 300 not in text
    rows = [line for line in texts["table.md"].splitlines() if "script" in line]
    assert all("&lt;script&gt;" in line and "red\\\\x07\\|b c" in line and "\\*\\[l\\](u)\\*" in line for line in rows)
    lines = [line.replace("\\|", "") for line in texts["table.md"].splitlines() if line.startswith("|")]
    assert all(line.count("|") == lines[0].count("|") for line in lines[:3])
    assert "\\end{table}" not in texts["table.tex"].split("\\toprule")[1].split("\\bottomrule")[0]
    assert "\\textless{}script\\textgreater{}" in texts["table.tex"]


@pytest.mark.parametrize("drop", [False, True])
def test_a_title_of_megabytes_is_refused_or_left_out(call, tmp_path, drop):
    events = "".join(f"{user},{item},{user + place}\n" for user in range(9) for place, item in enumerate("abcdef"))
    (tmp_path / "raw.csv").write_text("user_id,item_id,timestamp\n" + events)
    titles = {item: item.upper() for item in "abcdef"} | {"c": "x" * 1_000_000}
    (tmp_path / "items.csv").write_text("item_id,title\n" + "".join(f"{i},{t}\n" for i, t in titles.items()))
    more = ["--drop-invalid"] if drop else []
    given = ["prepare", "table", tmp_path / "raw.csv", "-p", f"items={tmp_path / 'items.csv'}", "--split", "user"]
    code, told = call(*given, "--folds", 3, "--out", tmp_path / "out", *more)
    assert len(told) < 5000
    if drop:
        assert code == 0, told
    else:
        assert (code, "(id 'c'): the title 'xxxx" in told, "has more than 5,000 characters" in told) == (2, True, True)


def test_errors_never_echo_all_of_a_long_input(call, tmp_path):
    long = "y" * 100_000
    for arguments in (
        ["sft", "--objective", long],
        ["align", "--reward", long],
        ["prepare", long],
        ["sft", "-p", f"{long}=1"],
        ["sft", "--epochs", long],
        ["sft", f"--{long}"],
        ["plugins", "show", long],
        ["run", long],
        ["run", "quickstart", "--set", f"{long}=1"],
        ["sft", "--data", long],
    ):
        code, told = call(*arguments, "--out", tmp_path / "out") if arguments[0] != "plugins" else call(*arguments)
        assert code == 2
        assert len(told) < 2500, arguments[0]


def test_results_as_json_are_alone_on_stdout(capsys, monkeypatch):
    """What a plugin prints, at import or later, goes to stderr."""

    def chatty(**_):
        print("hello from a plugin")
        return {"plugins": []}

    monkeypatch.setattr(cli.console, "speaks", lambda: True)
    with cli.console.results_apart(True):
        chatty()
        console.write("{}")
    said = capsys.readouterr()
    assert (said.out, said.err) == ("{}\n", "hello from a plugin\n")
