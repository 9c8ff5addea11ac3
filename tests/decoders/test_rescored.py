"""D3 and IGD against plain Python over a dictionary of prefixes; their limits; what they refuse."""

import math
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from recalign.decoders import d3
from recalign.decoders.d3 import Assisted
from recalign.decoders.igd import Decisive
from recalign.decoding.batches import decode_rows
from recalign.errors import UserError
from recalign.plugins import registry
from tests.decoding.doubles import make_engine, random_paths, row
from tests.decoding.oracle import all_responses, next_tokens, token_logps


def rows(count=4, items=25):
    return [row(i, np.random.default_rng(i).integers(0, items, size=1 + i % 3).tolist()) for i in range(count)]


def scores_of(some):
    """An assistant: made-up scores [B, I], told apart by row."""
    return np.stack([np.random.default_rng((9, one.index)).normal(size=25) * 3 for one in some])


class MadeUp:
    """An assistant with the scores of a function."""

    def __init__(self, scores=scores_of):
        self.scores = scores


def engine_of(paths=None, popularity=None, **options):
    paths = random_paths(25) if paths is None else paths
    engine = make_engine(paths, task="next", **{"exclude_history": True, **options})
    if popularity is not None:
        engine.catalogue = replace(engine.catalogue, popularity=np.array(popularity, dtype=np.int64))
    return engine


def plain_scores(engine, one, scoring, rescored, forced=1.0):
    """Sum of each free item's token scores; `rescored(prefix, below, logps)` changes those of choices, not forced ones.

    `below` maps each valid token to the items it may lead to, `logps` to its log-probability.
    """
    responses = all_responses(engine.policy.titles, 1, engine.excluded(one).tolist())
    prompt = engine.policy.prompter.encode(one)
    model = engine.policy.model
    known = {r: token_logps(model, prompt, r, responses if scoring == "renormalised" else None) for r in responses}
    totals = {}
    for response, (item,) in responses.items():
        total = 0.0
        for step, token in enumerate(response):
            prefix = response[:step]
            valid = next_tokens(responses, prefix)
            starts = {t: [r for r in responses if r[: step + 1] == (*prefix, t)] for t in valid}
            logps = {t: known[starts[t][0]][step] for t in valid}
            if len(valid) > 1:
                below = {t: [responses[r][0] for r in starts[t]] for t in valid}
                logps = rescored(prefix, below, logps)
            else:
                logps = {t: forced * logps[t] for t in logps}
            total += logps[token]
        totals[item] = total
    return totals


def assisted(engine, one, alpha, temperature=1.0):
    """p_assist by its definition: softmax mass over the items that may be recommended, token by token."""
    scores = scores_of([one])[0] / temperature
    mass = {item: math.exp(scores[item]) for item in range(25) if item not in set(engine.excluded(one).tolist())}

    def rescored(_, below, logps):
        shares = {token: sum(mass[item] for item in items) for token, items in below.items()}
        return {t: alpha * logps[t] + (1 - alpha) * math.log(shares[t] / sum(shares.values())) for t in below}

    return rescored


def decisive(engine, alpha):
    """Entropies by their definition, over all items below a prefix, whether they may be recommended or not."""
    share = engine.catalogue.popularity / engine.catalogue.popularity.sum()
    names = [(*path.tolist(), engine.policy.titles.end) for path in engine.policy.titles.paths]

    def entropy(prefix):
        below = [share[i] for i, name in enumerate(names) if name[: len(prefix)] == prefix]
        return -sum(p * math.log(p) for p in below if p > 0)

    def rescored(prefix, below, logps):
        gains = {token: entropy(prefix) - entropy((*prefix, token)) for token in below}
        low, high = min(gains.values()), max(gains.values())
        scale = {t: (gains[t] - low) / (high - low) if high - low > 1e-12 else 0.0 for t in below}
        return {t: logps[t] * (1 - alpha * scale[t]) for t in below}

    return rescored


