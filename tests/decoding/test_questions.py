"""Answers to questions about candidates: against transformers' own forward and generate, sequence by sequence."""

from dataclasses import asdict, replace

import numpy as np
import pytest
import torch

from recalign.api import DECISION, RANKING_HEAD, RATIONALE, AnswerFormat, Answering, ranking_head
from recalign.decoding.answers import OpeningFinder
from recalign.decoding.engine import PolicyEngine
from recalign.models.policy import load_policy
from tests.fake_dataset import TITLES, write_dataset
from tests.fake_models import byte_level_tokenizer, save_model

YES_NO = AnswerFormat(("Yes", "No"), "", "", False)
FORKED = AnswerFormat(("zzq", "zzr"), "<a>", "</a>", True)
TOKENS = 9


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return write_dataset(tmp_path_factory.mktemp("d") / "rank", task="rank", list_length=5)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder, tokenizer = tmp_path_factory.mktemp("m"), byte_level_tokenizer(TITLES)
    return {
        "llama": save_model(folder / "llama", tokenizer, context=2048),
        "windowed": save_model(folder / "w", tokenizer, family="mistral", context=2048, sliding_window=24),
    }


def engine_of(models, dataset, kind="llama", **options):
    policy = load_policy(models[kind], dataset, template="alpaca", trainable=True)
    policy.model.eval()
    return PolicyEngine(policy, dataset.catalogue, exclude_history=False, **options)


@pytest.fixture(scope="module")
def engine(models, dataset):
    return engine_of(models, dataset)


@pytest.fixture(scope="module")
def rows(dataset):
    return list(dataset.rows("test"))[:3]


def plain(engine, rows, answers, form, number):
    """One answer after its own prompt: token ids, where it begins, transformers' logits and last hidden states."""
    row, item = rows[answers.rows[number]], int(answers.items[number])
    shared, (question,) = engine.policy.prompter.questions.encode(row, [item], form, 0)
    answer = answers.tokens[number, : answers.lengths[number]].numpy()
    tokens = torch.from_numpy(np.concatenate([shared, question, answer]))
    output = engine.policy.model(tokens[None], output_hidden_states=True)
    return tokens, len(shared) + len(question), output.logits[0].float(), output.hidden_states[-1][0]


FORMS = {"rationale": RATIONALE, "decision": DECISION, "words": YES_NO, "fork": FORKED}
CASES = [("llama", name, state) for name in FORMS for state in ("decision", "open")]


