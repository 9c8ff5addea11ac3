"""What prepare does with the records that a source refused."""

from pathlib import Path

import pytest

from recalign.api import FileAccount, Refused
from recalign.data.dataset import PreparedDataset
from recalign.errors import UserError
from recalign.preparation.accounts import check_accounts, counted, left_out
from recalign.preparation.pipeline import prepare_dataset

BAD = Refused(2, ("row 3: x = 'a' is not a number", "row 5: x = 'b' is not a number"), "Mend the row.")
ACCOUNT = FileAccount(Path("/data/x.csv"), 8, {"x is not a number": BAD})


def test_records_are_those_read_and_those_refused():
    assert ACCOUNT.records == 10
    assert counted([ACCOUNT]) == [
        {
            "file": "x.csv",
            "records": 10,
            "read": 8,
            "refused": {"x is not a number": {"count": 2, "first": list(BAD.first)}},
        }
    ]


def test_refused_records_stop_unless_they_are_to_be_left_out():
    with pytest.raises(UserError) as error:
        check_accounts([FileAccount(Path("y"), 1), ACCOUNT], drop_invalid=False)
    assert error.value.what == "/data/x.csv, row 3: x = 'a' is not a number; 2 of 10 records are refused."
    assert error.value.hint == "Mend the row. --drop-invalid leaves such records out."
    check_accounts([ACCOUNT], drop_invalid=True)
    (told,) = left_out([ACCOUNT])
    assert told.startswith("2 of 10 records of x.csv were left out (x is not a number), such as row 3: x = 'a'")


def test_a_file_of_which_nothing_can_be_read_stops_in_any_case():
    with pytest.raises(UserError, match="row 3"):
        check_accounts([FileAccount(Path("x"), 0, ACCOUNT.refused)], drop_invalid=True)


def test_what_is_left_out_is_in_the_report_and_the_rest_is_the_dataset(tmp_path, capsys):
    good = [f"u{n // 5},i{n * 7 % 11},{n},ok\n" for n in range(100)]
    bad = ["u1,i1,never,ok\n", "u1,i1,7\n", 'u1,i1,7,"open\n']
    (tmp_path / "raw.csv").write_text("user_id,item_id,timestamp,note\n" + "".join([*bad, *good]))
    (tmp_path / "good.csv").write_text("user_id,item_id,timestamp,note\n" + "".join(good))
    options = {"split": "leave-one-out"}
    with pytest.raises(UserError, match="row 1: timestamp = 'never' is not a time; 3 of 103 records are refused"):
        prepare_dataset("table", tmp_path / "raw.csv", tmp_path / "out", options=options)
    results = prepare_dataset(
        "table", tmp_path / "raw.csv", tmp_path / "out", options={**options, "drop_invalid": True}
    )
    (file,) = results["counts"]["files"]
    assert (file["records"], file["read"]) == (103, 100)
    assert {reason: each["count"] for reason, each in file["refused"].items()} == {
        "timestamp is not a time": 1,
        "a wrong number of fields": 1,
        "a quotation mark that is never closed": 1,
    }
    shown = " ".join(capsys.readouterr().out.split())
    assert "records of raw.csv" in shown and "103" in shown and "refused: a wrong number of fields" in shown
    assert sum("were left out" in each for each in results["warnings"]) == 3
    prepare_dataset("table", tmp_path / "good.csv", tmp_path / "same", options=options)
    left, right = PreparedDataset(tmp_path / "out"), PreparedDataset(tmp_path / "same")
    assert left.interactions().equals(right.interactions())
    assert left.catalogue.titles == right.catalogue.titles
