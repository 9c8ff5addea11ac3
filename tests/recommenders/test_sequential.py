"""SASRec and BERT4Rec: what they see, what they learn, what is kept."""

import subprocess
import sys

import numpy as np
import pytest
import torch

from recalign.api import TrainingData
from recalign.errors import UserError
from recalign.plugins.registry import create
from recalign.recommenders import sequential_training
from recalign.recommenders.bert4rec import Bert4RecParams
from recalign.recommenders.recommend import top_items
from recalign.recommenders.sasrec import SasRecParams
from recalign.recommenders.sequential_model import SequentialModel, hidden_positions
from tests.decoding.doubles import row
from tests.evaluation.prepared import write_dataset

ITEMS = 12
PARAMS = {"sasrec": SasRecParams, "bert4rec": Bert4RecParams}


def model_of(kind, seed=0, **params):
    torch.manual_seed(seed)
    declared = PARAMS[kind](**{"hidden": 16, "history": 6, **params})
    return SequentialModel(ITEMS, declared, masked_share=getattr(declared, "mask", None)).eval()


def test_a_position_of_sasrec_sees_what_came_before_and_one_of_bert4rec_sees_all():
    tokens = torch.tensor([[1, 2, 3, 4, 5]])
    others = torch.tensor([[1, 2, 3, 9, 8]])
    chosen = torch.tensor([[False, False, True, False, False]])
    causal, both = model_of("sasrec"), model_of("bert4rec")
    torch.testing.assert_close(causal(tokens, chosen), causal(others, chosen))
    earlier = torch.tensor([[7, 2, 3, 4, 5]])
    assert not torch.allclose(causal(tokens, chosen), causal(earlier, chosen), atol=1e-4)
    assert not torch.allclose(both(tokens, chosen), both(others, chosen), atol=1e-4)


@pytest.mark.parametrize("kind", PARAMS)
def test_a_rows_scores_do_not_depend_on_the_rows_beside_it(kind):
    model = model_of(kind)
    some = [row(0, [1, 2]), row(1, [3, 4, 5, 6, 7, 8, 9]), row(2, [1])]
    together = model.scores(some)
    assert together.shape == (3, ITEMS) and together.dtype == np.float64
    for place, one in enumerate(some):
        np.testing.assert_allclose(model.scores([one])[0], together[place], atol=1e-5)
    np.testing.assert_allclose(model.scores([row(3, [4, 5, 6, 7, 8, 9])])[0], together[1], atol=1e-5)  # the last six


def test_a_row_without_history():
    assert model_of("sasrec").scores([row(0, []), row(1, [2])])[0].tolist() == [0.0] * ITEMS
    alone, beside = (model_of("bert4rec").scores(some)[0] for some in ([row(0, [])], [row(0, []), row(1, [2, 3])]))
    assert np.ptp(alone) > 0
    np.testing.assert_allclose(alone, beside, atol=1e-5)


def test_the_loss_of_sasrec_is_the_cross_entropy_of_every_next_item():
    model = model_of("sasrec")
    sequences = [np.array([1, 2, 3]), np.array([4, 5])]
    known = [([1], 2), ([1, 2], 3), ([4], 5)]
    logps = [torch.from_numpy(model.scores([row(0, past)])[0]).log_softmax(0)[following] for past, following in known]
    loss = model.loss(sequences, np.random.default_rng(0))
    assert loss.item() == pytest.approx(-torch.stack(logps).mean().item(), abs=1e-5)


def test_the_loss_of_bert4rec_is_that_of_the_hidden_items(monkeypatch):
    model = model_of("bert4rec")
    last = np.array([[False, False, True]] * 2)
    monkeypatch.setattr("recalign.recommenders.sequential_model.hidden_positions", lambda *_: last)
    sequences = [np.array([1, 2, 3]), np.array([4, 5])]
    logps = [
        torch.from_numpy(model.scores([row(0, past)])[0]).log_softmax(0)[following]
        for past, following in (([1, 2], 3), ([4], 5))
    ]
    loss = model.loss(sequences, np.random.default_rng(0))
    assert loss.item() == pytest.approx(-torch.stack(logps).mean().item(), abs=1e-5)


def test_half_of_the_sequences_hide_their_last_item_and_the_others_a_share():
    lengths = np.tile([2, 5, 9], 4000)
    present = np.arange(10) >= 10 - lengths[:, None]
    hidden = hidden_positions(present, 0.3, np.random.default_rng(0))
    assert not hidden[~present].any()
    assert (hidden.sum(axis=1) >= 1).all()
    nine = hidden[lengths == 9]
    last_alone = (nine.sum(axis=1) == 1) & nine[:, 9]
    only_last, none, one = 0.5, 0.7**9, 0.3 * 0.7**8  # of a random share: none is hidden (then the least draw), or one
    assert last_alone.mean() == pytest.approx(only_last + 0.5 * (none / 9 + one), abs=0.03)
    assert nine[:, 1].mean() == pytest.approx(0.5 * (0.3 + none / 9), abs=0.03)


