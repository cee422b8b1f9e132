"""How likely given answers are, read as serving would have read them while it generated: through the `ModelRunner`.

    context     | prompt chunk 0 | prompt chunk 1 | partial |  64 of the answer |  64 of the answer  | ...
    span        |       0        |       1        |    2    |    (reads on 2)    |         3          |

Prompt chunks lie on the grid of query chunks and read their own memories; the answer reads on what the last of them
read, and every 64 tokens what was recalled with the tokens before (`model.engine.spans`). All tokens of a span run at
once, which is all that differs from generating. Knows no text and recalls nothing.

Shape letters: B logits wanted, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from model.engine.query import generated_query, prompt_queries
from model.memory.explicit_memory import ExplicitMemory
from model.runner import ModelRunner, PrefillItem

Memories = Sequence[ExplicitMemory]


def answer_queries(
    context: Sequence[int],
    is_content: Sequence[bool],
    answer: Sequence[int],
    *,
    chunk_tokens: int,
    recall_ahead_tokens: int,
) -> list[tuple[int, ...] | None]:
    """The query of each span that reads memories of its own, in order; None for a span that reads on.

    `is_content` marks the context tokens that may ask; `recall_ahead_tokens` is the engine's.
    """
    queries = prompt_queries(context, is_content, chunk_tokens)
    # The last token of an answer never runs: a span that would hold nothing else is not asked for.
    for boundary in range(chunk_tokens, len(answer) - 1, chunk_tokens):
        known = answer[: boundary - recall_ahead_tokens]
        queries.append(generated_query(context, is_content, known, chunk_tokens))
    return queries


@dataclass(frozen=True)
class ForcedAnswer:
    """An answer whose likelihood is wanted."""

    context: tuple[int, ...]
    """Tokens before the answer, opening included, prefix not; at least one."""
    answer: tuple[int, ...]
    """At least one token."""
    span_memories: tuple[Memories, ...] | None
    """What each span of `answer_queries` reads, or one entry that all spans read; None: the context reads no memories
    and stands right behind the prefix."""


@dataclass(frozen=True)
class AnswerScore:
    """One number for each token of the answer."""

    nll: tuple[float, ...]
    """Negative log-likelihood, nats."""
    is_greedy: tuple[bool, ...]
    """Whether it is the most likely token; true for all: greedy generation gives exactly this answer."""


class AnswerScorer:
    """Scores answers on one runner, whose slots it uses from 0 on."""

    def __init__(self, runner: ModelRunner, *, tokens_per_step: int = 2048, logits_per_step: int = 512) -> None:
        """Bounds of one step's working memory; an answer that exceeds one alone still runs, alone."""
        self._runner = runner
        self._tokens_per_step, self._logits_per_step = tokens_per_step, logits_per_step

    @torch.inference_mode()
    def score(self, answers: Sequence[ForcedAnswer]) -> list[AnswerScore]:
        """One score for each answer, in order; answers that differ only in their last token are run once.

        Raises ValueError, as the runner does, if a context does not fit a slot or memories do not fit the plan.
        """
        runs: dict[tuple[object, ...], _Run] = {}
        members = []
        for answer in answers:
            run = runs.setdefault(_key(answer), _Run(answer.context, answer.answer[:-1], answer.span_memories))
            members.append((run, len(run.answers)))
            run.answers.append(answer.answer)
            run.scores.append(([], []))
        # Of like length side by side: attention is padded to the longest of a batch.
        for batch in self._batches(sorted(runs.values(), key=lambda run: len(run.context) + len(run.forced))):
            self._run(batch)
        scores = [run.scores[place] for run, place in members]
        return [AnswerScore(tuple(nll), tuple(is_greedy)) for nll, is_greedy in scores]

    def _batches(self, runs: Sequence[_Run]) -> Iterator[list[_Run]]:
        batch: list[_Run] = []
        for run in runs:
            full = [*batch, run]
            num_tokens = sum(len(one.context) + len(one.forced) for one in full)
            num_logits = sum(len(one.forced) + 1 for one in full)
            if batch and (
                len(full) > self._runner.num_slots
                or num_tokens > self._tokens_per_step
                or num_logits > self._logits_per_step
            ):
                yield batch
                batch = []
            batch.append(run)
        if batch:
            yield batch

    def _run(self, batch: Sequence[_Run]) -> None:
        """Span after span; runs whose answers are shorter fall out."""
        for slot, run in enumerate(batch):
            self._runner.reset(slot, reads_memories=run.span_memories is not None)
        waiting = [(slot, run, run.pieces(self._runner.plan.query_chunk_tokens)) for slot, run in enumerate(batch)]
        while waiting:
            items, owners, still = [], [], []
            for slot, run, pieces in waiting:
                piece = next(pieces, None)
                if piece is not None:
                    items.append(PrefillItem(slot, *piece))
                    owners.append(run)
                    still.append((slot, run, pieces))
            waiting = still
            if items:
                logits_BV = self._runner.prefill(items).logits_BV
                for run, rows_BV in zip(owners, logits_BV.split([item.num_logits for item in items]), strict=True):
                    run.take(rows_BV)


@dataclass
class _Run:
    """One token sequence to run, and the answers that are read off it."""

    context: tuple[int, ...]
    forced: tuple[int, ...]
    """The answer without its last token."""
    span_memories: tuple[Memories, ...] | None
    answers: list[tuple[int, ...]] = field(default_factory=list)
    scores: list[tuple[list[float], list[bool]]] = field(default_factory=list)

    def pieces(self, chunk_tokens: int) -> Iterator[tuple[tuple[int, ...], list[Memories], int]]:
        """Tokens, memories of the chunks they touch, and logits wanted, for one prefill after the other."""
        num_context = len(self.context)
        if self.span_memories is None:
            tokens = self.context + self.forced
            yield tokens, [()] * -(-len(tokens) // chunk_tokens), len(self.forced) + 1
            return
        num_prompt_spans = -(-num_context // chunk_tokens)
        spans = [self._memories(span) for span in range(num_prompt_spans)]
        head = self.forced[:chunk_tokens]
        num_chunks = -(-(num_context + len(head)) // chunk_tokens)
        yield self.context + head, spans + [spans[-1]] * (num_chunks - num_prompt_spans), len(head) + 1
        for index, start in enumerate(range(chunk_tokens, len(self.forced), chunk_tokens)):
            tokens = self.forced[start : start + chunk_tokens]
            first = num_context + start
            num_chunks = (first + len(tokens) - 1) // chunk_tokens - first // chunk_tokens + 1
            yield tokens, [self._memories(num_prompt_spans + index)] * num_chunks, len(tokens)

    def _memories(self, span: int) -> Memories:
        assert self.span_memories is not None
        return self.span_memories[0] if len(self.span_memories) == 1 else self.span_memories[span]

    def take(self, rows_BV: Tensor) -> None:
        """The next logits, one row for each token of the answers that they foretell."""
        log_total_B, best_B = rows_BV.logsumexp(dim=-1), rows_BV.argmax(dim=-1)
        for answer, (nll, is_greedy) in zip(self.answers, self.scores, strict=True):
            targets_B = torch.tensor(answer[len(nll) : len(nll) + len(rows_BV)], device=rows_BV.device)
            nll.extend((log_total_B - rows_BV.gather(1, targets_B[:, None])[:, 0]).tolist())
            is_greedy.extend((best_B == targets_B).tolist())


def _key(answer: ForcedAnswer) -> tuple[object, ...]:
    memories = answer.span_memories
    read = None if memories is None else tuple(tuple(map(id, span)) for span in memories)
    return (answer.context, answer.answer[:-1], read)
