"""Finite differences in the check of objectives: gradients that are not those of the loss are found."""

import pytest
import torch

from recalign.api import NoParams, TokenObjective
from recalign.plugins.check.plugin import problems


class Scale(torch.autograd.Function):
    """The identity, whose backward pass is wrong by a factor."""

    @staticmethod
    def forward(context, values, factor):
        """Return the values."""
        context.factor = factor
        return values.clone()

    @staticmethod
    def backward(context, gradient):
        """Scale the gradient."""
        return gradient * context.factor, None


class Scaled(TokenObjective):
    """Cross-entropy with a gradient that is wrong by a factor."""

    Params = NoParams
    factor = 1.0

    def loss(self, answers):
        """Return the mean cross-entropy."""
        logits = Scale.apply(answers.logits, self.factor)
        return torch.nn.functional.cross_entropy(logits, answers.labels), {}


@pytest.mark.parametrize("factor", [1.0, 2.0, -1.0, 0.9])
def test_a_backward_pass_that_is_wrong_by_a_factor_is_found(factor):
    objective = Scaled()
    objective.factor = factor
    found = problems(objective)
    assert found == [] if factor == 1.0 else "the gradient is not that of the loss" in found[0]


class Detached(TokenObjective):
    """Cross-entropy with weights that are held constant."""

    Params = NoParams

    def loss(self, answers):
        """Return the mean."""
        losses = torch.nn.functional.cross_entropy(answers.logits, answers.labels, reduction="none")
        return (losses.detach() * losses).mean(), {}


def test_constant_parts_are_a_fault_unless_the_objective_says_so():
    assert "holds_constant = True" in problems(Detached())[0]

    class Declared(Detached):
        """The same, on purpose."""

        holds_constant = True

    assert problems(Declared()) == []
