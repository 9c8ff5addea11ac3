def test_only_what_came_just_before_the_row_counts(write_dataset, answer, monkeypatch):
    monkeypatch.setattr("recalign.recommenders.recent_popularity.RECENT", 2)
    events = [("a", 0, 1), ("a", 0, 2), ("b", 0, 3), ("b", 1, 4), ("c", 2, 5), ("c", 2, 6)]
    rows = [("u", [], [1], [1.0], 4.5), ("v", [], [1], [1.0], 9.0), ("w", [], [1], [1.0], 0.0)]
    data = write_dataset(["a", "b", "c"], events, rows)
    assert answer("recent-popularity", data, 3) == [[0, 1, 2], [2, 0, 1], [0, 2, 1]]