def same(wanted, found, scores, size):
    """Whether a ranked list is that of a dictionary of scores."""
    best = sorted(wanted.items(), key=lambda pair: -pair[1])[:size]
    assert found[: len(best)] == [item for item, _ in best]
    np.testing.assert_allclose(scores[: len(best)], [score for _, score in best], atol=1e-5)


def searches(engine, some, rescorer, scoring="renormalised"):
    """All titles of each row by a beam as wide as the catalogue, and by exact search."""
    yield engine.beam(some, width=25, size=25, scoring=scoring, rescorer=rescorer)
    yield engine.exact(some, size=25, scoring=scoring, rescorer=rescorer)[:2]


@pytest.mark.parametrize("scoring", ["renormalised", "full"])
@pytest.mark.parametrize(("alpha", "temperature"), [(0.0, 1.0), (0.4, 1.0), (0.7, 2.5)])
def test_d3_is_its_formula_over_a_dictionary_of_prefixes(scoring, alpha, temperature):
    engine, some = engine_of(), rows()
    for items, scores in searches(engine, some, Assisted(engine, MadeUp(), alpha, temperature), scoring):
        for one, found, values in zip(some, items.tolist(), scores.tolist(), strict=True):
            wanted = plain_scores(engine, one, scoring, assisted(engine, one, alpha, temperature), forced=alpha)
            same(wanted, found, values, 25)


@pytest.mark.parametrize("scoring", ["renormalised", "full"])
@pytest.mark.parametrize("alpha", [0.2, 1.0])
def test_igd_is_its_formula_over_a_dictionary_of_prefixes(scoring, alpha):
    popularity = np.random.default_rng(2).integers(0, 6, size=25)
    engine, some = engine_of(popularity=popularity), rows()
    for items, scores in searches(engine, some, Decisive(engine, alpha), scoring):
        for one, found, values in zip(some, items.tolist(), scores.tolist(), strict=True):
            wanted = plain_scores(engine, one, scoring, decisive(engine, alpha))
            np.testing.assert_allclose(
                values[: len(wanted)], sorted(wanted.values(), reverse=True), atol=1e-5
            )  # alpha 1 makes the most decisive token free, so that items tie
            np.testing.assert_allclose(values[: len(wanted)], [wanted[i] for i in found[: len(wanted)]], atol=1e-5)


def test_candidates_have_all_of_the_assistants_mass():
    engine = engine_of()
    one = row(0, [3], candidates=[1, 2, 8, 20])
    for items, scores in searches(engine, [one], Assisted(engine, MadeUp(), 0.0)):
        mass = torch.from_numpy(scores_of([one])[0][[1, 2, 8, 20]]).log_softmax(0)
        same(dict(zip([1, 2, 8, 20], mass.tolist(), strict=True)), items[0].tolist(), scores[0].tolist(), 4)
        assert items[0, 4:].tolist() == [-1] * 21


def test_with_alpha_0_d3_is_the_assistant():
    engine, some = engine_of(), rows()
    items, scores = engine.beam(some, width=25, size=10, rescorer=Assisted(engine, MadeUp(), 0.0))
    for one, found, values in zip(some, items, scores, strict=True):
        free = torch.from_numpy(scores_of([one])[0])
        free[torch.from_numpy(one.history)] = -torch.inf
        best, index = free.log_softmax(0).topk(10)
        assert found.tolist() == index.tolist()
        torch.testing.assert_close(values, best)


@pytest.mark.parametrize("scale", [1e-9, 1e3, 1e6])
def test_with_alpha_0_d3_orders_all_items_as_the_assistant_does_whatever_its_scale(scale):
    """Such as interactions counted: shares of items far below the best underflow, their order does not."""
    engine, some = engine_of(exclude_history=False), rows()
    rescorer = Assisted(engine, MadeUp(lambda asked: scores_of(asked) * scale), 0.0)
    for items, _ in searches(engine, some, rescorer):
        for one, found in zip(some, items.tolist(), strict=True):
            assert found == np.argsort(-scores_of([one])[0]).tolist()


