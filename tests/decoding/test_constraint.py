import numpy as np
import pytest
import torch

from recalign.decoding.constraint import ListConstraint
from recalign.errors import UserError
from recalign.text.item_tokens import TitleTokens
from recalign.text.trie import TitleTrie
from tests.decoding.doubles import END, SEPARATOR, VOCABULARY, valid_mask
from tests.decoding.oracle import all_responses, next_tokens

PREFIXED = [[5, 6], [5], [5, 6, 7], [7, 8], [7, 9], [10, 11, 12]]  # items 1 and 0 begin others
FREE_OF_PREFIXES = [[5, 6], [5, 7], [8], [9, 10, 10], [9, 10, 11]]


def layout(paths, separator):
    return TitleTokens([np.array(p) for p in paths], np.array(separator, dtype=np.int64), END)


def constraint_of(titles, list_length):
    return ListConstraint(TitleTrie.build(titles), titles, VOCABULARY, list_length=list_length)


def tokens_of(mask):
    return [torch.nonzero(row).flatten().tolist() for row in mask]


LAYOUTS = [(PREFIXED, (SEPARATOR,)), (PREFIXED, (SEPARATOR, 4)), (FREE_OF_PREFIXES, ())]


@pytest.mark.parametrize(("paths", "separator"), LAYOUTS)
@pytest.mark.parametrize("excluded", [[], [1], [0, 4]])
@pytest.mark.parametrize("list_length", [1, 3])
def test_valid_tokens_are_those_that_lead_to_some_list(paths, separator, excluded, list_length):
    titles = layout(paths, separator)
    constraint = constraint_of(titles, list_length)
    responses = all_responses(titles, list_length, excluded)
    tokens = list(responses)
    state = constraint.start([np.array(excluded, dtype=np.int64)] * len(tokens))
    for step in range(max(map(len, tokens))):
        wanted = [next_tokens(responses, r[:step]) or [END] for r in tokens]
        assert tokens_of(valid_mask(constraint, state)) == wanted
        state = constraint.advance(state, torch.tensor([r[step] if step < len(r) else END for r in tokens]))
    assert state.done.all()
    assert [tuple(items) for items in state.items.tolist()] == list(responses.values())


@pytest.mark.parametrize(("paths", "separator"), LAYOUTS)
def test_forced_runs_are_what_advancing_by_single_choices_gives(paths, separator):
    titles = layout(paths, separator)
    constraint = constraint_of(titles, 2)
    responses = list(all_responses(titles, 2))
    for cut in range(max(map(len, responses))):
        prefixes = [r[:cut] for r in responses if len(r) >= cut]
        state = constraint.start([np.zeros(0, dtype=np.int64)] * len(prefixes))
        for step in range(cut):
            state = constraint.advance(state, torch.tensor([p[step] for p in prefixes]))
        moved, tokens, counts = constraint.forced(state)
        for row, prefix in enumerate(prefixes):
            run = tokens[row, : counts[row]].tolist()
            for token in run:
                assert next_tokens(responses, prefix) == [token]
                prefix = (*prefix, token)  # noqa: PLW2901
            assert tokens[row, counts[row] :].tolist() == [END] * (tokens.shape[1] - int(counts[row]))
            if not moved.done[row]:
                assert tokens_of(valid_mask(constraint, moved.take(torch.tensor([row])))) == [
                    next_tokens(responses, prefix)
                ]


@pytest.mark.parametrize(("paths", "separator"), LAYOUTS)
def test_replay_finds_every_choice_of_known_lists(paths, separator):
    titles = layout(paths, separator)
    constraint = constraint_of(titles, 3)
    responses = list(all_responses(titles, 3, [2]))
    lengths = torch.tensor([len(r) for r in responses])
    tokens = torch.full((len(responses), int(lengths.max())), END)
    for row, response in enumerate(responses):
        tokens[row, : len(response)] = torch.tensor(response)
    found = constraint.replay(tokens, lengths, [np.array([2, 2])] * len(responses))
    seen = {}
    for row, position, start, end, chosen in zip(
        *(t.tolist() for t in (found.rows, found.positions, found.starts[:-1], found.starts[1:], found.chosen)),
        strict=True,
    ):
        seen[row, position] = found.tokens[start:end].tolist()
        assert start <= chosen < end and found.tokens[chosen] == tokens[row, position]
    wanted = {
        (row, step): next_tokens(responses, r[:step])
        for row, r in enumerate(responses)
        for step in range(len(r))
        if len(next_tokens(responses, r[:step])) > 1
    }
    assert {key: sorted(value) for key, value in seen.items()} == wanted


def test_rows_keep_their_own_exclusions():
    titles = layout(FREE_OF_PREFIXES, (SEPARATOR,))
    state = constraint_of(titles, 1).start([np.array([0, 1, 0]), np.array([], dtype=np.int64), np.array([2])])
    assert tokens_of(valid_mask(constraint_of(titles, 1), state)) == [[8, 9], [5, 8, 9], [5, 9]]


def test_too_small_catalogues_are_refused_by_number():
    titles = layout(FREE_OF_PREFIXES, (SEPARATOR,))
    with pytest.raises(UserError, match="5 items, fewer than the 6"):
        constraint_of(titles, 6)
    with pytest.raises(UserError, match="Only 3 of 5 items are left for a list of 4"):
        constraint_of(titles, 4).start([np.array([], dtype=np.int64), np.array([1, 2, 2])])


def test_titles_that_cannot_be_told_apart_are_refused():
    with pytest.raises(UserError, match="no separator"):
        constraint_of(layout(PREFIXED, ()), 2)
    with pytest.raises(UserError, match="goes on with the separator"):
        constraint_of(layout([[5], [5, SEPARATOR, 6]], (SEPARATOR,)), 2)
    assert constraint_of(layout(PREFIXED, ()), 1).list_length == 1  # a single title needs no separator
