"""Training-pass log-probabilities against the plain full forward, in value and gradient."""

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM

from recalign.decoding.constraint import ListConstraint
from recalign.decoding.hidden_states import obstacle_to_tree_mask
from recalign.decoding.microbatches import microbatches
from recalign.text.item_tokens import TitleTokens
from recalign.text.trie import TitleTrie
from recalign.training.logprobs import completions as logps_module
from recalign.training.logprobs.completions import Sampled, completion_logps
from tests.decoding.doubles import valid_mask

VOCABULARY, END, SEPARATOR = 24, 1, 2
PATHS = [[5, 6], [5, 7, 8], [5, 7, 9], [10], [11, 5], [11, 6, 6], [12, 13, 14], [15, 3]]
TITLES = TitleTokens([np.array(path) for path in PATHS], np.array([SEPARATOR]), END)
SIZES = dict(
    vocab_size=VOCABULARY,
    hidden_size=16,
    intermediate_size=32,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    initializer_range=0.3,
)
FAMILIES = {"llama": (LlamaConfig, LlamaForCausalLM), "qwen2": (Qwen2Config, Qwen2ForCausalLM)}


def build(family, *, lora=False, tied=False):
    """A tiny random model in float32."""
    torch.manual_seed(0)
    config, model_class = FAMILIES[family]
    model = model_class(config(**SIZES, tie_word_embeddings=tied)).eval()
    if lora:
        model = get_peft_model(model, LoraConfig(r=2, target_modules=["q_proj", "v_proj", "up_proj"]))
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=0.3)
    return model


def sampled_lists(*, temperature=1.0, repetition_penalty=1.0, group_size=4, list_length=3):
    """Random lists for three prompts of different lengths; the second and third exclude items; duplicates occur."""
    generator = np.random.default_rng(3)
    prompts = [generator.integers(3, VOCABULARY, size=length) for length in (5, 2, 9)]
    excluded = [[], [0, 3], [1, 2]]
    lists, groups = [], []
    for group in range(3):
        free = np.setdiff1d(np.arange(len(PATHS)), excluded[group])
        drawn = [generator.permutation(free)[:list_length] for _ in range(group_size - 1)]
        lists += [*drawn, drawn[0]]
        groups += [group] * group_size
    responses = [TITLES.response(items) for items in lists]
    lengths = np.array([len(response) for response in responses])
    tokens = np.full((len(lists), lengths.max()), END)
    for row, response in enumerate(responses):
        tokens[row, : len(response)] = response
    constraint = ListConstraint(TitleTrie.build(TITLES), TITLES, VOCABULARY, list_length=list_length)
    bars = [np.array(excluded[group], dtype=np.int64) for group in groups]
    decisions = constraint.replay(torch.from_numpy(tokens), torch.from_numpy(lengths), bars)
    sampled = Sampled(prompts, tokens, lengths, np.array(groups), decisions, temperature, repetition_penalty)
    return sampled, constraint, bars


def plain_logps(model, sampled, constraint, bars):
    """The definition: every completion alone, full logits, the constraint stepped token by token."""
    rows = []
    for row, group in enumerate(sampled.groups):
        prompt, length = sampled.prompts[group], int(sampled.lengths[row])
        ids = torch.from_numpy(np.concatenate([prompt, sampled.tokens[row, :length]]))
        logits = model(input_ids=ids[None]).logits[0]
        state = constraint.start([bars[row]])
        values = []
        for step in range(length):
            scores = logits[len(prompt) + step - 1]
            seen = torch.zeros(VOCABULARY, dtype=torch.bool)
            seen[ids[: len(prompt) + step]] = True
            penalty = sampled.repetition_penalty
            scores = torch.where(seen, torch.where(scores > 0, scores / penalty, scores * penalty), scores)
            scores = (scores / sampled.temperature).masked_fill(~valid_mask(constraint, state)[0], -torch.inf)
            token = ids[len(prompt) + step]
            values.append(scores.log_softmax(0)[token])
            state = constraint.advance(state, token[None])
        rows.append(torch.stack(values + [torch.zeros(())] * (sampled.tokens.shape[1] - length)))
    return torch.stack(rows)


def gradients(model, values):
    """Gradients of an arbitrary weighting of the log-probabilities."""
    model.zero_grad()
    weights = torch.linspace(-1, 2, values.numel()).view_as(values)
    (values * weights).sum().backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.requires_grad and p.grad is not None}


