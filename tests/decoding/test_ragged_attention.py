import numpy as np
import pytest
import torch

from recalign.decoding import ragged_attention as ragged
from recalign.decoding import shared_attention, shared_prompt
from recalign.decoding.attention_rule import AttentionRule

RULE = AttentionRule(0.3)


def parts(seed, ordered, common=0):
    """What three prompts begin with, their rests, lengths of up to eight completions, and the prompt of each."""
    rng = np.random.default_rng(seed)
    completions = rng.integers(1, 20, int(rng.integers(0, 9)))
    owners = rng.integers(0, 3, len(completions))
    return common, rng.integers(1, 30, 3), completions, np.sort(owners) if ordered else owners


def tensors(common, rests, completions, heads=(6, 2, 2), dtype=torch.float64):
    torch.manual_seed(int(rests.sum()))
    count = int(common + rests.sum() + completions.sum())
    return [torch.randn(each, count, 8, dtype=dtype, requires_grad=True) for each in heads]


def plain(query, key, value, common, rests, completions, owners):
    """Attention by a mask over everything."""
    count, ends = query.shape[1], common + rests.cumsum()
    seen = torch.zeros(count, count, dtype=torch.bool)
    seen[:common, :common] = torch.ones(common, common).tril().bool()
    seen[common:, :common] = True
    for end, length in zip(ends, rests, strict=True):
        seen[end - length : end, end - length : end] = torch.ones(length, length).tril().bool()
    begun = int(common + rests.sum())
    for length, owner in zip(completions, owners, strict=True):
        mine = slice(begun, begun + length)
        seen[mine, mine] = torch.ones(length, length).tril().bool()
        seen[mine, ends[owner] - rests[owner] : ends[owner]] = True
        begun += length
    repeat = len(query) // len(key)
    scores = query @ key.repeat_interleave(repeat, 0).transpose(1, 2) * RULE.scale
    return (scores.masked_fill(~seen, -torch.inf).softmax(-1) @ value.repeat_interleave(repeat, 0)).transpose(0, 1)


@pytest.mark.parametrize("piece", [1, 7, 64])
@pytest.mark.parametrize("ordered", [False, True])
@pytest.mark.parametrize("heads", [(6, 2, 2), (3, 3, 3), (4, 1, 1)])
@pytest.mark.parametrize("common", [0, 1, 11])
def test_outputs_and_gradients_are_those_of_a_mask(piece, ordered, heads, common, monkeypatch):
    monkeypatch.setattr(ragged, "PIECE", piece)
    for seed in range(6):
        layout = parts(seed, ordered, common)
        given = tensors(*layout[:3], heads)
        found = ragged.attend_spans(*given, RULE, ragged.spans_beside_prompts(*layout))
        wanted = plain(*given, *layout)
        torch.testing.assert_close(found, wanted, atol=1e-12, rtol=1e-10)
        weight = torch.randn_like(wanted)
        gradients = [torch.autograd.grad(out, given, weight) for out in (found, wanted)]
        for one, two in zip(*gradients, strict=True):
            torch.testing.assert_close(one, two, atol=1e-11, rtol=1e-9)


def test_short_completions_of_a_prompt_share_a_span_and_long_ones_are_cut(monkeypatch):
    monkeypatch.setattr(ragged, "PIECE", 10)
    lengths = np.array([4, 12]), np.array([3, 3, 3, 3, 25, 2, 2]), np.array([0, 0, 0, 0, 1, 1, 0])
    spans = ragged.spans_beside_prompts(5, *lengths)
    assert [(each.tokens.start, each.tokens.stop) for each in spans] == [
        (0, 5), (5, 9), (9, 19), (19, 21),  # the beginning, the rests of the prompts
        (21, 30), (30, 33), (33, 43), (43, 53), (53, 58), (58, 60), (60, 62),
    ]  # fmt: skip
    assert spans[1].seen == (slice(0, 9),) and spans[3].seen == (slice(0, 5), slice(9, 21))
    assert spans[4].seen == (slice(0, 9), slice(21, 30)) and spans[7].seen == (slice(0, 5), slice(9, 21), slice(33, 53))
    assert spans[7].bias.shape == (10, 20)


@pytest.mark.parametrize("common", [0, 7])
@pytest.mark.parametrize(("dtype", "near"), [(torch.float32, 1e-5), (torch.bfloat16, 4e-2)])
def test_a_pass_attends_alike_on_either_way(dtype, near, common, monkeypatch):
    layout = parts(1, True, common)
    given = tensors(*layout[:3], dtype=dtype)
    found, used, spans = [], [], shared_prompt.attend_spans
    monkeypatch.setattr(shared_prompt, "attend_spans", lambda *all_: used.append(1) or spans(*all_))
    for rows in ({"cpu"}, set()):
        monkeypatch.setattr(shared_attention, "ROW_BY_ROW", rows)
        reading = shared_prompt.SharedPromptPass(*layout, torch.device("cpu"))
        out = reading.attend(0, *given, RULE)
        found.append([out, *torch.autograd.grad(out.float().cos().sum(), given)])
    assert used == [1]
    for one, two in zip(*found, strict=True):
        assert one.dtype == dtype
        torch.testing.assert_close(one, two, atol=near, rtol=near)


def test_rules_that_do_more_than_scale_are_not_served():
    assert ragged.serves(RULE)
    assert not ragged.serves(AttentionRule(0.3, cap=5.0))
    assert not ragged.serves(AttentionRule(0.3, sinks=torch.zeros(6)))
