"""Both decoders on four titles that can be re-ranked by hand, and on the embedded dataset."""

from types import SimpleNamespace

import numpy as np
import pytest
from recalign_mmr import Mmr, MmrParams
from recalign_rerank import RerankParams, choose, relevance
from recalign_xquad import Xquad, XquadParams

from recalign.api import Catalogue, Row, UserError

pytest_plugins = ["recalign.testing.fixtures"]

ENGINE = SimpleNamespace(
    catalogue=Catalogue(
        ["a", "b", "c", "d"], list("ABCD"), [("Drama",), ("Drama",), ("Comedy",), ()], [""] * 4, np.ones(4, dtype=int)
    )
)
ITEMS, SCORES = np.array([0, 1, 2, 3]), np.array([-1.0, -1.2, -2.0, -3.0])  # relevance 1, 0.9, 0.5, 0
ROW = Row(0, "u", np.array([0, 0, 1, 2]), np.array([1]), np.array([1.0]), 0.0)  # 3/4 drama


def ranked(decoder, size=4):
    return choose(decoder.gain(ENGINE, ROW, ITEMS, SCORES), len(ITEMS), size)


def test_mmr_passes_over_what_is_like_the_titles_above():
    order, gains = ranked(Mmr(MmrParams(trade_off=0.5)))
    assert order == [0, 2, 3, 1]  # 0.5; 0.25; 0; 0.45 - 0.5
    assert gains == pytest.approx([0.5, 0.25, 0.0, -0.05])


def test_mmr_by_relevance_alone_changes_nothing():
    assert ranked(Mmr(MmrParams(trade_off=1.0)))[0] == [0, 1, 2, 3]


def test_xquad_covers_genres_in_the_proportion_of_the_history():
    order, gains = ranked(Xquad(XquadParams(trade_off=0.5)))
    # A: 0.5 + 0.375; then no drama is wanted any more: B 0.45, C 0.25 + 0.125
    assert order == [0, 1, 2, 3]
    assert gains == pytest.approx([0.875, 0.45, 0.375, 0.0])
    assert ranked(Xquad(XquadParams(trade_off=0.7)))[0] == [0, 2, 1, 3]  # C 0.15 + 0.175, B 0.27


def test_gains_never_rise_and_short_pools_make_short_lists():
    for decoder in (Mmr(), Xquad()):
        order, gains = ranked(decoder, size=9)
        assert len(order) == 4 and (np.diff(gains) <= 1e-12).all()


def test_equal_scores_are_all_relevant():
    assert relevance(np.array([2.0, 2.0])).tolist() == [1.0, 1.0]
    assert relevance(np.zeros(0)).tolist() == []


@pytest.mark.parametrize("kind", [Mmr, Xquad])
def test_it_keeps_the_contract_of_decoders(recalign_problems, kind):
    assert recalign_problems(kind()) == []


def test_relevance_alone_gives_the_inner_decoders_lists(recalign_engine, recalign_rows):
    from recalign.python import create_plugin

    engine, rows = recalign_engine("next"), recalign_rows("next")
    inner = create_plugin("decoder", "beam").decode(engine, rows, 40 - max(len(row.consumed) for row in rows))
    mine = Mmr(MmrParams(trade_off=1.0)).decode(engine, rows, 5)
    assert (mine.items == inner.items[:, :5]).all()


def test_a_decoder_of_another_task_is_refused(recalign_engine, recalign_rows):
    for name, message in (("list", "does not serve"), ("nothing", "no decoder named")):
        decoder = Mmr(MmrParams(**RerankParams(decoder=name).model_dump()))
        with pytest.raises(UserError, match=message):
            decoder.decode(recalign_engine("next"), recalign_rows("next"), 3)