@pytest.mark.parametrize("tree_mask", [True, False])
@pytest.mark.parametrize(
    ("family", "options"),
    [("llama", {}), ("llama", {"tied": True}), ("qwen2", {}), ("llama", {"lora": True}), ("qwen2", {"lora": True})],
)
def test_equals_each_completion_alone_in_value_and_gradient(family, options, tree_mask):
    model = build(family, **options)
    sampled, constraint, bars = sampled_lists(temperature=0.8)
    expected = plain_logps(model, sampled, constraint, bars)
    actual = completion_logps(model, sampled, tree_mask=tree_mask)
    torch.testing.assert_close(actual, expected, atol=1e-5, rtol=1e-5)
    wanted, got = gradients(model, expected), gradients(model, actual)
    assert wanted.keys() == got.keys()
    for name, gradient in wanted.items():
        torch.testing.assert_close(got[name], gradient, atol=1e-5, rtol=1e-4, msg=name)


def test_repetition_penalty_covers_prompt_and_completion():
    model = build("llama")
    sampled, constraint, bars = sampled_lists(temperature=0.7, repetition_penalty=1.3)
    expected = plain_logps(model, sampled, constraint, bars)
    torch.testing.assert_close(completion_logps(model, sampled), expected, atol=1e-5, rtol=1e-5)


def test_chunks_are_recomputed_to_the_same_values_and_gradients(monkeypatch):
    model = build("llama")
    sampled, _, _ = sampled_lists()
    whole = completion_logps(model, sampled)
    wanted = gradients(model, whole)
    monkeypatch.setattr(logps_module, "CHUNK", 30)
    held, real = [], logps_module.logits_of

    def counted(*arguments):
        logits = real(*arguments)
        held.append(logits.shape)
        return logits

    monkeypatch.setattr(logps_module, "logits_of", counted)
    chunked = completion_logps(model, sampled)
    assert len(held) > 3 and max(sites * columns for sites, columns in held) <= 30
    torch.testing.assert_close(chunked, whole)
    for name, gradient in gradients(model, chunked).items():
        torch.testing.assert_close(gradient, wanted[name], atol=1e-5, rtol=1e-4)


def test_forced_tokens_and_padding_are_zero():
    sampled, _, _ = sampled_lists()
    values = completion_logps(build("llama"), sampled)
    open_ = torch.zeros_like(values, dtype=torch.bool)
    open_[sampled.decisions.rows, sampled.decisions.positions] = True
    assert (values[~open_] == 0).all()
    assert (values[open_] < 0).all()


def test_microbatches_together_equal_the_whole():
    model = build("llama")
    sampled, _, _ = sampled_lists()
    whole = completion_logps(model, sampled)
    parts = microbatches(sampled.prompts, sampled.lengths, sampled.groups, budget=40)
    assert len(parts) > 2
    assert np.array_equal(np.sort(np.concatenate([part.rows for part in parts])), np.arange(len(sampled)))
    for rows, _ in parts:
        torch.testing.assert_close(completion_logps(model, sampled.take(rows)), whole[rows])


def test_microbatches_hold_the_budget_where_they_can():
    prompts = [np.zeros(length, dtype=np.int64) for length in (50, 10, 30)]
    lengths, groups = np.full(12, 8), np.repeat(np.arange(3), 4)
    for rows, tokens in microbatches(prompts, lengths, groups, budget=90):
        widths = [len(prompts[g]) + lengths[rows[groups[rows] == g]].sum() for g in np.unique(groups[rows])]
        assert max(widths) * len(widths) == tokens <= 90
    assert len(microbatches(prompts, lengths, groups, budget=1)) == 12


def test_a_response_without_any_choice_has_log_probability_zero():
    titles = TitleTokens([np.array([5, 6])], np.array([SEPARATOR]), END)
    constraint = ListConstraint(TitleTrie.build(titles), titles, VOCABULARY, list_length=1)
    tokens, lengths = np.array([[5, 6, END]]), np.array([3])
    decisions = constraint.replay(torch.from_numpy(tokens), torch.from_numpy(lengths), [np.zeros(0, dtype=np.int64)])
    sampled = Sampled([np.array([3])], tokens, lengths, np.array([0]), decisions)
    assert completion_logps(build("llama"), sampled).tolist() == [[0.0, 0.0, 0.0]]


def test_models_are_probed_for_the_tree_mask():
    assert obstacle_to_tree_mask(build("llama")) == ""
    assert obstacle_to_tree_mask(build("qwen2", lora=True)) == ""
