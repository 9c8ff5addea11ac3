from recalign.sources.reading import files, meter, open_table

from .tables import records, write


def test_large_files_have_a_bar_with_records_a_second_and_small_ones_none(tmp_path, monkeypatch, capsys):
    file = write(tmp_path, "a,b\n" + "".join(f"{n},x\n" for n in range(9000)))
    monkeypatch.setattr(files, "BLOCK", 1 << 12)
    monkeypatch.setattr("recalign.console.stderr.width", 160)
    records(open_table(file))
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(meter, "LARGE", 1 << 12)
    assert len(records(open_table(file))[0]) == 9000
    told = capsys.readouterr().err
    assert "x.csv (MB)" in told and "9,001 records" in told and "a second" in told


def test_of_files_that_are_read_at_once_one_has_the_bar(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "BLOCK", 1 << 12)
    monkeypatch.setattr(meter, "LARGE", 1 << 12)
    tables = [open_table(write(tmp_path, "a\n" + "7\n" * 9000, name)) for name in ("x.csv", "y.csv")]
    both = list(zip(tables[0].batches(["a"]), tables[1].batches(["a"]), strict=True))
    assert sum(one.frame.height + other.frame.height for one, other in both) == 18000
