import numpy as np
import pytest
import torch

from recalign.decoding import hypotheses as prefixes
from recalign.decoding.prompt_cache import SharedPromptCache
from recalign.errors import UserError
from tests.decoding.doubles import END, VOCABULARY, make_engine, random_paths, row, tiny_model
from tests.decoding.oracle import all_responses, token_logps


def trained(kind, paths):
    """A model that has seen some titles a few times: sharp where a random one is flat."""
    model = tiny_model(kind).train()
    generator = np.random.default_rng(3)
    rows = torch.full((48, 8), END)
    for line in rows:
        title = paths[int(len(paths) * generator.random() ** 3)]
        line[0], line[1], line[2 : 2 + len(title)] = 0, 3 + int(generator.integers(30)), torch.from_numpy(title)
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(25):
        optimiser.zero_grad()
        model(rows, labels=rows).loss.backward()
        optimiser.step()
    return model.eval()


@torch.no_grad()
def generate(engine, prompt, excluded, width, scoring, length_penalty):
    """transformers' beam search under a dictionary trie: items and scores, the fills of idle beams left out."""
    titles = engine.policy.titles
    allowed: dict[tuple, set] = {}
    for item, path in enumerate(titles.paths):
        if item not in excluded:
            tokens = (*path.tolist(), END)
            for cut in range(len(tokens)):
                allowed.setdefault(tokens[:cut], set()).add(tokens[cut])
    out = engine.policy.model.generate(
        torch.from_numpy(prompt)[None],
        attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
        num_beams=width,
        num_return_sequences=width,
        max_new_tokens=20,
        do_sample=False,
        prefix_allowed_tokens_fn=lambda _, ids: sorted(allowed.get(tuple(ids[len(prompt) :].tolist()), {END})),
        renormalize_logits=scoring == "renormalised",
        length_penalty=length_penalty,
        early_stopping=False,
        return_dict_in_generate=True,
        output_scores=True,
        eos_token_id=END,
        pad_token_id=END,
    )
    names = {tuple(path.tolist()): item for item, path in enumerate(titles.paths)}
    found = []
    for tokens, score in zip(out.sequences[:, len(prompt) :].tolist(), out.sequences_scores.tolist(), strict=True):
        if score > -1e8:
            found.append((names[tuple(tokens[: tokens.index(END)])], score))
    return found


@pytest.mark.parametrize("weights", ["random", "trained"])
@pytest.mark.parametrize("kind", ["llama", "qwen2"])
@pytest.mark.parametrize("scoring", ["renormalised", "full"])
@pytest.mark.parametrize("length_penalty", [0.0, 0.5, 1.0, 2.0, -1.0])
def test_items_order_and_scores_are_those_of_generate(weights, kind, scoring, length_penalty):
    paths = random_paths(120, seed=4, longest=6, width=20)
    model = trained(kind, paths) if weights == "trained" else tiny_model(kind)
    engine = make_engine(paths, model=model, exclude_history=True)
    rows = [row(i, np.random.default_rng(i).integers(0, 120, size=1 + i).tolist()) for i in range(4)]
    items, scores = engine.beam(rows, width=6, size=6, scoring=scoring, length_penalty=length_penalty)
    for one, found, values in zip(rows, items.tolist(), scores.tolist(), strict=True):
        prompt = engine.policy.prompter.encode(one)
        wanted = generate(engine, prompt, set(one.history.tolist()), 6, scoring, length_penalty)
        assert len(wanted) == 6
        assert found == [item for item, _ in wanted]
        np.testing.assert_allclose(values, [score for _, score in wanted], rtol=1e-6, atol=1e-5)


@pytest.mark.parametrize("width", [2, 7])
@pytest.mark.parametrize("scoring", ["renormalised", "full"])
def test_chains_of_unlike_length_longer_than_a_pass_takes_are_those_of_generate(scoring, width):
    paths = random_paths(100, seed=5, longest=15, width=9)
    engine = make_engine(paths, exclude_history=True)
    rows = [row(i, np.random.default_rng(i).integers(0, 100, size=1 + i).tolist()) for i in range(5)]
    items, scores = engine.beam(rows, width=width, size=width, scoring=scoring)
    for one, found, values in zip(rows, items.tolist(), scores.tolist(), strict=True):
        prompt = engine.policy.prompter.encode(one)
        wanted = generate(engine, prompt, set(one.history.tolist()), width, scoring, 0.0)
        assert found == [item for item, _ in wanted]
        np.testing.assert_allclose(values, [score for _, score in wanted], atol=2e-5)


