"""Hidden states, against transformers' own."""

import numpy as np
import pytest
import torch

from tests.decoding.doubles import END, make_engine, row, tiny_model

PATHS = [np.array([3, 4 + item]) for item in range(12)]
HISTORIES = ([0], [1, 2, 3], [4, 5])
RESPONSES = (np.array([3, END]), np.array([5]), np.array([7, 9, END]))


def expected(model, tokens):
    """The plain pass of one sequence, by transformers' `output_hidden_states`."""
    with torch.no_grad():
        output = model(torch.as_tensor(np.asarray(tokens, dtype=np.int64))[None], output_hidden_states=True)
    return output.hidden_states[-1][0, -1]


@pytest.mark.parametrize("kind", ["llama", "qwen2", "gpt2"])
@pytest.mark.parametrize("answered", [False, True])
@pytest.mark.parametrize("budget", [32768, 8])
def test_states_are_those_of_each_sequence_alone(kind, answered, budget):
    model = tiny_model(kind)
    engine = make_engine(PATHS, model=model, token_budget=budget)
    rows = [row(place, history) for place, history in enumerate(HISTORIES)]
    found = engine.hidden(rows, RESPONSES if answered else None)
    for each, response, state in zip(rows, RESPONSES, found, strict=True):
        prompt = engine.policy.prompter.encode(each)
        tokens = np.concatenate([prompt, response]) if answered else prompt
        torch.testing.assert_close(state, expected(model, tokens), atol=1e-5, rtol=1e-5)


def test_gradients_reach_the_model_only_where_they_are_asked_for():
    engine = make_engine(PATHS)
    rows = [row(0, [0, 1]), row(1, [2])]
    assert not engine.hidden(rows).requires_grad
    states = engine.hidden(rows, gradients=True)
    torch.testing.assert_close(states.detach(), engine.hidden(rows), atol=1e-5, rtol=1e-5)
    states.sum().backward()
    assert engine.policy.model.get_input_embeddings().weight.grad.abs().sum() > 0
