"""Delimited files against Python's csv: every record is read or refused, whatever the quotes."""

import csv
import io

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recalign.errors import UserError
from recalign.sources.reading import Column, files, open_table
from recalign.sources.reading.delimited import FIELDS, QUOTE, TEXT

from .tables import read, records, write

CELL = st.text(alphabet='ab, "\\\n\r;é', max_size=6) | st.just('7" tab')
BLOCKS = st.sampled_from([7, 40, 1 << 20])


def with_block(size, call):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files, "BLOCK", size)
        return call()


def python_rows(text, separator=","):
    return [row for row in csv.reader(io.StringIO(text, newline=""), delimiter=separator) if row]


def expected(rows, width):
    return [tuple(cell or None for cell in row) for row in rows if len(row) == width]


@settings(max_examples=300)
@given(
    rows=st.lists(st.lists(CELL, min_size=3, max_size=3), max_size=8),
    quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
    end=st.sampled_from(["\n", "\r\n", "\r"]),
    separator=st.sampled_from([",", ";", "\t", "|"]),
    encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-16-be", "latin-1", "utf-32"]),
    block=BLOCKS,
)
def test_what_csv_writes_is_read_as_csv_reads_it(tmp_path_factory, rows, quoting, end, separator, encoding, block):
    stream = io.StringIO()
    csv.writer(stream, quoting=quoting, lineterminator=end, delimiter=separator).writerows([["x", "y", "z"], *rows])
    file = write(tmp_path_factory.mktemp("f"), stream.getvalue().encode(encoding))
    named = encoding if encoding in ("latin-1", "utf-16-be") else "utf-8"  # the others have a byte order mark
    got, numbers, refused = with_block(block, lambda: records(open_table(file, separator=separator, encoding=named)))
    if not refused:
        told = python_rows(stream.getvalue(), separator)[1:]
        assert got == expected(told, 3)
        assert numbers == list(range(1, len(told) + 1))
    else:  # lines of a cell looked like records: loud, never silent
        assert list(refused) == [QUOTE.text] or FIELDS.text in refused
        assert any("\n" in cell or "\r" in cell for row in rows for cell in row)


@settings(max_examples=500)
@given(
    lines=st.lists(st.lists(st.text(alphabet='ab" \\', max_size=4), max_size=5).map(",".join), max_size=8),
    last=st.sampled_from(["", "\n"]),
    block=BLOCKS,
)
def test_quotes_anywhere_leave_no_record_unaccounted(tmp_path_factory, lines, last, block):
    text = "\n".join(["x,y,z", *lines]) + last
    got, numbers, refused = with_block(block, lambda: records(open_table(write(tmp_path_factory.mktemp("f"), text))))
    told = python_rows(text)[1:]
    if QUOTE.text not in refused:
        assert got == expected(told, 3)
        assert refused.get(FIELDS.text, 0) == sum(len(row) != 3 for row in told)
    else:  # Python's csv goes on over line ends there, or to the end of the file
        assert any("\n" in cell for row in told for cell in row) or '"' in text.splitlines()[-1]
    assert len(set(numbers)) == len(got)
    assert max(numbers, default=0) <= len(got) + sum(refused.values())
    for line in {line for line in lines if line and '"' not in line}:  # such a line is never swallowed unseen
        assert (
            tuple(cell or None for cell in line.split(",")) in got
            or line.count(",") != 2
            or any(line in (cell or "") for row in got for cell in row)
        )


@settings(max_examples=300)
@given(
    notes=st.lists(
        st.sampled_from(["ok", '7" tablet', '"open', 'shut"', 'a "b" c', '"q"', '"x""y"', "", 'b"']), max_size=30
    ),
    block=BLOCKS,
)
def test_lone_quotes_swallow_no_row(tmp_path_factory, notes, block):
    """Rows with ids: each is read as one row, or refused as one row."""
    text = "user,note,item\n" + "".join(f"u{n},{note},i{n}\n" for n, note in enumerate(notes))
    got, numbers, refused = with_block(block, lambda: records(open_table(write(tmp_path_factory.mktemp("f"), text))))
    assert len(got) + sum(refused.values()) == len(notes)
    assert [row[0] for row in got] == [f"u{n - 1}" for n in numbers]
    assert [n - 1 for n in numbers] == [n for n, note in enumerate(notes) if note != '"open']
    assert refused == ({QUOTE.text: notes.count('"open')} if '"open' in notes else {})


def test_a_cell_of_several_lines_is_one_record(tmp_path):
    text = 'id,text\n1,"Dear all,\n\nall is well."\n2,"no, ""really"", it is\n"\n3,x\n'
    got, numbers, refused = records(open_table(write(tmp_path, text)))
    assert got == [("1", "Dear all,\n\nall is well."), ("2", 'no, "really", it is\n'), ("3", "x")]
    assert (numbers, refused) == ([1, 2, 3], {})


def test_a_mark_that_opens_and_never_closes_is_refused_alone(tmp_path):
    notes = ["ok"] * 3 + ['"open'] + ["ok"] * 3 + ['"open'] + ["ok"] * 2
    text = "user,item,note\n" + "".join(f"u{n},i{n},{note}\n" for n, note in enumerate(notes))
    frame, account = read(write(tmp_path, text), {"user_id": Column("user", "id")})
    assert frame["user_id"].to_list() == ["u0", "u1", "u2", "u4", "u5", "u6", "u8", "u9"]
    assert account.refused[QUOTE.text].first == (
        "row 4: a quotation mark is never closed: 'u3,i3,\"open'",
        "row 8: a quotation mark is never closed: 'u7,i7,\"open'",
    )


