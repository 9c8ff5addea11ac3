import gzip

import numpy as np
import pytest

from recalign.errors import UserError
from recalign.sources.reading import open_table
from tests.sources.formats import pack

from .tables import records

FORMS = {
    "x.csv": "user,title\na,Café\nb,Ü\n",
    "x.tsv": "user\ttitle\na\tCafé\nb\tÜ\n",
    "x.jsonl": '{"user": "a", "title": "Café"}\n{"user": "b", "title": "Ü"}\n',
    "lines.json": '{"user": "a", "title": "Café"}\n{"user": "b", "title": "Ü"}\n',
    "array.json": '[{"user": "a", "title": "Café"}, {"user": "b",\n "title": "Ü"}]',
    "literals.json": "{u'user': u'a', u'title': u'Café'}\n{'user': 'b', 'title': 'Ü'}\n",
}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("suffix", ["", ".gz", ".zst"])
@pytest.mark.parametrize("name", FORMS)
def test_every_form_is_read_packed_or_not_with_or_without_a_byte_order_mark(tmp_path, name, suffix, encoding):
    file = pack(tmp_path / (name + suffix), FORMS[name].encode(encoding))
    table = open_table(file)
    assert list(table.schema) == ["user", "title"]
    assert records(table) == ([("a", "Café"), ("b", "Ü")], [1, 2], {})


def test_what_packs_a_file_its_first_bytes_tell(tmp_path):
    misnamed = pack(tmp_path / "x.csv", gzip.compress(FORMS["x.csv"].encode()))
    assert len(records(open_table(misnamed))[0]) == 2
    plain = tmp_path / "x.csv.gz"
    plain.write_text(FORMS["x.csv"])
    assert len(records(open_table(plain))[0]) == 2


def test_members_that_follow_each_other_are_one_file(tmp_path):
    for suffix in (".gz", ".zst"):
        parts = enumerate(("a,b\n1,2\n", "3,4\n"))
        halves = [pack(tmp_path / f"{n}.csv{suffix}", text).read_bytes() for n, text in parts]
        whole = tmp_path / f"x.csv{suffix}"
        whole.write_bytes(b"".join(halves))
        assert records(open_table(whole))[0] == [("1", "2"), ("3", "4")]


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_a_file_that_is_cut_off_says_after_which_line(tmp_path, suffix):
    lines = "".join(f"{a},{b}\n" for a, b in np.random.default_rng(0).random((20_000, 2)))
    file = pack(tmp_path / f"x.csv{suffix}", "a,b\n" + lines)
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with pytest.raises(UserError, match=r"data break off after line \d+") as error:
        records(open_table(file))
    assert "Download it again" in error.value.hint
