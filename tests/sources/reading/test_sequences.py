from recalign.plugins import registry


def read(path, **params):
    raw = registry.create("source", "table", {"timestamp": "row", "columns": "user_id,item_id", **params}).read(path, 0)
    return raw.events.collect().cast({"user_id": str, "item_id": str}).rows(), raw.accounts[0]


def test_pairs_of_sasrec_are_in_the_order_of_time(tmp_path):
    (tmp_path / "ml-1m.txt").write_text("1 7\n1 3\n2 7\n")
    assert read(tmp_path / "ml-1m.txt", separator=" ")[0] == [("1", "7", 0.0), ("1", "3", 1.0), ("2", "7", 2.0)]


def test_a_line_may_be_a_user_and_its_items(tmp_path):
    (tmp_path / "x.txt").write_text("1 7 3  9\n\n2 7\n3\n")
    events, account = read(tmp_path / "x.txt", rows="user")
    assert events == [("1", "7", 0.0), ("1", "3", 1.0), ("1", "9", 2.0), ("2", "7", 0.0)]
    assert account.refused["no item after the user"].first == ("line 4: one id alone: '3'",)
