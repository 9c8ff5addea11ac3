"""Hidden states, against transformers' own."""

import numpy as np
import pytest
import torch

from tests.decoding.doubles import END, make_engine, row, tiny_model

PATHS = [np.array([3, 4 + item]) for item in range(12)]
HISTORIES = ([0], [1, 2, 3], [4, 5])
RESPONSES = (np.array([3, END]), np.array([5]), np.array([7, 9, END]))


def expected(model, tokens, place=-1):
    """The forward pass of one sequence alone, by transformers' `output_hidden_states`."""
    output = model(torch.as_tensor(np.asarray(tokens, dtype=np.int64))[None], output_hidden_states=True)
    return output.hidden_states[-1][0, place]


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


MANY = [np.array([3, 4, END]), np.array([3, 5, 6, END]), np.array([8]), np.array([3, 4, 9]), np.array([7, 7])]
OWNERS = [2, 0, 1, 2, 0]  # not in order, and prompts with several responses
PLACES = [np.array([0, 2]), np.array([3, 1]), np.array([0]), np.array([], dtype=np.int64), np.array([-1, 1])]


@pytest.mark.parametrize("kind", ["llama", "qwen2", "gpt2"])
@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("budget", [32768, 14])
def test_states_and_gradients_at_tokens_are_those_of_each_sequence_alone(kind, shared, budget):
    model = tiny_model(kind)
    engine = make_engine(PATHS, model=model, token_budget=budget)
    engine.takes_tree_mask = shared
    rows = [row(place, history) for place, history in enumerate(HISTORIES)]
    prompts = [engine.policy.prompter.encode(each) for each in rows]
    wanted = torch.stack(
        [
            expected(model, np.concatenate([prompts[owner], response]), len(prompts[owner]) + int(place))
            for response, owner, places in zip(MANY, OWNERS, PLACES, strict=True)
            for place in places
        ]
    )
    weights = torch.randn(wanted.shape, generator=torch.Generator().manual_seed(0))
    (wanted * weights).sum().backward()
    gradients = [parameter.grad.clone() for parameter in model.get_decoder().parameters()]
    model.zero_grad()
    with torch.no_grad():
        found = engine.hidden(rows, MANY, owners=OWNERS, positions=PLACES)
    torch.testing.assert_close(found, wanted.detach(), atol=1e-5, rtol=1e-5)
    found = engine.hidden(rows, MANY, owners=OWNERS, positions=PLACES, gradients=True)
    torch.testing.assert_close(found.detach(), wanted.detach(), atol=1e-5, rtol=1e-5)
    (found * weights).sum().backward()
    for parameter, gradient in zip(model.get_decoder().parameters(), gradients, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, atol=1e-4, rtol=1e-4)


def test_a_prompt_is_encoded_once_however_many_responses_follow():
    engine, read = make_engine(PATHS), []
    rows = [row(0, [0, 1, 2, 3, 4, 5])]
    engine.hidden(rows, MANY, owners=[0] * 5)  # the model's kind is known now
    embeddings = engine.policy.model.get_input_embeddings()
    handle = embeddings.register_forward_hook(lambda module, inputs, output: read.append(inputs[0].numel()))
    engine.hidden(rows, MANY, owners=[0] * 5)
    handle.remove()
    prompt = len(engine.policy.prompter.encode(rows[0]))
    assert sum(read) <= prompt + sum(map(len, MANY))


def test_no_rows_have_no_states():
    engine = make_engine(PATHS)
    width = engine.policy.model.config.hidden_size
    assert engine.hidden([]).shape == (0, width)
    assert engine.hidden([row(0, [1])], [], owners=[]).shape == (0, width)