def test_items_that_the_assistant_rules_out_come_last():
    engine, (one, *_) = engine_of(exclude_history=False), rows()
    scores = np.where(np.arange(25) % 5 == 0, -np.inf, scores_of([one])[0])
    for items, values in searches(engine, [one], Assisted(engine, MadeUp(lambda _: scores[None]), 0.5)):
        assert sorted(items[0].tolist()) == list(range(25)) and torch.isfinite(values).all()
        assert set(items[0, 20:].tolist()) == {0, 5, 10, 15, 20}


def decode(name, engine, some, size=8, **params):
    return decode_rows(engine, registry.create("decoder", name, params), some, size)


@pytest.fixture
def assistant(monkeypatch):
    """Let `-p assistant=made-up` stand for `scores_of`."""
    monkeypatch.setattr("recalign.recommenders.assistants.load_assistant", lambda folder, catalogue: MadeUp())
    return "made-up"


def test_d3_with_alpha_1_or_without_an_assistant_is_the_beam(assistant):
    engine, some = engine_of(), rows(9)
    beam = decode("beam", engine, some)
    for params in ({}, {"alpha": 1}, {"assistant": assistant, "alpha": 1}):
        found = decode("d3", engine, some, **params)
        assert found.items.tolist() == beam.items.tolist()
        assert found.scores.tolist() == beam.scores.tolist()
    changed = decode("d3", engine, some, assistant=assistant)
    assert changed.items.tolist() != beam.items.tolist()


def test_igd_with_alpha_0_is_the_beam():
    engine, some = engine_of(popularity=range(25)), rows(9)
    beam, plain = decode("beam", engine, some), decode("igd", engine, some, alpha=0)
    assert plain.items.tolist() == beam.items.tolist()
    assert plain.scores.tolist() == beam.scores.tolist()
    assert decode("igd", engine, some).items.tolist() != beam.items.tolist()


def test_information_gain_by_hand():
    # Titles 3 4, 3 5, 6 with counts 1, 1, 2: H(3) = 2 * (1/4 ln 4) = .693, H(6) = 1/2 ln 2 = .347, of H = 1.040.
    paths = [np.array([3, 4]), np.array([3, 5]), np.array([6])]
    engine = engine_of(paths, popularity=[1, 1, 2], exclude_history=False)
    decoder = Decisive(engine, 0.5)
    root = [float(decoder.entropies[0])]
    assert root == pytest.approx([1.5 * math.log(2)])
    plain = {
        item: plain_scores(engine, row(0, [1]), "renormalised", lambda p, b, logps: logps)[item] for item in (0, 1, 2)
    }
    items, scores = engine.exact([row(0, [1])], size=3, rescorer=decoder)[:2]
    found = dict(zip(items[0].tolist(), scores[0].tolist(), strict=True))
    # Token 6 gains more (.693 against .347): it costs half. Tokens 4 and 5 gain alike: they cost what they did.
    assert found == pytest.approx({0: plain[0], 1: plain[1], 2: 0.5 * plain[2]}, abs=1e-5)


def test_equal_gains_that_differ_by_rounding_change_nothing():
    # Two subtrees of the same seven counts in another order: their sums differ in the last bit at most.
    paths = [np.array([first, last]) for first in (3, 4) for last in range(5, 12)]
    counts = [1, 2, 3, 5, 7, 11, 13]
    engine = engine_of(paths, popularity=[*counts, *counts[::-1]], exclude_history=False)
    plain = decode("beam", engine, rows(3, 14), 14)
    shares = {}
    for alpha in (0.0, 0.9):
        items, scores = engine.exact(rows(3, 14), size=14, rescorer=Decisive(engine, alpha))[:2]
        shares[alpha] = dict(zip(items[0].tolist(), scores[0].tolist(), strict=True))
    most = counts.index(13)  # the item that takes least off keeps its full cost, and so does its first token
    least = min(range(7), key=lambda place: -counts[place] / 84 * math.log(counts[place] / 84))
    assert plain.lengths.tolist() == [14] * 3
    assert shares[0.9][most] == pytest.approx(shares[0.0][most], abs=1e-9)
    assert shares[0.9][least] > shares[0.0][least]


