import csv
import io

from recalign.commands.compare import compare as compare_command
from recalign.comparison.report_files import FILES, to_csv, write_report

from .conftest import GOOD, HOSTILE, POOR


def test_csv_has_a_line_for_every_system_and_metric_in_full_precision(hostile):
    lines = list(csv.DictReader(io.StringIO(to_csv(hostile))))
    assert len(lines) == len(hostile.systems) * (len(hostile.metrics) + 2)  # and coverage and gini
    assert lines[0]["system"] == HOSTILE and lines[0]["difference"] == ""
    one = next(line for line in lines if line["system"] == "blade 0.1" and line["metric"] == "ndcg@2")
    system, test = hostile.systems[1], hostile.tests["blade 0.1"]["ndcg@2"]
    assert float(one["mean"]) == system.summary["ndcg@2"].mean
    assert (float(one["difference"]), float(one["p"])) == (test.difference.mean, test.p)
    assert (one["users_higher"], one["rows"], one["higher_is_better"]) == (str(test.wins), "3", "True")
    corpus = next(line for line in lines if line["system"] == "blade 0.1" and line["metric"] == "gini")
    assert float(corpus["mean"]) == system.corpus["gini"] and corpus["higher_is_better"] == "False"


def test_all_files_are_written_and_are_those_that_the_run_claims(hostile, tmp_path):
    files = write_report(hostile, tmp_path / "report")
    assert {file.relative_to(tmp_path / "report").parts[0] for file in files} == set(FILES)
    assert all(file.stat().st_size > 300 for file in files)
    assert {file.name for file in (tmp_path / "report").iterdir()} == set(FILES)


def test_the_command_writes_the_report_and_shows_fewer_users_when_asked(evaluated, tmp_path):
    runs = [evaluated(f"cli/{name}", lists).folder for name, lists in (("sft", POOR), ("blade", GOOD))]
    results = compare_command(runs, users=1, out=tmp_path / "out")
    page = (tmp_path / "out/report.html").read_text("utf-8")
    assert "1 of 4 rows" in page
    assert str(tmp_path / "out/report.html") in results["files"]
