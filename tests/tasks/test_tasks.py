"""Tasks: shapes of rows and responses, default sizes, and how a policy answers rows."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from recalign.errors import UserError
from recalign.plugins.registry import find, list_plugins
from recalign.tasks import TASKS, Shape, find_task


def test_unset_shapes_are_filled_in():
    assert find_task("next").shape(None, None, None) == Shape(targets=1, stride=1, list_length=1)
    assert find_task("list").shape(None, None, None) == Shape(targets=10, stride=5, list_length=5)
    assert find_task("list").shape(3, None, None) == Shape(targets=3, stride=1, list_length=3)
    assert find_task("list").shape(8, 2, 4) == Shape(targets=8, stride=2, list_length=4)


def test_the_next_task_has_one_target():
    with pytest.raises(UserError, match="one target and one title a response, not 3 and 1"):
        find_task("next").shape(3, None, None)


def test_sizes_of_ranked_lists():
    assert (find_task("next").list_size(1), find_task("list").list_size(7)) == (10, 7)
    assert find_task("next").default_metric(1, items=6) == "ndcg@6"
    assert find_task("list").default_metric(5, items=100) == "ndcg@5"


def test_responses_name_no_more_titles_than_the_model_was_trained_on():
    assert find_task("next").writable_length(1, 10, "greedy") == 1
    assert find_task("list").writable_length(5, 4, "greedy") == 4
    with pytest.raises(UserError, match="The decoder 'greedy' writes the model's own lists, which have 5 items, not 6"):
        find_task("list").writable_length(5, 6, "greedy")


def test_a_misspelt_task_is_named():
    with pytest.raises(UserError) as caught:
        find_task("lists")
    assert "'list'" in caught.value.hint


@pytest.mark.parametrize("task", TASKS.values(), ids=lambda task: task.name)
def test_every_decoder_that_a_task_names_serves_it(task):
    installed = {entry.name for entry in list_plugins("decoder")}
    assert set(task.decoders) <= installed
    assert all(task.name in find("decoder", name).tasks for name in task.decoders)


def test_next_searches_no_more_beams_than_items_are_left():
    def beam(rows, width, size):
        assert width == size == 3
        return torch.tensor([[4, 0, -1]]), torch.tensor([[-0.5, -1.0, -torch.inf]]).double()

    engine = SimpleNamespace(catalogue=range(5), excluded=lambda row: np.array([1, 2]), beam=beam)
    lists = find_task("next").decode(engine, ["row"])
    assert lists.items.tolist() == [[4, 0, -1]] and lists.lengths.tolist() == [2]


def test_a_list_is_decoded_greedily_and_scored_as_a_whole():
    answer = SimpleNamespace(items=torch.tensor([[3, 1], [2, -1]]), logps=torch.tensor([[-1.0, -0.5], [-0.25, 0.0]]))
    engine = SimpleNamespace(list_length=2, greedy=lambda rows, list_length: answer)
    lists = find_task("list").decode(engine, ["a", "b"])
    assert lists.scores.tolist() == [[-1.5, -1.5], [-0.25, -0.25]]
    assert lists.lengths.tolist() == [2, 1]
