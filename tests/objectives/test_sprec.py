"""SPRec: the worked example of docs/methods/sprec.md, its defaults, its loss with one and with several negatives."""

import math

import pytest

from recalign.api import Rounds, UserError
from recalign.objectives.dpo import Dpo
from recalign.objectives.s_dpo import Sdpo, SdpoParams
from recalign.objectives.sprec import Sprec, SprecParams
from recalign.params import build_params
from tests.objectives.test_preferences import batch, loss_of


def test_worked_example_of_the_docs():
    ratios = [[1.0, -1.0], [5.0, 0.0], [0.0, 0.0], [-1.0, 1.0]]
    present = [[True, True], [True, False], [True, True], [True, True]]
    rows = [math.log1p(math.exp(-0.2)), math.log(2), math.log1p(math.exp(0.2))]
    assert rows == pytest.approx([0.598, 0.693, 0.798], abs=5e-4)
    value, figures = Sprec().loss(batch(ratios, present))
    assert value.item() == pytest.approx(sum(rows) / 3)
    assert value.item() == pytest.approx(0.696, abs=5e-4)
    assert figures["accuracy"] == pytest.approx(1 / 3)


def test_its_loss_is_that_of_dpo_and_with_several_negatives_of_s_dpo():
    assert loss_of(Sprec(), [[0.3, -0.8]]) == pytest.approx(loss_of(Dpo(Dpo.Params(beta=0.1)), [[0.3, -0.8]]))
    several = [[0.3, -0.8, 0.5]]
    assert loss_of(Sprec(), several) == pytest.approx(loss_of(Sdpo(SdpoParams(beta=0.1)), several))


def test_five_rounds_of_2048_rows_against_greedy_titles():
    assert Sprec().needs.rounds == Rounds(5, 2048)
    assert (Sprec().params.source, Sprec().params.negatives, Sprec().params.beta) == ("greedy", 1, 0.1)


@pytest.mark.parametrize(("name", "value"), [("rounds", 0), ("round_rows", 0), ("source", "uniform"), ("beta", 0)])
def test_parameters_out_of_bounds_are_refused(name, value):
    with pytest.raises(UserError, match=name):
        build_params(SprecParams, {name: value}, "objective 'sprec'")
