import numpy as np
import pytest
import torch
from scipy import stats
from transformers import RepetitionPenaltyLogitsProcessor

from recalign.decoding.scoring import draw, masked_log_softmax, penalise
from recalign.errors import UserError
from tests.decoding.doubles import make_engine, random_paths, row, tiny_model
from tests.decoding.oracle import all_responses, next_tokens, token_logps

ATOMIC = [np.array(path) for path in ([3], [4, 3], [4, 4, 3], [5], [6], [7, 3], [7, 4])]


def rows(count, items, seed=0):
    generator = np.random.default_rng(seed)
    return [row(i, generator.integers(0, items, size=1 + i % 3).tolist()) for i in range(count)]


@pytest.mark.parametrize("kind", ["llama", "qwen2", "gpt2"])
@pytest.mark.parametrize("separator", [(2,), (2, 4), ()])
def test_samples_are_lists_of_different_items_outside_the_history(kind, separator):
    paths = random_paths(30) if separator else ATOMIC
    engine = make_engine(paths, kind=kind, separator=separator, exclude_history=True)
    assert engine.obstacle == ""
    batch = rows(5, len(paths))
    found = engine.sample(batch, group_size=4, list_length=4, temperature=0.9, repetition_penalty=1.1)
    for n, (tokens, length, items) in enumerate(zip(found.tokens, found.lengths, found.items.tolist(), strict=True)):
        assert tokens[:length].tolist() == engine.policy.titles.response(items).tolist()
        assert len({*items}) == 4 and not {*items} & {*batch[n // 4].history.tolist()}
        assert found.mask[n].tolist() == [True] * int(length) + [False] * (len(tokens) - int(length))
        assert (found.logps[n, length:] == 0).all()


@pytest.mark.parametrize("separator", [(2,), ()])
def test_log_probabilities_are_those_of_full_passes_renormalised_over_the_valid_tokens(separator):
    engine = make_engine(ATOMIC, separator=separator)
    batch = rows(3, len(ATOMIC))
    responses = all_responses(engine.policy.titles, 3)
    found = engine.sample(batch, group_size=3, list_length=3, temperature=0.7)
    for n, length in enumerate(found.lengths.tolist()):
        prompt, response = engine.policy.prompter.encode(batch[n // 3]), tuple(found.tokens[n, :length].tolist())
        wanted = token_logps(engine.policy.model, prompt, response, responses, temperature=0.7)
        np.testing.assert_allclose(found.logps[n, :length].numpy(), wanted, atol=2e-5)
        forced = [len(next_tokens(responses, response[:step])) == 1 for step in range(length)]
        assert (found.logps[n, :length][torch.tensor(forced)] == 0).all()


def test_samples_follow_the_constrained_distribution():
    engine = make_engine(ATOMIC, separator=(2,), exclude_history=True)
    batch = [row(0, [3])]
    responses = all_responses(engine.policy.titles, 2, [3])
    prompt = engine.policy.prompter.encode(batch[0])
    logps = {r: token_logps(engine.policy.model, prompt, r, responses, 0.8).sum() for r in responses}
    expected = np.exp(list(logps.values()))
    assert expected.sum() == pytest.approx(1.0)
    found = engine.sample(batch, group_size=4000, list_length=2, temperature=0.8, seed=1)
    index = {items: place for place, items in enumerate(responses.values())}
    counts = np.bincount([index[tuple(items)] for items in found.items.tolist()], minlength=len(index))
    usual = expected * 4000 >= 5  # a chi-square test needs enough of each
    seen, wanted = np.append(counts[usual], counts[~usual].sum()), np.append(expected[usual], expected[~usual].sum())
    assert stats.chisquare(seen, wanted * 4000).pvalue > 0.001


def test_results_do_not_depend_on_the_batch():
    paths = random_paths(30)
    batch = rows(6, 30)
    whole = make_engine(paths).sample(batch, group_size=3, list_length=3, seed=5, epoch=2)
    split = make_engine(paths, token_budget=1).sample(batch, group_size=3, list_length=3, seed=5, epoch=2)
    assert whole.items.tolist() == split.items.tolist()
    alone = make_engine(paths).sample(batch[4:5], group_size=3, list_length=3, seed=5, epoch=2)
    assert alone.items.tolist() == whole.items[12:15].tolist()
    torch.testing.assert_close(alone.logps, whole.logps[12:15, : alone.logps.shape[1]], atol=1e-5, rtol=0)
    other = make_engine(paths).sample(batch, group_size=3, list_length=3, seed=5, epoch=3)
    assert other.items.tolist() != whole.items.tolist()


def test_greedy_takes_the_most_probable_valid_token():
    engine = make_engine(ATOMIC)
    batch = rows(3, len(ATOMIC))
    responses = all_responses(engine.policy.titles, 2)
    found = engine.greedy(batch, list_length=2)
    for n, length in enumerate(found.lengths.tolist()):
        response, prompt = tuple(found.tokens[n, :length].tolist()), engine.policy.prompter.encode(batch[n])
        for step in range(length):
            options = next_tokens(responses, response[:step])
            best = max(options, key=lambda t: token_logps(engine.policy.model, prompt, (*response[:step], t), None)[-1])
            assert response[step] == best


def test_candidates_restrict_the_list():
    engine = make_engine(random_paths(30))
    found = engine.sample([row(0, [1], candidates=[4, 9, 17])], group_size=8, list_length=3)
    assert {frozenset(items) for items in found.items.tolist()} == {frozenset({4, 9, 17})}


def test_a_model_that_shares_no_prompts_gives_the_same_lists():
    batch = rows(4, 30)
    engine, plain = make_engine(random_paths(30)), make_engine(random_paths(30))
    plain.obstacle = "a test"
    for left, right in zip(
        *(vars(e.sample(batch, group_size=3, list_length=3)).values() for e in (engine, plain)), strict=True
    ):
        torch.testing.assert_close(left, right, atol=1e-5, rtol=0)


def test_free_text_is_parsed_and_bounded():
    engine = make_engine(random_paths(30))
    found = engine.sample(rows(4, 30), group_size=8, list_length=3, constrained=False)
    titles = engine.policy.titles
    for tokens, length, items in zip(found.tokens, found.lengths.tolist(), found.items.tolist(), strict=True):
        parsed = titles.parse(tokens[:length].tolist())[:3]
        assert items == parsed + [-1] * (3 - len(parsed))
        assert length <= titles.longest_response(3)
    assert (found.items == -1).any()


def test_lists_longer_than_what_is_left_are_refused():
    engine = make_engine(ATOMIC, exclude_history=True)
    with pytest.raises(UserError, match="Only 5 of 7 items are left"):
        engine.sample([row(0, [0, 1])], group_size=2, list_length=6)


def test_costs_count_each_prompt_once():
    engine = make_engine(random_paths(30))
    batch = rows(5, 30)
    found = engine.sample(batch, group_size=4, list_length=2)
    assert engine.cost.prompts == 5
    assert engine.cost.prompt_tokens == sum(len(engine.policy.prompter.encode(r)) for r in batch)
    assert engine.cost.completion_tokens == int(found.lengths.sum())
    assert engine.cost.seconds > 0


def test_the_penalty_is_that_of_transformers():
    logits = torch.randn(3, 10, generator=torch.Generator().manual_seed(0))
    ids = torch.tensor([[1, 2, 2], [0, 5, 9], [3, 3, 3]])
    seen = torch.zeros(3, 10, dtype=torch.bool).scatter_(1, ids, True)
    torch.testing.assert_close(penalise(logits, seen, 1.3), RepetitionPenaltyLogitsProcessor(1.3)(ids, logits.clone()))


def test_drawing_never_leaves_the_valid_columns():
    logps = masked_log_softmax(torch.zeros(4, 5), torch.tensor([[0, 1, 0, 1, 0]] * 4).bool())
    assert draw(logps, torch.tensor([0.0, 0.49, 0.51, 1 - 2**-53]).double()).tolist() == [1, 1, 3, 3]


def test_an_adapter_on_the_model_is_heard():
    from peft import LoraConfig, get_peft_model

    batch = rows(3, 30)
    model = get_peft_model(tiny_model("llama"), LoraConfig(r=4, init_lora_weights=False, target_modules="all-linear"))
    model.eval()
    engine = make_engine(random_paths(30), model=model)
    assert engine.obstacle == ""
    adapted = engine.sample(batch, group_size=3, list_length=3)
    with model.disable_adapter():
        assert engine.sample(batch, group_size=3, list_length=3).items.tolist() != adapted.items.tolist()
    merged = make_engine(random_paths(30), model=model.merge_and_unload())
    assert merged.sample(batch, group_size=3, list_length=3).items.tolist() == adapted.items.tolist()


def test_half_precision_samples_lists_too():
    engine = make_engine(random_paths(30), model=tiny_model("llama").bfloat16())
    assert engine.obstacle == ""
    found = engine.sample(rows(3, 30), group_size=3, list_length=3)
    assert all(len({*items}) == 3 for items in found.items.tolist())
    assert torch.isfinite(found.logps).all()
