"""`recalign rationales`: files and figures, a real endpoint, a real kill, limits, bad input, recipes."""

import json
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest

from recalign.api import RATIONALE
from recalign.commands.rationales import rationales
from recalign.data.dataset import PreparedDataset
from recalign.errors import UserError
from recalign.preparation.pipeline import prepare_dataset
from recalign.rationales.records import AnswerRecord, read_rationales
from recalign.rationales.sharing import gather, journal_of
from recalign.workspace import RunFolder
from tests.commands.test_processes import spawn
from tests.fake_dataset import write_dataset
from tests.fake_models import byte_level_tokenizer, save_model
from tests.teachers.server import PAGE, Answer, completion, serving

KEY = "sk-very-secret"
YES, NO = (f"It is so.\n{RATIONALE.line(each)}" for each in (True, False))


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    out = tmp_path_factory.mktemp("rationales") / "data"
    params = {"users": 30, "events": 12, "items": 40, "genres": 4}
    prepare_dataset("synthetic", None, out, params=params, options={"task": "rank", "candidates": 5})
    return PreparedDataset(out)


@pytest.fixture(autouse=True)
def _environment(monkeypatch):
    for name in ("OPENAI_BASE_URL", "OPENAI_MODEL", "http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)


def openai(endpoint, *more):
    return [f"base_url={getattr(endpoint, 'url', endpoint)}", "model=m", "retries=0", "max_tokens=5", *more]


def test_rules_leave_files_whose_lines_add_up_to_the_figures(dataset, tmp_path):
    results = rationales(data=dataset.path, rows=20, negatives=2, out=tmp_path / "run")
    counts = results["outcomes"]
    assert (counts["positive"]["asked"], counts["negative"]["asked"]) == (20, 40)
    assert all(row["asked"] == sum(row.values()) - row["asked"] for row in counts.values())
    read = read_rationales(tmp_path / "run" / "rationales.jsonl")
    assert results["kept"] == len(read) == counts["positive"]["kept"] + counts["negative"]["kept"] > 0
    assert {each.teacher for each in read.values()} == {"rules"}
    rows = dataset.rows("train")
    for (index, item), each in read.items():
        assert each.user_id == rows[index].user_id
        assert RATIONALE.read(each.text).recommended == (item in rows[index].relevant)
    assert RunFolder(tmp_path / "run").record["files"] == ["answers.jsonl", "rationales.jsonl"]


def test_the_same_again_is_up_to_date_and_elsewhere_the_same(dataset, tmp_path):
    asked = {"data": dataset.path, "rows": 10}
    first = rationales(**asked, out=tmp_path / "a")
    text = (tmp_path / "a" / "rationales.jsonl").read_text()
    (tmp_path / "a" / "rationales.jsonl").write_text("mine")  # a person's file is not touched any more
    assert rationales(**asked, out=tmp_path / "a") == first
    assert (tmp_path / "a" / "rationales.jsonl").read_text() == "mine"
    rationales(**asked, out=tmp_path / "b")
    assert (tmp_path / "b" / "rationales.jsonl").read_text() == text


def test_that_nothing_is_kept_is_said(dataset, tmp_path, capsys):
    with serving(lambda number, body: completion("<answer>Perhaps</answer>")) as endpoint:
        results = rationales("openai", data=dataset.path, rows=3, param=openai(endpoint), out=tmp_path / "run")
    assert results["kept"] == 0
    assert "No answer is kept: " in " ".join(capsys.readouterr().err.split())


def test_prompts_say_nothing_of_the_label_and_the_key_is_written_nowhere(dataset, tmp_path, capfd):
    with serving(lambda number, body: completion(YES)) as endpoint:
        results = rationales("openai", data=dataset.path, rows=5, param=openai(endpoint), out=tmp_path / "run")
    assert results["outcomes"]["positive"] == {"asked": 5, "kept": 5, "dropped": 0, "off_format": 0, "malformed": 0}
    assert results["outcomes"]["negative"] == {"asked": 5, "kept": 0, "dropped": 5, "off_format": 0, "malformed": 0}
    assert (results["prompt_tokens"], results["completion_tokens"]) == (70, 30)
    rows, titles = dataset.rows("train"), dataset.catalogue.titles
    answers = [json.loads(line) for line in (tmp_path / "run" / "answers.jsonl").read_text().splitlines()]
    prompts = [body["messages"][0]["content"] for _, _, body in endpoint.requests]
    for each in answers:
        row = rows[each["row"]]
        others = set(row.candidates.tolist()) - set(row.history.tolist()) - {each["item"]}
        assert 1 == sum(
            f'Candidate: "{each["title"]}"' in prompt
            and all(f'"{titles[item]}"' in prompt for item in row.history)
            and not any(f'"{titles[item]}"' in prompt for item in others)
            for prompt in prompts
        )
    written = "".join(file.read_text() for file in (tmp_path / "run").iterdir())
    captured = capfd.readouterr()
    assert KEY not in written + captured.out + captured.err


def test_a_killed_run_goes_on_and_asks_nothing_twice(dataset, tmp_path):
    """A real process, a real SIGKILL while replies come in, and the files of a run that nobody killed."""
    enough = threading.Event()

    def answer(number, body):
        if number >= 12:
            enough.set()
        return completion(YES)

    command = ["rationales", "openai", "--data", str(dataset.path), "--rows", "30", "--out", str(tmp_path / "run")]
    with serving(answer) as endpoint:
        options = [text for param in openai(endpoint, "concurrency=2") for text in ("-p", param)]
        process = subprocess.Popen([sys.executable, "-m", "recalign", *command, *options], stderr=subprocess.PIPE)
        assert enough.wait(120), process.communicate()
        process.send_signal(signal.SIGKILL)
        process.communicate()
        noted = (tmp_path / "run" / "answers.jsonl").read_bytes().count(b"\n")
        assert 0 < noted < 60
        params = openai(endpoint, "concurrency=2")
        rationales("openai", data=dataset.path, rows=30, param=params, out=tmp_path / "run", resume=True)
        prompts = [body["messages"][0]["content"] for _, _, body in endpoint.requests]
        assert len(prompts) - len(set(prompts)) <= 2  # at most what was under way, whose replies nobody saw
        assert noted + len(prompts) - 60 <= noted + 2
        rationales("openai", data=dataset.path, rows=30, param=params, out=tmp_path / "whole")
    for name in ("answers.jsonl", "rationales.jsonl"):
        files = [(tmp_path / run / name).read_text().splitlines() for run in ("run", "whole")]
        assert sorted(files[0]) == sorted(files[1])


@pytest.mark.parametrize(
    ("options", "spent"),
    [
        (["--max-tokens-total", "6000"], "of 6,000 tokens"),
        (["--max-spend", "0.006", "-p", "input_price=1", "-p", "output_price=1"], "of 0.006"),
    ],
)
def test_a_limit_stops_cleanly_and_a_higher_one_goes_on(dataset, tmp_path, call, options, spent):
    command = ["rationales", "openai", "--data", dataset.path, "--rows", "20", "--out", tmp_path / "run"]
    with serving(lambda number, body: completion(YES, 300, 5)) as endpoint:
        params = [text for param in openai(endpoint, "concurrency=3") for text in ("-p", param)]
        code, told = call(*command, *params, *options)
        first = len(endpoint.requests)
        assert code == 2
        assert "The limit is reached" in told and spent in told
        assert f"{40 - first} of 40 questions are left" in told
        assert 6000 - 2000 < 305 * first <= 6000  # a prompt of so many bytes might take up to 2000 more
        assert (
            len(read_rationales(tmp_path / "run" / "rationales.jsonl")) == (first + 1) // 2
        )  # a positive comes before its negative
        code, told = call(*command, *params, "--resume")
        assert code == 0, told
        assert len(endpoint.requests) == 40


def test_an_endpoint_that_fails_half_way_leaves_what_it_gave(dataset, tmp_path, call):
    down = threading.Event()

    def answer(number, body):
        return Answer('{"error": {"message": "gone"}}', 503) if number >= 6 and not down.is_set() else completion(YES)

    command = ["rationales", "openai", "--data", dataset.path, "--rows", "10", "--out", tmp_path / "run"]
    with serving(answer) as endpoint:
        params = [text for param in openai(endpoint, "concurrency=1") for text in ("-p", param)]
        code, told = call(*command, *params)
        assert code == 2
        assert "refused a question once (503" in told and "--resume" in told
        down.set()
        code, told = call(*command, *params)
        assert code == 2 and "unfinished" in told
        code, told = call(*command, *params, "--resume")
        assert code == 0, told
        assert len(endpoint.requests) == 20 + 1


def test_only_pages_of_html_are_given_up_on(dataset, tmp_path, call):
    with serving(lambda number, body: PAGE) as endpoint:
        params = [text for param in openai(endpoint) for text in ("-p", param)]
        code, told = call("rationales", "openai", "--data", dataset.path, "--out", tmp_path / "run", *params)
    assert code == 2
    assert "were no text; the last was a page of HTML" in told
    assert len(endpoint.requests) < 30


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["openai"], "has no model"),
        (["openai", "-p", "model=m", "-p", "key_variable=NO_SUCH"], "variable NO_SUCH"),
        (["openai", "-p", "model=m", "--max-spend", "1"], "needs to know what the tokens"),
        (["local"], "has no model"),
        (["opnai"], "Did you mean 'openai'?"),
        (["rules", "-p", "treshold=1"], "Did you mean 'threshold'?"),
        (["rules", "--template", "compact"], "has no text"),
        (["rules", "--template", "nowhere.jinja"], "There is no template"),
    ],
)
def test_what_is_missing_is_told_before_a_folder_is_made(dataset, tmp_path, call, arguments, says):
    code, told = call("rationales", *arguments, "--data", dataset.path, "--out", tmp_path / "run")
    assert code == 2
    assert says in told
    assert not (tmp_path / "run").exists()


