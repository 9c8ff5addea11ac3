"""One update as the trainer runs it, without an optimiser."""

from recalign.training.accumulation import Accumulation


def update(step, *batches):
    """Accumulate some batches; the loss over all of them, with the figures of the last one. Gradients are in place."""
    accumulation = Accumulation(step.policy.model)
    step.begin(batches)
    figures = [step.accumulate(step.policy.model, batch, accumulation) for batch in batches][-1]
    return accumulation.finish(), figures


def gradients(model):
    """Copies of a model's gradients by parameter; they are cleared."""
    found = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad(set_to_none=True)
    return found
