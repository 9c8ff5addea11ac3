import io

import pytest
from rich.console import Console

from recalign.preparation.pipeline import prepare_dataset
from recalign.preparation.report_table import table
from tests.preparation.worlds import write_csv

TABLE = """
user_id,item_id,timestamp,rating,title
a,1,1000000001,5,Sun
a,2,1000000002,5,
a,3,1000000003,1,Sun
a,4,1000000004,5,Rain
b,2,1000000001,5,Moon and Stars
b,1,1000000002,5,x
b,9,1000000003,1,New
b,3,1000000004,5,x
b,4,1000000005000,5,Rain
A,4,0,5,Rain
a ,4,5,2,Rain
"""


@pytest.fixture
def told(tmp_path):
    file = write_csv(tmp_path / "raw.csv", TABLE)
    options = {"split": "leave-one-out", "same_ids": "blanks", "mend_times": True, "min_rating": 2.0}
    counts = prepare_dataset("table", file, tmp_path / "out", options=options)["counts"]
    screen = io.StringIO()
    Console(file=screen, width=160).print(table(counts, "table", "words"))
    lines = [[cell.strip() for cell in line.strip("│ ").split("│")] for line in screen.getvalue().splitlines()]
    return {line[0]: line[1:] for line in lines if len(line) > 1}


def test_every_split_is_shown(told):
    for label in ("users", "interactions", "density", "rows", "cold targets", "title collisions"):
        assert label in told
    assert told["rows"][1:] == ["2", "2", "2"]
    assert told["words a title, mean / max"][0] == "2.0 / 3"


def test_what_would_mislead_has_a_line(told):
    assert told["left out: --min-rating 2"][0] == "2 (9 of 3 users and 4 items stay)"
    assert told["times"][0] == "1970-01-01 to 2001-09-09"
    assert told["unit of times, by their size"][0] == "seconds"
    assert told["times before 1990 / in the future"][0] == "2 / 0"
    assert told["times brought to seconds"][0] == "1"
    assert told["order of the rows in the file"][0] == "oldest first"
    assert told["items whose title differs among their rows"][0] == "2"
    assert told["items whose first row lacks the title"][0] == "1"
    assert told["user ids that look like another one"][0] == "2"
    assert told["user ids taken for another one"][0] == "1"