@pytest.mark.parametrize("scoring", ["renormalised", "full"])
def test_pruned_and_finished_beams_leave_no_trace(scoring):
    """Keys and values of slots that are used again belong to whoever uses them now."""
    paths = random_paths(150, seed=6, longest=12, width=4)
    rows = [row(i, np.random.default_rng(i).integers(0, 150, size=2 + i).tolist()) for i in range(6)]
    engine = make_engine(paths)
    items, scores = engine.beam(rows, width=5, size=5, scoring=scoring)
    for one, found, values in zip(rows, items.tolist(), scores.tolist(), strict=True):
        scored = dict(every_score(engine, one, [], scoring))
        np.testing.assert_allclose(values, [scored[item] for item in found], atol=2e-5)


@pytest.mark.parametrize("search", ["beam", "exact"])
def test_few_logits_over_the_vocabulary_are_held_at_once(search, monkeypatch):
    paths = random_paths(60, seed=6, longest=9, width=6)
    rows = [row(i, np.random.default_rng(i).integers(0, 60, size=2 + i).tolist()) for i in range(4)]
    held, extend = [], SharedPromptCache.extend

    def watched(*arguments, **options):
        logits, slots = extend(*arguments, **options)
        held.append(len(logits))
        return logits, slots

    monkeypatch.setattr(SharedPromptCache, "extend", watched)
    found = []
    for tokens in (1000, 12):
        held.clear()
        monkeypatch.setattr(prefixes, "LOGITS", tokens * VOCABULARY + 5)
        engine = make_engine(paths, task="next")
        options = {"width": 6} if search == "beam" else {}
        items, scores = getattr(engine, search)(rows, size=6, scoring="full", **options)[:2]
        found.append((items.tolist(), scores))
        assert max(held) > 30 if tokens > 12 else max(held) < 12 + 9
    assert found[0][0] == found[1][0]
    torch.testing.assert_close(found[0][1], found[1][1], atol=1e-5, rtol=0)


def every_score(engine, one, excluded, scoring):
    prompt, titles = engine.policy.prompter.encode(one), engine.policy.titles
    responses = all_responses(titles, 1, excluded)
    options = responses if scoring == "renormalised" else None
    scored = {items[0]: token_logps(engine.policy.model, prompt, r, options).sum() for r, items in responses.items()}
    return sorted(scored.items(), key=lambda pair: -pair[1])


@pytest.mark.parametrize("scoring", ["renormalised", "full"])
@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_a_beam_as_wide_as_the_catalogue_finds_the_true_order(scoring, kind):
    engine = make_engine(random_paths(25), kind=kind, exclude_history=True)
    rows = [row(0, [3]), row(1, [5, 7])]
    items, scores = engine.beam(rows, width=25, size=20, scoring=scoring)
    for one, found, values in zip(rows, items.tolist(), scores.tolist(), strict=True):
        wanted = every_score(engine, one, one.history.tolist(), scoring)[:20]
        assert found == [item for item, _ in wanted]
        np.testing.assert_allclose(values, [score for _, score in wanted], atol=1e-5)


def test_a_catalogue_smaller_than_the_beam_gives_each_item_once():
    engine = make_engine(random_paths(4))
    items, scores = engine.beam([row(0, [1])], width=10, size=6)
    assert sorted(items[0, :4].tolist()) == [0, 1, 2, 3]
    assert items[0, 4:].tolist() == [-1, -1] and torch.isinf(scores[0, 4:]).all()


def test_a_beam_of_one_is_greedy():
    engine = make_engine(random_paths(30), exclude_history=True)
    rows = [row(i, [i, 3 * i]) for i in range(5)]
    items, scores = engine.beam(rows, width=1, size=1)
    greedy = engine.greedy(rows, list_length=1)
    assert items.tolist() == greedy.items.tolist()
    torch.testing.assert_close(scores[:, 0].float(), greedy.logps.sum(dim=1), atol=1e-5, rtol=0)


def test_results_do_not_depend_on_the_batch():
    paths = random_paths(60)
    rows = [row(i, np.random.default_rng(i).integers(0, 60, size=1 + i % 4).tolist()) for i in range(9)]
    together, alone = (make_engine(paths, token_budget=budget).beam(rows, width=5, size=5) for budget in (32768, 1))
    assert together[0].tolist() == alone[0].tolist()
    torch.testing.assert_close(together[1], alone[1], atol=1e-5, rtol=0)


def test_more_items_than_beams_is_refused():
    with pytest.raises(UserError, match="width 3 cannot return 4"):
        make_engine(random_paths(10)).beam([row(0, [1])], width=3, size=4)
