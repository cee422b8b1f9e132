"""A checkpoint under a memory plan: texts in, likelihoods and generated texts out, on the path that serves.

Implements `ports.Model` with the mathematics of `model/`; knows no items, no sets and no services.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial

from model.chat import ChatTemplate, Message
from model.codec.chain import CodecChain
from model.context import ContextOpening, references_as_text
from model.engine.engine import Engine, EngineOptions
from model.engine.events import Event, Finished, FinishReason, RecallNeeded, TokenReady
from model.engine.task import GenerationTask
from model.memory.writer import MemoryWriter
from model.plan import MemoryPlan
from model.runner import ModelRunner
from model.scoring import AnswerScorer, ForcedAnswer, answer_queries
from model.tokenizer import IncrementalDetokenizer, Tokenizer
from model.transformer import Transformer
from services.evaluation.memory_book import MemoryBook
from services.evaluation.ports import Context, Recall, References, ScoredAnswer

_WRITE_BATCH = 16


class MeasuredModel:
    """See `ports.Model`."""

    def __init__(
        self,
        transformer: Transformer,
        tokenizer: Tokenizer,
        plan: MemoryPlan,
        *,
        template: ChatTemplate | None,
        codec: CodecChain,
        fingerprint: str,
        num_slots: int,
        max_context_tokens: int,
        tokens_per_step: int,
        memory_bytes: int,
    ) -> None:
        """`template` None: the model knows no chat. Raises ValueError if plan, codec or context length do not fit."""
        self._tokenizer, self._plan, self._template = tokenizer, plan, template
        self._opening = ContextOpening(tokenizer, plan)
        self._runner = ModelRunner(
            transformer,
            plan,
            prefix_tokens=tokenizer.encode_special(plan.prefix),
            num_slots=num_slots,
            max_context_tokens=max_context_tokens,
        )
        self._scorer = AnswerScorer(self._runner, tokens_per_step=tokens_per_step)
        chunk = plan.query_chunk_tokens
        self._options = EngineOptions(
            prefill_tokens_per_step=max(1, tokens_per_step // chunk) * chunk,
            recall_ahead_tokens=min(EngineOptions().recall_ahead_tokens, chunk - 1),
        )
        self.book = MemoryBook(
            MemoryWriter(transformer, plan, self._runner.prefix, _WRITE_BATCH),
            codec,
            tokenizer,
            fingerprint=fingerprint,
            dtype=transformer.dtype,
            device=transformer.device,
            max_bytes=memory_bytes,
        )

    def cut(self, reference: str) -> str:
        """See `ports.Model`."""
        tokens, offsets = self._tokenizer.encode_with_offsets(reference)
        limit = kept = self._plan.max_reference_tokens
        while len(tokens) > limit:
            # A cut text may have more tokens than it had within the whole one: then it is cut shorter.
            reference = reference[: offsets[kept][0]]
            tokens, offsets = self._tokenizer.encode_with_offsets(reference)
            kept -= 1
        return reference

    def context(self, prompt: str, references: Sequence[str], *, reads_memories: bool) -> Context:
        """See `ports.Model`."""
        opening = self._opening.tokens(reads_memories=reads_memories)
        tokens = (*opening, *self._tokenizer.encode(references_as_text(references) + prompt))
        num_content = len(self._tokenizer.encode(prompt))
        is_content = (*[False] * (len(tokens) - num_content), *[True] * num_content)
        return Context(tokens, is_content, reads_memories)

    def chat(self, question: str, references: Sequence[str], *, reads_memories: bool) -> Context | None:
        """See `ports.Model`."""
        if self._template is None:
            return None
        opening = self._opening.tokens(reads_memories=reads_memories)
        asked = self._template.render([Message("user", question)])
        # References stand before the question and ask for nothing.
        rendered = self._template.render([Message("user", references_as_text(references) + question)])
        num_references = len(rendered.tokens) - len(asked.tokens)
        is_content = (*[False] * (len(opening) + num_references), *asked.is_content)
        return Context((*opening, *rendered.tokens), is_content, reads_memories)

    def queries(self, context: Context, answer: str) -> list[str | None]:
        """See `ports.Model`."""
        queries = answer_queries(
            context.tokens,
            context.is_content,
            self._tokenizer.encode(answer),
            chunk_tokens=self._plan.query_chunk_tokens,
            recall_ahead_tokens=self._options.recall_ahead_tokens,
        )
        return [None if query is None else self._query(query) for query in queries]

    def score(self, contexts: Sequence[tuple[Context, str, Sequence[References] | None]]) -> list[ScoredAnswer]:
        """See `ports.Model`."""
        memories = self.book.memories(one for _, _, spans in contexts for span in spans or () for one in span)
        forced = [
            ForcedAnswer(
                context.tokens,
                tuple(self._tokenizer.encode(answer)),
                None if spans is None else tuple(tuple(memories[one] for one in span) for span in spans),
            )
            for context, answer, spans in contexts
        ]
        return [ScoredAnswer(score.nll, all(score.is_greedy)) for score in self._scorer.score(forced)]

    def generate(self, contexts: Sequence[Context], recall: Recall, max_tokens: int) -> list[str]:
        """See `ports.Model`. Raises what the model raised."""
        texts = [""] * len(contexts)
        engine = Engine(
            self._runner, partial(IncrementalDetokenizer, self._tokenizer), time.monotonic_ns, self._options
        )
        events: list[Event] = []
        for index, context in enumerate(contexts):
            task = GenerationTask(
                str(index),
                context.tokens,
                context.is_content,
                max_tokens,
                reads_memories=context.reads_memories,
                eos_token_ids=frozenset(self._tokenizer.eos_token_ids),
            )
            events += engine.add(task)
        while events or engine.has_work:
            for event in events:
                match event:
                    case RecallNeeded():
                        self._recall(engine, event, recall)
                    case TokenReady():
                        texts[int(event.sequence_id)] += event.text
                    case Finished(reason=FinishReason.ERROR, error=Exception() as error):
                        raise error
            events = engine.step()
        # A model may begin a new line first; what follows the line with the answer is no answer any more.
        return [text.strip().partition("\n")[0] for text in texts]

    def _recall(self, engine: Engine, needed: RecallNeeded, recall: Recall) -> None:
        found = recall(int(needed.sequence_id), [self._query(span.query_tokens) for span in needed.spans])
        memories = self.book.memories(one for references in found for one in references)
        for span, references in zip(needed.spans, found, strict=True):
            engine.deliver(needed.sequence_id, span.span, tuple(memories[one] for one in references))

    def _query(self, tokens: Sequence[int]) -> str:
        # A chunk may begin or end inside a character.
        return self._tokenizer.decode(tokens).strip("\ufffd")
