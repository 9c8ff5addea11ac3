def test_items_rank_by_training_interactions(small, answer):
    assert answer("popularity", small, 3, exclude_history=False) == [[0, 1, 2]] * 4  # 3, 2, then ties by index


def test_history_is_left_out_as_the_dataset_says(small, answer):
    assert answer("popularity", small, 2) == [[1, 2], [2, 3], [0, 1], [0, 1]]


def test_scores_are_counts(small, fitted):
    assert fitted("popularity", small).scores(small.rows("test")[:1]).tolist() == [[3.0, 2.0, 1.0, 1.0, 1.0, 0.0]]