def test_gains_of_neighbouring_counts_differ_among_a_billion_interactions():
    # The items differ by one interaction in 500 million: their gains by 3e-10 nats.
    engine = engine_of([np.array([3]), np.array([4])], popularity=[500_000_000, 500_000_001], exclude_history=False)
    plain = dict(zip(*(part[0].tolist() for part in engine.exact([row(0, [])], size=2)[:2]), strict=True))
    found = engine.exact([row(0, [])], size=2, rescorer=Decisive(engine, 1.0))[:2]
    # -p ln p falls from p = 1/e on: the less popular item keeps more entropy, so it gains less and costs what it did.
    assert dict(zip(*(part[0].tolist() for part in found), strict=True)) == pytest.approx({0: plain[0], 1: 0.0})


def test_a_catalogue_without_training_interactions_changes_nothing():
    engine = engine_of(popularity=[0] * 25)
    assert decode("igd", engine, rows()).items.tolist() == decode("beam", engine, rows()).items.tolist()


def test_scores_that_underflow_forbid_nothing():
    engine, some = engine_of(), rows(2)
    flat = np.where(np.arange(25) == 24, 0.0, -1e5 - np.arange(25.0))
    items, scores = engine.beam(
        some, width=25, size=22, rescorer=Assisted(engine, MadeUp(lambda r: np.tile(flat, (len(r), 1))), 0.5)
    )
    assert (items >= 0).all() and torch.isfinite(scores).all()
    assert items[:, 0].tolist() == [24, 24]


@pytest.mark.parametrize("name", ["d3", "igd"])
def test_results_do_not_depend_on_the_batch(name, assistant, monkeypatch):
    params = {"assistant": assistant} if name == "d3" else {}
    engines = [engine_of(popularity=range(25), token_budget=budget) for budget in (32768, 1)]
    whole, alone = (decode(name, engine, rows(9), **params) for engine in engines)
    assert whole.items.tolist() == alone.items.tolist()
    np.testing.assert_allclose(whole.scores, alone.scores, atol=1e-5)
    monkeypatch.setattr(d3, "CELLS", 1)
    pieces = decode(name, engines[0], rows(9), **params)
    assert pieces.items.tolist() == whole.items.tolist() and pieces.lengths.tolist() == whole.lengths.tolist()


@pytest.mark.parametrize("name", ["d3", "igd"])
def test_exact_search_scores_at_least_what_a_narrow_beam_does(name, assistant):
    params = {"assistant": assistant} if name == "d3" else {}
    engine, some = engine_of(popularity=range(25)), rows(6)
    beam, exact = (decode(name, engine, some, 4, search=search, **params) for search in ("beam", "exact"))
    assert (exact.scores >= beam.scores - 1e-5).all()
    wide = decode(name, engine, some, 4, width=25, **params)
    assert wide.items.tolist() == exact.items.tolist()


@pytest.mark.parametrize("name", ["d3", "igd"])
def test_narrow_and_wide_beams(name, assistant):
    params = {"assistant": assistant} if name == "d3" else {}
    engine = engine_of(popularity=range(25), exclude_history=False)
    assert decode(name, engine, rows(), 1, width=1, **params).lengths.tolist() == [1] * 4
    every = decode(name, engine, rows(), 25, width=60, **params)
    assert all(sorted(items) == list(range(25)) for items in every.items.tolist())
    more = decode(name, engine, rows(), 40, **params)
    assert more.lengths.tolist() == [25] * 4 and (more.items[:, 25:] == -1).all()
    with pytest.raises(UserError, match="width 2 cannot return 4"):
        decode(name, engine, rows(), 4, width=2, **params)