@pytest.mark.parametrize(
    ("kind", "name", "state"), [*CASES, ("windowed", "rationale", "decision"), ("windowed", "fork", "open")]
)
def test_log_probabilities_and_states_are_those_of_each_sequence_alone(models, dataset, rows, kind, name, state):
    engine, form, temperature = engine_of(models, dataset, kind), FORMS[name], 0.7
    rows = rows[: 2 if kind == "llama" else 1]
    asked = dict(form=form, group_size=2, max_tokens=TOKENS, temperature=temperature, seed=1, states=state)
    answers = engine.questions.rationales(rows, **asked)
    again, states = engine.questions.logps(
        rows, answers, form=form, max_tokens=TOKENS, temperature=temperature, states=state
    )
    torch.testing.assert_close(again.detach(), answers.logps, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(states.detach(), answers.states, atol=1e-5, rtol=1e-5)
    choice = list(engine.policy.prompter.questions.decision(form).choice)
    for number in (0, 3, 7, len(answers) - 1):
        tokens, begin, logits, hidden = plain(engine, rows, answers, form, number)
        place = int((answers.decided if state == "decision" else answers.opened)[number])
        torch.testing.assert_close(answers.states[number], hidden[begin + place].detach(), atol=1e-5, rtol=1e-5)
        decided = int(answers.opened[number]) + 1
        two = logits[begin + decided - 1, choice]
        assert float(answers.log_odds[number]) == pytest.approx((two[0] - two[1]).item(), abs=1e-4)
        expected = torch.zeros(answers.tokens.shape[1])
        for step in torch.nonzero(answers.chosen[number]).flatten().tolist():
            before = logits[begin + step - 1] / temperature
            if step == decided:
                expected[step] = (two / temperature).log_softmax(0)[choice.index(int(tokens[begin + step]))]
            else:
                expected[step] = before.log_softmax(0)[tokens[begin + step]]
        torch.testing.assert_close(answers.logps[number], expected.detach(), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("budget", [32768, 600])
def test_gradients_are_those_of_each_sequence_alone(models, dataset, rows, budget):
    """Of a made-up loss on log-probabilities and states; prompts are shared, and parts fit the token budget."""
    engine = engine_of(models, dataset, token_budget=budget)
    answers = engine.questions.rationales(rows[:2], form=RATIONALE, max_tokens=TOKENS, seed=2)
    random = torch.Generator().manual_seed(0)
    weights = torch.randn(answers.tokens.shape, generator=random)
    direction = torch.randn(16, generator=random)

    def gradients(loss):
        engine.policy.model.zero_grad()
        loss.backward()
        return [parameter.grad.clone() for parameter in engine.policy.model.parameters()]

    logps, states = engine.questions.logps(rows[:2], answers, form=RATIONALE, max_tokens=TOKENS, states="decision")
    ours = gradients((weights * logps).sum() + (states @ direction).sum())
    total = torch.zeros(())
    choice = list(engine.policy.prompter.questions.decision(RATIONALE).choice)
    for number in range(len(answers)):
        tokens, begin, logits, hidden = plain(engine, rows, answers, RATIONALE, number)
        for step in torch.nonzero(answers.chosen[number]).flatten().tolist():
            before, token = logits[begin + step - 1], int(tokens[begin + step])
            deciding = step == int(answers.opened[number]) + 1
            value = before[choice].log_softmax(0)[choice.index(token)] if deciding else before.log_softmax(0)[token]
            total = total + weights[number, step] * value
        total = total + hidden[begin + int(answers.decided[number])] @ direction
    for mine, other in zip(ours, gradients(total), strict=True):
        torch.testing.assert_close(mine, other, atol=1e-5, rtol=1e-4)


def test_greedy_texts_are_those_of_generate(engine, rows):
    answers = engine.questions.rationales(rows[:1], form=RATIONALE, max_tokens=TOKENS, temperature=None)
    for number in range(len(answers)):
        shared, (question,) = engine.policy.prompter.questions.encode(rows[0], [int(answers.items[number])], RATIONALE)
        prompt = torch.from_numpy(np.concatenate([shared, question]))[None]
        written = engine.policy.model.generate(
            prompt, max_new_tokens=TOKENS, do_sample=False, attention_mask=torch.ones_like(prompt), pad_token_id=0
        )[0, prompt.shape[1] :]
        assert answers.tokens[number, : len(written)].tolist() == written.tolist()


def test_an_answer_does_not_depend_on_what_else_is_asked(engine, rows):
    """Reproducible per (seed, epoch, row, candidate, place in the group)."""
    every = engine.questions.rationales(rows, form=RATIONALE, group_size=2, max_tokens=TOKENS, seed=5, epoch=1)
    some = rows[1].candidates[[3, 0]]
    alone = engine.questions.rationales(
        [rows[1]], [some], form=RATIONALE, group_size=2, max_tokens=TOKENS, seed=5, epoch=1
    )
    texts = {
        (int(r), int(i), n % 2): every.texts[n] for n, (r, i) in enumerate(zip(every.rows, every.items, strict=True))
    }
    assert alone.texts == [texts[1, int(item), place] for item in some for place in (0, 1)]
    assert alone.items.tolist() == some.repeat(2).tolist()
    for other in (dict(seed=6, epoch=1), dict(seed=5, epoch=2)):
        again = engine.questions.rationales([rows[1]], [some], form=RATIONALE, group_size=2, max_tokens=TOKENS, **other)
        assert again.texts != alone.texts
    assert len({*every.texts}) > len(every.texts) // 2


@pytest.mark.parametrize("budget", [32768, 700])
def test_candidates_in_another_order_get_the_same_scores(models, dataset, rows, budget):
    engine = engine_of(models, dataset, token_budget=budget)
    order = np.array([2, 0, 4, 1, 3])
    turned = [replace(row, candidates=row.candidates[order]) for row in rows]
    for form in (DECISION, RATIONALE):
        engine.policy.settings["answering"] = asdict(Answering(form, max_tokens=5, state="open"))
        first, second = engine.questions.answers(rows)[0], engine.questions.answers(turned)[0]
        assert first.tolist() == second.tolist()  # of the candidates in ascending order
        some = [np.sort(row.candidates)[order] for row in rows]
        np.testing.assert_allclose(
            engine.questions.answers(rows, some)[0].reshape(3, 5), first.reshape(3, 5)[:, order], atol=1e-5
        )


def test_the_decision_is_constrained_to_its_words_and_the_tag_is_forced_where_it_does_not_come(engine, rows):
    engine.cost.format_failures = 0
    answers = engine.questions.rationales(rows[:2], form=RATIONALE, max_tokens=4, seed=0)
    assert not answers.well_formed.any() and engine.cost.format_failures == len(answers)
    decision = engine.policy.prompter.questions.decision(RATIONALE)
    for number in range(len(answers)):
        tokens = answers.tokens[number, : answers.lengths[number]].tolist()
        end = [*decision.opening, *decision.path(bool(answers.recommended[number]))]
        assert tokens[-len(end) :] == end
        free = len(tokens) - len(end)
        assert free <= 4 and answers.opened[number] == free + len(decision.opening) - 1
        expected = [*range(free), int(answers.opened[number]) + 1]
        assert torch.nonzero(answers.chosen[number]).flatten().tolist() == expected
    assert 0 < answers.recommended.float().mean() < 1


def test_a_tag_is_found_however_its_tokens_cut_it(engine):
    tokenizer = engine.policy.tokenizer
    finder = OpeningFinder(tokenizer, "<answer>")

    def ends(text):
        tokens = tokenizer.encode(text, add_special_tokens=False)
        tail = np.array([([-1] * finder.tail + tokens)[-finder.tail :]])
        return bool(finder.ends(tail[:, -1], tail)[0])

    assert ends("<answer>") and ends("so it is.\n<answer>") and ends("><answer>")
    assert not ends("<answers>") and not ends("answer>") and not ends("<answer") and not ends("<answer> Recommend")


def test_a_tag_that_the_text_writes_opens_the_decision(models, dataset, rows):
    """The free text of a model that has learnt to write nothing but tags comes to a decision by itself."""
    engine = engine_of(models, dataset)
    model, tokenizer = engine.policy.model, engine.policy.tokenizer
    tag = tokenizer.encode("<answer>", add_special_tokens=False)
    follows = dict(zip([None, *tag[:-1]], tag, strict=True))
    last: dict[str, torch.Tensor] = {}
    note = model.get_input_embeddings().register_forward_pre_hook(lambda _, inputs: last.update(tokens=inputs[0][0]))

    def write_tags(module, inputs, logits):
        """After a piece of the tag its next piece, elsewhere its first."""
        wanted = [follows.get(int(token), tag[0]) for token in last["tokens"]]
        bias = torch.zeros(len(wanted), logits.shape[-1])
        bias[torch.arange(len(wanted)), torch.tensor(wanted)] = 1e4
        return logits + bias[-1:] if logits.shape[1] != len(wanted) else logits + bias

    force = model.get_output_embeddings().register_forward_hook(write_tags)
    try:
        answers = engine.questions.rationales(rows[:1], form=RATIONALE, max_tokens=50, seed=0)
    finally:
        note.remove(), force.remove()
    assert answers.well_formed.all() and engine.cost.format_failures == 0
    assert (answers.opened == len(tag) - 1).all()
    decision = engine.policy.prompter.questions.decision(RATIONALE)
    for number, recommended in enumerate(answers.recommended.tolist()):
        written = answers.tokens[number, : answers.lengths[number]].tolist()
        assert written == [*tag, *decision.path(recommended)]
        assert torch.nonzero(answers.chosen[number]).flatten().tolist() == [*range(len(tag) + 1)]
        assert RATIONALE.read(answers.texts[number]) == ("", recommended)


def test_two_logits_alone_make_a_score(engine, rows):
    """What other tokens have changes nothing, nor does a constant added to all."""
    before = engine.questions.word_logits(rows, form=YES_NO)
    head = engine.policy.model.get_output_embeddings()
    choice = list(engine.policy.prompter.questions.decision(YES_NO).choice)
    weight = head.weight.data.clone()
    try:
        others = torch.ones(len(weight), dtype=torch.bool)
        others[choice] = False
        head.weight.data[others] = torch.randn(weight[others].shape)
        torch.testing.assert_close(engine.questions.word_logits(rows, form=YES_NO), before)
        head.weight.data = weight + torch.randn(weight.shape[1])  # adds one number to all logits of a place
        after = engine.questions.word_logits(rows, form=YES_NO)
        torch.testing.assert_close(after[:, 0] - after[:, 1], before[:, 0] - before[:, 1], atol=1e-4, rtol=1e-4)
    finally:
        head.weight.data = weight


def test_words_are_scored_as_the_answers_that_sample_them(engine, rows):
    logits = engine.questions.word_logits(rows, form=DECISION)
    assert engine.cost.forward_passes >= 1
    answers = engine.questions.rationales(rows, form=DECISION)
    torch.testing.assert_close(logits[:, 0] - logits[:, 1], answers.log_odds, atol=1e-5, rtol=1e-5)


def test_a_model_with_a_ranking_head_ranks_by_it(models, dataset, rows):
    engine = engine_of(models, dataset)
    head = engine.policy.attach({RANKING_HEAD: ranking_head})[RANKING_HEAD]
    scores, texts = engine.questions.answers(rows)
    assert (scores == 0).all() and texts is None  # the last layer starts at zero: a uniform ranking distribution
    torch.nn.init.normal_(head[2].weight)
    scores, _ = engine.questions.answers(rows)
    states = engine.questions.rationales(rows, form=DECISION, temperature=None, states="decision").states
    np.testing.assert_allclose(scores, head(states)[:, 0].detach().numpy(), atol=1e-5)
    assert len({*scores.round(6)}) > 1


def test_some_answers_are_scored_as_among_all(engine, rows):
    answers = engine.questions.rationales(rows, form=RATIONALE, max_tokens=TOKENS, seed=4, states="open")
    index = np.array([13, 2, 7])
    some = answers.take(index)
    assert some.texts == [answers.texts[place] for place in index]
    logps, states = engine.questions.logps(
        rows, some, form=RATIONALE, max_tokens=TOKENS, states="open", gradients=False
    )
    torch.testing.assert_close(logps, answers.logps[index], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(states, answers.states[index], atol=1e-5, rtol=1e-5)


def test_the_context_of_a_user_is_encoded_once_for_all_candidates(engine, rows):
    """Tokens that pass through the model: each row's prompt once, each question and answer once."""
    seen = []
    hook = engine.policy.model.get_input_embeddings().register_forward_pre_hook(
        lambda module, inputs: seen.append(inputs[0].numel())
    )
    try:
        answers = engine.questions.rationales(rows, form=RATIONALE, max_tokens=TOKENS, seed=0)
        decoding, seen[:] = sum(seen), []
        engine.questions.logps(rows, answers, form=RATIONALE, max_tokens=TOKENS)
        training = sum(seen)
    finally:
        hook.remove()
    prompts, questions = 0, 0
    for row in rows:
        shared, each = engine.policy.prompter.questions.encode(row, row.candidates, RATIONALE)
        prompts, questions = prompts + len(shared), questions + sum(map(len, each))
    once = prompts + questions + int(answers.lengths.sum())
    assert decoding <= once and training <= once + 50