def test_users_are_cut_into_pieces_that_overlap_by_one():
    data = TrainingData(None, np.array([0] * 8 + [1] + [2] * 2), np.array([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10]), None)
    pieces = [piece.tolist() for piece in sequential_training._sequences(data, 3)]
    assert pieces == [[4, 5, 6, 7], [1, 2, 3, 4], [0, 1], [9, 10]]


def test_batches_are_a_shuffled_split_by_length():
    sequences = [np.full(length, place) for place, length in enumerate([3, 2, 9, 2, 3, 9, 2])]
    epochs = [list(sequential_training._batches(sequences, 3, np.random.default_rng(seed))) for seed in range(9)]
    for batches in epochs:
        assert sorted(int(one[0]) for batch in batches for one in batch) == list(range(7))
        assert sorted(sorted(map(len, batch)) for batch in batches) == [[2, 2, 2], [3, 3, 9], [9]]
    assert len({str(batches) for batches in epochs}) > 3


@pytest.fixture
def circle(tmp_path):
    """Users walk a circle of items; what comes next is always the next item."""
    walks = [(user + np.arange(7)) % ITEMS for user in range(2 * ITEMS)]
    events = [(f"u{user}", int(item), time) for user, walk in enumerate(walks) for time, item in enumerate(walk)]
    pasts = [((start + np.arange(6)) % ITEMS).tolist() for start in range(ITEMS)]
    rows = [(f"v{past[0]}", past, [(past[-1] + 1) % ITEMS], [1.0], 9.0) for past in pasts]
    return write_dataset(tmp_path / "data", [f"item {i}" for i in range(ITEMS)], events, rows, task="next")


def fitted(kind, dataset, seed=0, **params):
    recommender = create("recommender", kind, params)
    recommender.fit(TrainingData.of(dataset), seed)
    return recommender


@pytest.mark.parametrize("kind", PARAMS)
def test_what_always_follows_is_learnt(kind, circle):
    params = dict(hidden=32, history=6, epochs=40, patience=12, dropout=0.0, batch_size=4, learning_rate=5e-3)
    rows = circle.rows("test")[:]
    scores = fitted(kind, circle, **params).scores(rows)
    found = top_items(scores, rows, 1, exclude_history=True).items[:, 0]
    assert (found == (np.arange(ITEMS) + 6) % ITEMS).mean() >= 0.9


def test_seeds_decide_and_leave_the_rest_alone(circle):
    params = {"hidden": 16, "history": 6, "epochs": 2}
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first, again, other = (fitted("sasrec", circle, seed, **params).model.state_dict() for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["embedding.weight"], other["embedding.weight"])


def test_the_epoch_that_is_best_on_validation_rows_is_retained_and_training_stops_after_it(circle, monkeypatch):
    seen = []

    def validate(model, data):
        seen.append(model.scores(data.validation()[:]))
        return [0.1, 0.5, 0.3, 0.4, 0.2, 0.9][len(seen) - 1]

    monkeypatch.setattr(sequential_training, "_validate", validate)
    recommender = fitted("sasrec", circle, hidden=16, history=6, epochs=6, patience=3)
    retained = recommender.scores(circle.rows("valid")[:])
    assert len(seen) == 5
    assert recommender.fitted == {"epoch": 2, "epochs": 5, "ndcg@10": 0.5}
    np.testing.assert_array_equal(retained, seen[1])


def test_damaged_missing_and_other_models_are_refused(circle, tmp_path):
    with pytest.raises(UserError, match="no readable recommender"):
        create("recommender", "sasrec").load(tmp_path, circle.catalogue)
    fitted("sasrec", circle, hidden=16, epochs=1).save(tmp_path)
    with pytest.raises(UserError, match="no readable recommender"):
        create("recommender", "sasrec", {"hidden": 32}).load(tmp_path, circle.catalogue)
    (tmp_path / "model.safetensors").write_bytes(b"half of it")
    with pytest.raises(UserError, match="no readable recommender"):
        create("recommender", "sasrec", {"hidden": 16}).load(tmp_path, circle.catalogue)


def test_heads_that_do_not_divide_the_width_and_users_of_one_item_are_refused(tmp_path):
    with pytest.raises(UserError, match="heads = 3 does not divide hidden = 16"):
        model_of("sasrec", heads=3)
    lonely = write_dataset(tmp_path / "data", ["a", "b"], [("u", 0, 1), ("v", 1, 2)], [("u", [0], [1], [1.0], 3.0)])
    with pytest.raises(UserError, match="two training interactions"):
        fitted("sasrec", lonely)


def test_nothing_heavy_is_imported_before_a_fit():
    program = (
        "import sys; from recalign.plugins.registry import create; "
        "[create('recommender', name) for name in ('sasrec', 'bert4rec', 'item-knn')]; "
        "print([name for name in ('torch', 'scipy', 'transformers') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