@pytest.mark.parametrize("name", ["d3", "igd"])
def test_titles_of_one_token_and_titles_that_are_all_forced(name, assistant, monkeypatch):
    params = {"assistant": assistant} if name == "d3" else {}
    single = [np.array([3 + place]) for place in range(25)]
    engine = engine_of(single, popularity=range(25), exclude_history=False)
    assert decode(name, engine, rows(), 25, **params).lengths.tolist() == [25] * 4
    chains = [np.array([3 + place, 30, 31, 32]) for place in range(25)]  # forced from the second token on
    forced = engine_of(chains, popularity=range(25), exclude_history=False)
    assert decode(name, forced, rows(), 25, **params).lengths.tolist() == [25] * 4

    monkeypatch.setattr(
        "recalign.recommenders.assistants.load_assistant", lambda *_: MadeUp(lambda some: np.ones((len(some), 1)))
    )
    only = engine_of([np.array([3, 4, 5])], exclude_history=False)
    for search in ("beam", "exact"):
        found = decode(name, only, [row(0, [])], 3, search=search, **params)
        assert found.items.tolist() == [[0, -1, -1]] and found.scores[0, 0] == 0.0


def test_one_item_left_is_forced():
    engine = engine_of()
    one = row(0, [], candidates=[7])
    items, scores = engine.beam([one], width=5, size=5, rescorer=Assisted(engine, MadeUp(), 0.3))
    assert items.tolist() == [[7, -1, -1, -1, -1]] and scores[0, 0] == 0.0


@pytest.mark.parametrize(
    ("name", "params", "message"),
    [
        ("d3", {"alpha": "1.5"}, r"alpha = '1.5' is refused: input should be less than or equal to 1"),
        ("d3", {"alpha": "-0.1"}, r"alpha = '-0.1' is refused"),
        ("d3", {"temperature": "0"}, "temperature = '0' is refused"),
        ("d3", {"alpha": "0.5"}, r"alpha = 0.5 leaves 0.5 to an assistant, and there is none"),
        ("d3", {"asistant": "x"}, "no parameter 'asistant'"),
        ("igd", {"alpha": "1.01"}, "alpha = '1.01' is refused"),
        ("igd", {"alpha": "nan"}, "alpha = 'nan' is refused"),
        ("igd", {"width": "0"}, "width = '0' is refused"),
    ],
)
def test_parameters_out_of_range_are_refused(name, params, message):
    with pytest.raises(UserError, match=message):
        registry.create("decoder", name, params)