def test_an_endpoint_that_is_down_leaves_no_folder(dataset, tmp_path, call):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        params = openai(f"http://127.0.0.1:{taken.getsockname()[1]}/v1")
        arguments = [text for param in params for text in ("-p", param)]
        code, told = call("rationales", "openai", "--data", dataset.path, "--out", tmp_path / "run", *arguments)
    assert code == 2
    assert "cannot be reached" in told
    assert not (tmp_path / "run").exists()


def test_a_line_that_an_editor_broke_stops_resume_and_is_told(dataset, tmp_path, call):
    command = ["rationales", "openai", "--data", dataset.path, "--rows", "10", "--out", tmp_path / "run"]
    with serving(lambda number, body: completion(YES, 300, 5)) as endpoint:
        params = [text for param in openai(endpoint, "concurrency=1") for text in ("-p", param)]
        call(*command, *params, "--max-tokens-total", "4000")
        file = tmp_path / "run" / "rationales.jsonl"
        whole = file.read_text()
        file.write_text(whole.replace('"decision"', '"decision', 1))
        before = file.read_text()
        code, told = call(*command, *params, "--resume")
        assert code == 2
        assert f"{file}, line 1 is not readable JSON" in told
        assert file.read_text() == before
        file.write_text(whole)
        code, told = call(*command, *params, "--resume")
        assert code == 0, told
        assert len(endpoint.requests) == 20


