"""Lists for one person are those of the same history among the dataset's rows."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from recalign.api import RANKING_HEAD, ranking_head
from recalign.decoding.serving import load_service
from recalign.errors import UserError
from tests.fake_dataset import TITLES, write_dataset

TINY = "builtin:tiny,hidden=32,layers=1"


def service_of(tmp_path, task="next", **options):
    made = {"history": options.pop("history", 5), "list_length": options.pop("list_length", 3)}
    write_dataset(tmp_path / task, task=task, **made)
    return load_service(TINY, tmp_path / task, **options)


@pytest.mark.parametrize(("task", "size"), [("next", 4), ("list", 3)])
def test_a_history_by_title_and_the_row_with_that_history_get_the_same_list(tmp_path, task, size):
    service = service_of(tmp_path, task)
    row = service.dataset.rows("test")[2]
    found = service.recommend([TITLES[item] for item in row.history], size=size)
    expected = service.decoder.decode(service.engine, [row], size)
    assert [each["item"] for each in found["recommended"]] == expected.items[0].tolist()
    assert [each["score"] for each in found["recommended"]] == pytest.approx(expected.scores[0].tolist())
    assert [each["rank"] for each in found["recommended"]] == list(range(1, size + 1))
    assert [each["title"] for each in found["history"]] == [TITLES[item] for item in row.history]
    assert {each["rationale"] for each in found["recommended"]} == {None}


def test_ids_mean_the_same_as_titles_and_the_history_is_left_out(tmp_path):
    service = service_of(tmp_path)
    by_title, by_id = service.recommend(TITLES[:3], size=17), service.recommend(["100", "101", "102"], size=17)
    assert by_title == by_id
    assert sorted(each["item"] for each in by_title["recommended"]) == list(range(3, 20))


def test_prompts_show_as_much_of_a_history_as_those_of_training_and_the_rest_is_left_out_all_the_same(tmp_path):
    service = service_of(tmp_path)
    service.dataset.info["options"]["history"] = 2
    long, short = service.recommend(TITLES[:6], size=14), service.recommend(TITLES[4:6], size=14)
    assert len(long["history"]) == 6
    assert sorted(each["item"] for each in long["recommended"]) == list(range(6, 20))
    shown = {each["item"]: each["score"] for each in short["recommended"]}
    best = long["recommended"][0]
    assert best["item"] not in shown or shown[best["item"]] <= best["score"] + 1e-6  # renormalised over fewer items
    row = service._row(TITLES[:6], None, "")
    assert (row.history.tolist(), row.earlier.tolist()) == ([4, 5], [0, 1, 2, 3])


def test_candidates_are_all_that_is_recommended(tmp_path):
    found = service_of(tmp_path).recommend(TITLES[:2], candidates=TITLES[10:13])
    assert sorted(each["item"] for each in found["recommended"]) == [10, 11, 12]


@pytest.mark.parametrize("decoder", ["judge", "list"])
def test_the_rank_task_orders_all_candidates_however_many_training_had(tmp_path, decoder):
    service = service_of(tmp_path, "rank", list_length=4, decoder=decoder)
    for count in (1, 4, 6):
        found = service.recommend(TITLES[:2], candidates=TITLES[5 : 5 + count], profile="somebody")
        assert sorted(each["item"] for each in found["recommended"]) == list(range(5, 5 + count))
        scores = [each["score"] for each in found["recommended"]]
        assert scores == sorted(scores, reverse=True)
    assert len(service.recommend(TITLES[:2], candidates=TITLES[5:11], size=2)["recommended"]) == 2


def test_rationales_come_with_the_list_where_the_decoder_writes_them(tmp_path):
    """A ranking head that scores the decision's state, after a text of the model's own about each candidate."""
    service = service_of(tmp_path, "rank", decoder="head", params={"rationale": True, "max_tokens": 8})
    head = service.engine.policy.attach({RANKING_HEAD: ranking_head}, seed=1)[RANKING_HEAD]
    torch.nn.init.normal_(head[2].weight, generator=torch.Generator().manual_seed(0))
    found = service.recommend(TITLES[:2], candidates=TITLES[7:9])["recommended"]
    row = replace(service.dataset.rows("test")[0], history=np.arange(2), candidates=np.array([7, 8]))
    row = replace(row, times=None, ratings=None, profile="", timestamp=np.inf)
    form = replace(service.engine.policy.answering.form, rationale=True)
    written = service.engine.questions.rationales([row], form=form, max_tokens=8, temperature=None, seed=0)
    told = {each["item"]: each["rationale"] for each in found}
    assert told == dict(zip([7, 8], written.texts, strict=True))
    assert all(told.values())


@pytest.mark.parametrize(
    ("task", "asked", "told"),
    [
        ("next", {"history": []}, "The history is empty"),
        ("next", {"history": ["Ship Rde"]}, "Did you mean 'Ship Red'"),
        ("next", {"history": ["Ship Red", "100"]}, "names 'Ship Red' twice"),
        ("next", {"history": ["100"], "candidates": []}, "The list of candidates is empty"),
        ("next", {"history": ["100"], "candidates": ["105", "105"]}, "The list of candidates names"),
        ("next", {"history": ["100"], "size": 21}, "--size 21 is asked for, and the catalogue has 20 items"),
        ("next", {"history": ["100"], "size": 20}, "19 of the 20 items of the catalogue can be recommended"),
        ("next", {"history": ["100"], "candidates": ["100"]}, "0 of the 1 candidates can be recommended"),
        ("list", {"history": ["100"], "size": 4}, "lists, which have 3 items, not 4"),
        ("rank", {"history": ["100"]}, "orders candidates, and none are named"),
        ("rank", {"history": ["100"], "candidates": ["105", "106"], "size": 3}, "2 of the 2 candidates"),
    ],
)
def test_what_cannot_be_answered_is_told_and_the_next_question_is_answered(tmp_path, task, asked, told):
    service = service_of(tmp_path, task)
    with pytest.raises(UserError, match=told):
        service.recommend(**asked)
    assert service.recommend(["101"], candidates=["105", "106", "107"], size=2)["recommended"]


def test_a_history_may_come_back_to_an_item_where_that_is_said(tmp_path):
    service = service_of(tmp_path, allow_repeats=True, exclude_history="no")
    found = service.recommend(["100", "101", "100"], size=20)
    assert [each["item"] for each in found["history"]] == [0, 1, 0]
    assert sorted(each["item"] for each in found["recommended"]) == list(range(20))


def test_the_model_is_loaded_by_the_first_history_that_can_be_answered_and_once(tmp_path, monkeypatch):
    from recalign.decoding import serving

    loads, load = [], serving.load_policy
    monkeypatch.setattr(serving, "load_policy", lambda *given, **named: loads.append(1) or load(*given, **named))
    service = service_of(tmp_path)
    with pytest.raises(UserError):
        service.recommend(["Ship Rde"])
    assert not loads
    assert service.recommend(["100"]) == service.recommend(["100"])
    assert loads == [1]


def test_decoders_that_read_what_came_next_or_serve_another_task_are_refused(tmp_path):
    with pytest.raises(UserError, match="'judge' serves the task rank"):
        service_of(tmp_path, decoder="judge")
    with pytest.raises(UserError, match="reads what users went on to"):
        service_of(tmp_path, "list", decoder="bon", params={"reward": "ndcg", "allow_oracle": True})