@pytest.mark.parametrize("words", ["well, fine", "no,really,not,so,good", "3,4 yes,a,b,c\n1,2"])
def test_prose_of_several_lines_is_no_record_though_it_has_as_many_commas(tmp_path, words):
    rows = [(f"u{n}", f"i{n}", n, f"so\n{words}", 5) for n in range(5)]
    stream = io.StringIO()
    csv.writer(stream, lineterminator="\n").writerows([("user", "item", "time", "review", "stars"), *rows])
    got, _, refused = records(open_table(write(tmp_path, stream.getvalue())))
    assert (got, refused) == ([tuple(map(str, row)) for row in rows], {})


def test_a_mark_that_another_row_closes_by_chance_is_refused(tmp_path):
    """A title that begins with a lone mark, and one that ends with a lone mark for inches, are syntax by chance."""
    titles = ["Emma", '"Dune', "Heat the film", "It", 'Tablet 7"', "Jaws"]
    text = "item,title,year\n" + "".join(f"i{n},{title},{1990 + n}\n" for n, title in enumerate(titles))
    got, _, refused = records(open_table(write(tmp_path, text)))
    assert [row[0] for row in got] == ["i0", "i2", "i3", "i4", "i5"]
    assert (got[3][1], refused) == ('Tablet 7"', {QUOTE.text: 1})


def test_a_mark_is_not_open_beyond_the_longest_record(tmp_path, monkeypatch):
    monkeypatch.setattr("recalign.sources.reading.dialect.LONGEST", 50)
    monkeypatch.setattr(files, "BLOCK", 30)
    text = 'a,b\n1,"open\n' + "".join(f"{n},some more words\n" for n in range(40)) + '9,"x"\n'
    got, _, refused = records(open_table(write(tmp_path, text)))
    assert (len(got), refused) == (41, {QUOTE.text: 1})


def test_escapes_where_they_are_named(tmp_path):
    text = 'a,b\n1,"say \\"hi\\", x"\n2,c\\,d\n3,"e\\\\"\n'
    rows, _, refused = records(open_table(write(tmp_path, text), escape="\\"))
    assert rows == [("1", 'say "hi", x'), ("2", "c,d"), ("3", "e\\")]
    assert rows == expected(list(csv.reader(io.StringIO(text), escapechar="\\"))[1:], 2)
    assert refused == {}
    assert records(open_table(write(tmp_path, text)))[2] == {FIELDS.text: 2}  # by default as Python's csv


def test_quotes_are_plain_text_without_a_quoting_character(tmp_path):
    file = write(tmp_path, 'user\ttime\n"a\t1\n', "x.inter")
    assert records(open_table(file, quote=None)) == ([('"a', "1")], [1], {})


def test_columns_can_be_named_where_there_is_no_header(tmp_path):
    file = write(tmp_path, "1\t2\n3\t4\n5\n", "x.dat")
    table = open_table(file, separator="\t", columns=["user", "item"])
    assert records(table) == ([("1", "2"), ("3", "4")], [1, 2], {FIELDS.text: 1})
    assert next(table.batches(["user"])).refused[0].first == [(3, "1 field, but 2 are named")]


@pytest.mark.parametrize("size", [16, 1 << 20])
def test_text_of_another_encoding_is_named_and_read_when_the_encoding_is(tmp_path, monkeypatch, size):
    monkeypatch.setattr(files, "BLOCK", size)
    file = write(tmp_path, "id,title\n1,Amélie\n2,Heat\n3,\x80\n".replace("\x80", "Ça va").encode("latin-1"))
    got, numbers, refused = records(open_table(file))
    assert (got, numbers, refused) == ([("2", "Heat")], [2], {TEXT.text: 2})
    assert records(open_table(file, encoding="latin-1"))[0] == [("1", "Amélie"), ("2", "Heat"), ("3", "Ça va")]


@pytest.mark.parametrize(
    ("text", "options", "said"),
    [
        (b"", {}, "is empty"),
        (b"\n\n", {}, "is empty"),
        (b"\xef\xbb\xbf", {}, "is empty"),
        (b'a,"b\n1,2\n', {}, "quotation mark of the header"),
        (b"a,b,a\n1,2,3\n", {}, "has two columns 'a'"),
        (b"\xff\xfea", {}, "not utf-16-le text"),
        (b"a,b\n1,\x81\n", {"encoding": "cp1252"}, "x.csv, line 2: not cp1252 text"),
        (b"a,b\n", {"encoding": "utf8mb4"}, "no encoding 'utf8mb4'"),
        (b"a,b\n", {"separator": '"'}, "two meanings"),
        (b"a,b\n", {"quote": "''"}, "quote = \"''\" is refused"),
        (b"PK\x03\x04,\x01\n", {}, "begins with no header of text"),
    ],
)
def test_files_and_dialects_that_cannot_be_used(tmp_path, text, options, said):
    with pytest.raises(UserError) as error:
        records(open_table(write(tmp_path, text), **options))
    assert said in error.value.what


def test_a_column_without_a_name_is_kept(tmp_path):
    assert records(open_table(write(tmp_path, ",user\n0,a\n")))[0] == [("0", "a")]


@pytest.mark.parametrize("size", [(1 << 20) - 2, 1 << 20, 3 << 20])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_line_that_is_longer_than_a_block_of_the_parser_is_read(tmp_path, size, end):
    rows = [["a", "b"], ["1", "x"], ["2", "t" * size], ["3", "y"]]
    file = tmp_path / "x.csv"
    file.write_bytes(end.join(map(",".join, rows)).encode())
    table = open_table(file)
    parts = [batch.frame for batch in table.batches(["a", "b"])]
    assert [list(map(str, row)) for part in parts for row in part.iter_rows()] == rows[1:]