def test_datasets_of_other_tasks_ask_about_no_candidates(tmp_path):
    data = write_dataset(tmp_path / "data", task="next")
    with pytest.raises(UserError, match="its task is 'next'") as error:
        rationales(data=data.path, out=tmp_path / "run")
    assert "--task rank" in error.value.hint


def test_a_model_on_this_machine_is_sampled_the_same_in_other_batches(dataset, tmp_path):
    model = save_model(tmp_path / "model", byte_level_tokenizer(dataset.catalogue.titles, chat=True), context=1024)
    params = [f"model={model}", "max_tokens=6"]
    asked = {"data": dataset.path, "rows": 4}
    results = rationales("local", **asked, param=[*params, "batch_size=3"], out=tmp_path / "a")
    rationales("local", **asked, param=[*params, "batch_size=1"], out=tmp_path / "b")
    assert results["questions"] == 8
    assert 0 < results["completion_tokens"]
    texts = [
        {(each["row"], each["item"]): each["text"] for each in map(json.loads, file.read_text().splitlines())}
        for file in (tmp_path / "a" / "answers.jsonl", tmp_path / "b" / "answers.jsonl")
    ]
    assert texts[0] == texts[1]
    assert len(set(texts[0].values())) > 1


RECIPE = """
[[step]]
name = "data"
command = "prepare"
source = "synthetic"
params = { users = 30, events = 12, items = 40, genres = 4 }
task = "rank"
candidates = 4

[[step]]
command = "rationales"
data = "@data"
rows = 10
params = { threshold = 0.6 }

[[step]]
command = "sft"
data = "@data"
rationales = "@rationales/rationales.jsonl"
template = "alpaca"
metric = "none"
max-steps = 1
"""