@pytest.mark.parametrize("length_penalty", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("scoring", ["renormalised", "full"])
@pytest.mark.parametrize("name", ["d3", "igd"])
def test_scoring_and_length_penalty_are_parameters(name, scoring, length_penalty, assistant):
    engine, some = engine_of(popularity=range(25)), rows()
    params = {"assistant": assistant, "alpha": 0.7} if name == "d3" else {"alpha": 0.3}
    found = decode(name, engine, some, 25, scoring=scoring, length_penalty=length_penalty, **params)
    lengths = [len(path) + 1 for path in engine.policy.titles.paths]
    for one, items, scores in zip(some, found.items.tolist(), found.scores.tolist(), strict=True):
        rescored = assisted(engine, one, 0.7) if name == "d3" else decisive(engine, 0.3)
        plain = plain_scores(engine, one, scoring, rescored, forced=0.7 if name == "d3" else 1.0)
        same({item: value / lengths[item] ** length_penalty for item, value in plain.items()}, items, scores, 25)


def test_full_scores_by_hand():
    # Title 3 4 of two forced tokens and the end, beside titles 5 and 6: 5, 6 and 3 are the only choice.
    engine = engine_of([np.array([3, 4]), np.array([5]), np.array([6])], exclude_history=False)
    one, mass = row(0, []), np.array([0.2, 0.3, 0.5])
    model, prompt = engine.policy.model, engine.policy.prompter.encode(one)
    end = engine.policy.titles.end
    first, second, last = token_logps(model, prompt, (3, 4, end), None)
    wanted = 0.7 * first + 0.3 * math.log(0.2) + 0.7 * (second + last)
    rescorer = Assisted(engine, MadeUp(lambda _: np.log(mass)[None]), 0.7)
    for search in (engine.beam([one], width=3, size=3, scoring="full", rescorer=rescorer),
                   engine.exact([one], size=3, scoring="full", rescorer=rescorer)):  # fmt: skip
        scores = dict(zip(search[0][0].tolist(), search[1][0].tolist(), strict=True))
        assert scores[0] == pytest.approx(wanted, abs=1e-5)


@pytest.mark.parametrize("name", ["d3", "igd"])
def test_a_length_penalty_for_exact_search_is_refused(name):
    with pytest.raises(UserError, match=r"Exact search has no length penalty \(here 0.5\)"):
        decode(name, engine_of(), rows(), 4, search="exact", length_penalty=0.5)


@pytest.mark.parametrize("name", ["d3", "igd"])
def test_a_width_for_exact_search_is_refused(name):
    with pytest.raises(UserError, match="Exact search has no width"):
        decode(name, engine_of(), rows(), 4, search="exact", width=8)


def test_the_sums_of_a_tree_are_those_of_the_items_below():
    engine = engine_of(random_paths(60, longest=6, width=4))
    values = torch.rand(3, 60, dtype=torch.float64)
    sums = engine.trie.sums(values)
    plain = torch.zeros_like(sums)
    for item in range(60):
        plain[:, 0] += values[:, item]
        for node in engine.trie.path_node[engine.trie.path_start[item] : engine.trie.path_start[item + 1]].tolist():
            plain[:, node] += values[:, item]
    torch.testing.assert_close(sums, plain)
    torch.testing.assert_close(engine.trie.sums(values[0]), sums[0])
    torch.testing.assert_close(engine.trie.log_sums(values.log()), plain.log())
    torch.testing.assert_close(engine.trie.log_sums(values[0].log() - 1e4), plain[0].log() - 1e4)
    none = engine.trie.log_sums(torch.full_like(values, -torch.inf))
    assert (none == -torch.inf).all()


def popular(engine):
    """The documentation's example by its definition; what may not be recommended counts too."""
    names = [(*path.tolist(), engine.policy.titles.end) for path in engine.policy.titles.paths]

    def rescored(prefix, below, logps):
        mass = {
            token: sum(item + 1 for item, name in enumerate(names) if name[: len(prefix) + 1] == (*prefix, token))
            for token in below
        }
        return {t: 0.5 * logps[t] + 0.5 * math.log(mass[t] / sum(mass.values())) for t in below}

    return rescored


def test_the_decoder_of_the_documentation_rescores():
    page = (Path(__file__).parents[2] / "docs" / "plugins.md").read_text(encoding="utf-8")
    source = next(code for code in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "Rescorer" in code)
    names = {}
    exec(source, names)  # noqa: S102 - ours
    engine, some = engine_of(popularity=range(25)), rows()
    found = decode_rows(engine, names["Popular"](), some, 25)
    beam = decode("beam", engine, some, 25)
    for one, items, scores in zip(some, found.items.tolist(), found.scores.tolist(), strict=True):
        wanted = plain_scores(engine, one, "renormalised", popular(engine))
        same(wanted, items, scores, 25)
    assert found.items.tolist() != beam.items.tolist()


def test_rows_keep_their_assistant_when_others_of_the_batch_are_settled():
    engine = engine_of(exclude_history=False)
    some = [row(0, [1, 2, 3], candidates=[7]), row(1, [3, 4], candidates=[2, 9]), row(2, [5])]
    for items, scores in searches(engine, some, Assisted(engine, MadeUp(), 0.4)):
        for one, found, values in zip(some, items.tolist(), scores.tolist(), strict=True):
            same(plain_scores(engine, one, "renormalised", assisted(engine, one, 0.4)), found, values, 25)
