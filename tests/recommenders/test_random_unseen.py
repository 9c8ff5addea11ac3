def test_unseen_items_come_first_and_the_pick_is_seeded(small, answer):
    found = answer("random-unseen", small, 3)
    assert all(items[0] == 5 for items in found)
    assert found == answer("random-unseen", small, 3)
    assert found[:2] == answer("random-unseen", small, 3, slice(2))
    assert any(found != answer("random-unseen", small, 3, seed=seed) for seed in (1, 2, 3))