def test_a_recipe_chains_them_and_checks_the_teacher_before_anything_runs(tmp_path, call, monkeypatch):
    (tmp_path / "x.toml").write_text(RECIPE, "utf-8")
    code, told = call("run", tmp_path / "x.toml")
    assert code == 0, told
    runs = tmp_path / "runs" / "x"
    assert RunFolder(runs / "rationales").record["options"]["identity"]["threshold"] == 0.6
    assert RunFolder(runs / "sft").done
    (tmp_path / "y.toml").write_text(RECIPE.replace("threshold", "treshold"), "utf-8")
    code, told = call("run", tmp_path / "y.toml")
    assert code == 2
    assert "Step 'rationales'" in told and "Did you mean 'threshold'" in told
    assert not (tmp_path / "runs" / "y").exists()


@pytest.mark.slow
def test_several_processes_ask_what_one_asks(dataset, tmp_path):
    """An answer that an interrupted process left in a folder of its own is not asked for again."""
    one = rationales(data=dataset.path, rows=12, out=tmp_path / "one")
    given = ["rationales", "--data", dataset.path, "--rows", 12, "--num-processes", 2, "--out", tmp_path / "two"]
    spawn(["recalign", *given])
    results = RunFolder(tmp_path / "two").record["results"]
    assert results == {key: value for key, value in one.items() if key != "out"}
    names = ("answers.jsonl", "rationales.jsonl")
    lines = [
        sorted((tmp_path / run / name).read_text("utf-8").splitlines()) for name in names for run in ("one", "two")
    ]
    assert lines[0] == lines[1] and lines[2] == lines[3]
    assert not (tmp_path / "two" / "parts").exists()


def test_what_another_process_left_is_gathered_once(tmp_path):
    whole, part = journal_of(tmp_path, 0), journal_of(tmp_path, 1)
    records = [
        AnswerRecord(
            row=row, item=0, user_id="u", title="t", positive=True, outcome="kept", text=YES, problem="",
            prompt_tokens=2, completion_tokens=3, teacher="rules", model="",
        )
        for row in range(3)
    ]  # fmt: skip
    whole.add(records[0])
    for record in records:  # the first of them was gathered before the run was cut off
        part.add(record)
    journal = journal_of(tmp_path, 0)
    gather(tmp_path, journal)
    assert journal.answered == {(0, 0), (1, 0), (2, 0)} and journal.spent == (6, 9)
    assert len((tmp_path / "answers.jsonl").read_text("utf-8").splitlines()) == 3
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == []


def test_limits_are_those_of_one_process(call, dataset):
    code, told = call("rationales", "--data", dataset.path, "--num-processes", 2, "--max-tokens-total", 9)
    assert code == 2 and "count what one process spends" in told


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_who_stops_it_waits_for_no_retry_and_keeps_what_was_answered(dataset, tmp_path, number):
    busy = Answer('{"error": {"message": "slow down"}}', 429, headers={"Retry-After": "300"})
    with serving(lambda request, body: completion(YES) if request < 2 else busy) as endpoint:
        command = ["rationales", "openai", "--data", dataset.path, "--rows", 6, "--out", tmp_path / "run"]
        params = [f"base_url={endpoint.url}", "model=m", "concurrency=2"]
        given = [*command, *(part for each in params for part in ("-p", each))]
        asking = subprocess.Popen([sys.executable, "-m", "recalign", *map(str, given)], stderr=subprocess.PIPE)
        while len(endpoint.requests) < 4:
            time.sleep(0.05)
        time.sleep(0.5)
        asking.send_signal(number)
        assert asking.wait(timeout=60) == 130
    lines = (tmp_path / "run" / "answers.jsonl").read_text().splitlines()
    assert len(lines) == 2
