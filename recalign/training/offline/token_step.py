"""The training step of token objectives: answers of the training rows, logits only where a token is learnt."""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from torch.nn.parallel import DistributedDataParallel

from recalign.api import AnswerBatch, Row, TokenObjective, ValidTokens
from recalign.decoding.compatibility import sharing_limit
from recalign.decoding.engine import PolicyEngine
from recalign.decoding.packed_rows import gains_by_packing, pack_rows
from recalign.decoding.scoring import logits_at
from recalign.decoding.shared_attention import shared
from recalign.models.policy import Policy
from recalign.plugins.registry import blamed
from recalign.training.accumulation import Accumulation, weighed_loss
from recalign.training.offline.examples import IGNORED, Example, TokenBatch, collate
from recalign.training.speed import Work


class TokenStep:
    """A token objective as a training step (see `trainer.TrainingStep`): logits only where there is a token to learn.

    Args:
        policy: what is trained.
        objective: the loss.
        engine: knows the valid next tokens, for objectives that read them.
        token_budget: maximum number of tokens per forward and backward pass, padding included.
    """

    runs_wrapped = True

    def __init__(
        self, policy: Policy, objective: TokenObjective, engine: PolicyEngine, token_budget: int = 2**62
    ) -> None:
        self.policy, self.objective, self.engine, self.token_budget = policy, objective, engine, token_budget
        self.work = Work()
        self._surveyed = False

    def begin(self, batches: Sequence[TokenBatch]) -> None:
        """Let an objective that surveys look at the batches of an update; of a single one `accumulate` lets it."""
        parts = [part for batch in batches for part in batch.parts(self.token_budget)]
        self._surveyed = self.objective.needs.survey and len(parts) > 1
        if self._surveyed:
            self.policy.model.eval()  # dropout would draw random numbers, of which an interrupted run does not know
            self._survey(self.answers(self.policy.model, part) for part in parts)

    def accumulate(self, model: torch.nn.Module, batch: TokenBatch, update: Accumulation) -> dict[str, float]:
        """Run a batch's forward and backward passes within the token budget; return the objective's mean figures."""
        parts = batch.parts(self.token_budget)
        figures: dict[str, float] = defaultdict(float)
        for number, part in enumerate(parts):
            self.work.add([example.tokens for example in part.examples], 0)
            # Processes cut their batches into different numbers of parts: gradients are exchanged after the last one.
            last = number + 1 == len(parts) or not isinstance(model, DistributedDataParallel)
            with contextlib.nullcontext() if last else model.no_sync():
                for name, value in self._accumulate(model, part, update).items():
                    figures[name] += value * len(part.examples) / len(batch.examples)
        return dict(figures)

    def _accumulate(self, model: torch.nn.Module, batch: TokenBatch, update: Accumulation) -> dict[str, float]:
        answers = self.answers(model, batch)
        if self.objective.needs.survey and not self._surveyed:
            self._survey([answers])
        loss, weight, figures = weighed_loss(self.objective, answers)
        update.add(loss, weight)
        return figures

    @torch.no_grad()
    def _survey(self, batches: Iterable[AnswerBatch]) -> None:
        with self.work.watch.timing("survey"), blamed("objective", self.objective, "survey"):
            self.objective.survey(batches)

    def answers(self, model: torch.nn.Module, batch: TokenBatch) -> AnswerBatch:
        """Run the model; the labelled tokens come out end to end, row by row."""
        batch = batch.to(self.policy.device)
        logits, labels, rows, hidden = self._run(model, batch)
        without = None
        needs = self.objective.needs
        if needs.without_history:
            bare = [self._without_history(example) for example in batch.examples]
            bare_batch = collate(bare, pad=self.policy.titles.end, all_tokens=False)
            without = self._run(model, bare_batch.to(self.policy.device))[0]
        width = needs.beam_width
        allowed = self._valid_tokens(batch.examples) if needs.valid_tokens or width else None
        return AnswerBatch(
            logits=logits,
            labels=labels,
            rows=rows,
            valid_tokens=allowed,
            logits_without_history=without,
            beam_thresholds=self._beam_thresholds(batch.examples, allowed, width) if width else None,
            hidden=hidden,
        )

    def _run(
        self, model: torch.nn.Module, batch: TokenBatch
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor | None]:
        """Logits [S, V] before the labelled tokens, those tokens [S], their rows [S]; hidden states [S, H] or None."""
        wanted = self.objective.needs.hidden_states
        rows, columns = torch.nonzero(batch.labels != IGNORED, as_tuple=True)
        labels, lines, before = batch.labels[rows, columns], rows, columns - 1  # [S] the places that predict them
        given: dict[str, Any] = {"input_ids": batch.input_ids}
        attention: contextlib.AbstractContextManager[None] = contextlib.nullcontext()
        sequences = [example.tokens[:-1] for example in batch.examples]  # nothing follows the last token
        if self._packs(max(map(len, sequences))):
            packed = pack_rows(sequences, self.policy.device)
            lines, before = torch.zeros_like(rows), packed.places(rows, before)
            given = {"input_ids": packed.tokens[None], "position_ids": packed.positions[None]}
            given["shared_pass"], attention = packed.reading, shared(self.policy.model)
        with attention, logits_at(self.policy.model, lines, before):
            output = model(**given, use_cache=False, **({"output_hidden_states": True} if wanted else {}))
        logits = output.logits
        logits = logits[0] if logits.shape[:2] == (1, len(rows)) else logits[lines, before]
        hidden = output.hidden_states[-1][lines, before] if wanted else None
        return logits.float(), labels, rows, hidden

    def _packs(self, longest: int) -> bool:
        """Whether rows of so many tokens at most are run in one sequence."""
        if self.engine.obstacle or not gains_by_packing(self.policy.model):
            return False
        limit = sharing_limit(self.policy.model)
        return limit is None or longest <= limit.tokens

    def _without_history(self, example: Example) -> Example:
        """Return the same answer after the prompt of a user without history."""
        prompt = self.policy.prompter.encode(example.row.recalling(slice(0)))
        answer = example.tokens[example.prompt :]
        return Example(np.concatenate([prompt, answer]).astype(np.int32), len(prompt), example.row, example.text)

    def _valid_tokens(self, examples: Sequence[Example]) -> ValidTokens:
        """Find where the responses had a choice, and between which tokens; S counts their tokens end to end."""
        if examples[0].row.question is not None:
            return self._words(examples)
        titles, device = self.policy.titles, self.policy.device
        responses = [example.titles.astype(np.int64) for example in examples]
        lengths = np.array([len(response) for response in responses])
        whole = lengths + np.array([example.text for example in examples])
        offsets = np.cumsum(whole) - lengths  # where each row's titles begin
        counts = np.array([len(titles.parse(response)) for response in responses])
        parts: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]] = []
        for count in np.unique(counts):
            members = np.flatnonzero(counts == count)
            tokens = np.full((len(members), int(lengths[members].max())), titles.end, dtype=np.int64)
            for place, member in enumerate(members):
                tokens[place, : lengths[member]] = responses[member]
            excluded = [self._excluded(examples[member].row, int(count)) for member in members]
            known = torch.from_numpy(tokens), torch.from_numpy(lengths[members])
            found = self.engine.replay(*known, excluded, list_length=int(count))
            base = torch.from_numpy(offsets[members]).to(device)
            parts.append((base[found.rows] + found.positions, found.starts.diff(), found.tokens))
        positions, sizes, tokens_ = (torch.cat([part[i] for part in parts]) for i in range(3))
        starts = torch.cat([sizes.new_zeros(1), sizes.cumsum(0)])
        return ValidTokens(positions=positions, starts=starts, tokens=tokens_)

    def _words(self, examples: Sequence[Example]) -> ValidTokens:
        """Find the token of each answer that decides between two words."""
        positions: list[int] = []
        tokens: list[int] = []
        offset = 0
        for example in examples:
            assert example.row.question is not None
            decision = self.policy.prompter.questions.decision(example.row.question.form)
            positions.append(offset + example.text + len(decision.opening) + decision.fork)
            tokens += decision.choice
            offset += len(example.tokens) - example.prompt
        starts = torch.arange(0, 2 * len(examples) + 1, 2)
        found = (torch.tensor(positions), starts, torch.tensor(tokens))
        return ValidTokens(*(part.to(self.policy.device) for part in found))

    def _excluded(self, row: Row, count: int) -> np.ndarray:
        """Items that a row must not be recommended; its first targets are valid even where the history has them."""
        excluded = self.engine.excluded(row)
        return excluded[(excluded[:, None] != row.targets[:count]).all(axis=1)]

    def _beam_thresholds(self, examples: Sequence[Example], valid_tokens: ValidTokens, width: int) -> torch.Tensor:
        """[S] what each answer's prefixes must score to stay in a beam search with the policy as it is now."""
        with self.work.watch.timing("search"):
            search = self.engine.thresholds([example.row for example in examples], width=width)
        thresholds, steps = [], []
        for row, example in enumerate(examples):
            end = len(example.titles) - 1  # the end token competes with all that is decided later, too
            none = torch.zeros(example.text)  # the search knows nothing of free text
            thresholds += [none, search.going[row, :end], search.ending[row, end : end + 1]]
            steps += [none.bool(), search.decided[row, :end], search.decided[row, end:].any()[None]]
        counts = torch.cat(steps)
        counts[valid_tokens.positions.cpu()] = True
        return torch.cat(thresholds).masked_fill(~counts, -torch.inf).float().to(self.policy.device)
