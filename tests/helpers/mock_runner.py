"""A model without mathematics, for tests of the engine: it remembers which token read which references in which slot.

Its logits depend on all of that, so an engine that mixes up slots, tokens or memories draws other tokens.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch

from model.engine.engine import Engine, EngineOptions
from model.engine.events import Event, Finished, RecallNeeded, SpanQuery, TokenReady
from model.engine.task import GenerationTask
from model.memory.explicit_memory import ExplicitMemory
from model.plan import MemoryPlan
from model.presets import model_config
from model.runner import PrefillItem, StepOutput

Context = list[tuple[int, tuple[str, ...]]]  # each context token with the references it read


def mock_memory(reference_id: str, head_dim: int = 2) -> ExplicitMemory:
    """The smallest explicit memory; the mock model reads only its name."""
    kv_LKSD = torch.zeros(1, 1, 1, head_dim)
    return ExplicitMemory(kv_LKSD, kv_LKSD, torch.zeros(1, 1, 1, dtype=torch.uint8), 1, reference_id)


class MockRunner:
    """Keeps `Context`s instead of keys and values. `next_token` scripts the most likely token; else it is noise."""

    def __init__(
        self,
        num_slots: int = 4,
        max_context_tokens: int = 2048,
        next_token: Callable[[Context], int] | None = None,
    ) -> None:
        self.num_slots, self.max_context_tokens, self.vocab_size = num_slots, max_context_tokens, 256
        self.config = replace(model_config("tiny"), num_heads=1, num_kv_heads=1, head_dim=2, vocab_size=256)
        self.plan = MemoryPlan("mock", (0,), 1, "attention", "sum", memories_per_chunk=5)
        self.next_token = next_token
        self.contexts: dict[int, Context] = {}
        self.rows: dict[int, tuple[str, ...]] = {}
        self.calls: list[tuple[str, dict[int, int]]] = []
        """Each model call: its kind and the number of tokens by slot."""
        self.before_call: Callable[[str, list[int]], None] = lambda kind, slots: None
        """A test may raise here, in the place of the model."""

    def reset(self, slot: int, *, reads_memories: bool) -> None:
        self.contexts[slot], self.rows[slot] = [], ()

    def set_memories(self, slot: int, memories: Sequence[ExplicitMemory]) -> None:
        self.before_call("set_memories", [slot])
        assert len(memories) <= self.plan.memories_per_chunk
        self.rows[slot] = tuple(memory.reference_id for memory in memories)

    def prefill(self, items: Sequence[PrefillItem], *, report_attention: bool = False) -> StepOutput:
        self.before_call("prefill", [item.slot for item in items])
        self.calls.append(("prefill", {item.slot: len(item.tokens) for item in items}))
        for item in items:
            context = self.contexts[item.slot]
            first_chunk = len(context) // 64
            assert len(item.tokens) > 0
            for token in item.tokens:
                self.set_rows(item, len(context) // 64 - first_chunk)
                context.append((token, self.rows[item.slot]))
            assert len(item.chunk_memories) == (len(context) - 1) // 64 - first_chunk + 1, "chunks off the grid"
        num_chunks = max(len(item.chunk_memories) for item in items)
        return self._output([item.slot for item in items], num_chunks if report_attention else None)

    def set_rows(self, item: PrefillItem, chunk: int) -> None:
        self.rows[item.slot] = tuple(memory.reference_id for memory in item.chunk_memories[chunk])

    def decode(self, slots: Sequence[int], tokens: Sequence[int], *, report_attention: bool = False) -> StepOutput:
        self.before_call("decode", list(slots))
        assert len(set(slots)) == len(slots) > 0
        self.calls.append(("decode", dict.fromkeys(slots, 1)))
        for slot, token in zip(slots, tokens, strict=True):
            self.contexts[slot].append((token, self.rows[slot]))
        return self._output(slots, 1 if report_attention else None)

    def _output(self, slots: Sequence[int], num_chunks: int | None) -> StepOutput:
        assert all(len(self.contexts[slot]) <= self.max_context_tokens for slot in slots)
        logits_BV = torch.stack([mock_logits(self.contexts[slot], self.next_token) for slot in slots])
        if num_chunks is None:
            return StepOutput(logits_BV, None)
        # Share 0.5 for the first memory, 0.25 for the second, ...; the same wherever it is measured.
        shares_M = 0.5 ** torch.arange(1, self.plan.memories_per_chunk + 1)
        return StepOutput(logits_BV, shares_M.expand(len(slots), num_chunks, -1))


def mock_logits(context: Context, next_token: Callable[[Context], int] | None = None) -> torch.Tensor:
    """Noise that depends on every token and every reference read; a scripted token stands out from it."""
    digest = hashlib.sha256(json.dumps(context).encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:7]))
    logits_V = torch.randn(256, generator=generator)
    if next_token is not None:
        logits_V[next_token(context)] += 100.0
    return logits_V


class ByteDetokenizer:
    """Token ids are bytes of UTF-8, special tokens behind them are nothing; incomplete characters are held back."""

    def __init__(self) -> None:
        self._held = b""

    def push(self, token_id: int, /) -> str:
        self._held += bytes([token_id]) if token_id < 256 else b""
        try:
            text = self._held.decode()
        except UnicodeDecodeError as error:
            if error.reason == "unexpected end of data":
                return ""
            text = self._held.decode(errors="replace")
        self._held = b""
        return text

    def flush(self) -> str:
        held, self._held = self._held, b""
        return held.decode(errors="replace")


class Ticks:
    """A clock that a test moves; every look at it takes one nanosecond."""

    def __init__(self) -> None:
        self.now_ns = 0

    def __call__(self) -> int:
        self.now_ns += 1
        return self.now_ns


def mock_engine(runner: MockRunner, clock_ns: Callable[[], int] | None = None, **options: int) -> Engine:
    """An engine on a mock model."""
    return Engine(runner, ByteDetokenizer, clock_ns or Ticks(), EngineOptions(**options))


def mock_recall(sequence_id: str, query: SpanQuery) -> tuple[ExplicitMemory, ...]:
    """Two memories whose names depend on the query."""
    digest = hashlib.sha256(bytes(token % 256 for token in query.query_tokens)).hexdigest()[:8]
    return (mock_memory(f"{digest}-a"), mock_memory(f"{digest}-b"))


def deliver_all(engine: Engine, events: Sequence[Event], recall: Callable[..., tuple[ExplicitMemory, ...]]) -> None:
    """Answers every recall among the events."""
    for event in events:
        if isinstance(event, RecallNeeded):
            for query in event.spans:
                engine.deliver(event.sequence_id, query.span, recall(event.sequence_id, query))


def run_all(
    engine: Engine,
    tasks: Sequence[GenerationTask] = (),
    recall: Callable[..., tuple[ExplicitMemory, ...]] = mock_recall,
    max_steps: int = 20_000,
) -> list[Event]:
    """Adds the tasks and steps until all have ended, delivering at once; all events in order."""
    events: list[Event] = []

    def say(new: list[Event]) -> None:
        events.extend(new)
        deliver_all(engine, new, recall)

    for task in tasks:
        say(engine.add(task))
    for _ in range(max_steps):
        if not engine.has_work:
            return events
        assert not engine.is_stalled
        say(engine.step())
    raise AssertionError(f"the engine still has work after {max_steps} steps")


def tokens_of(events: Sequence[Event], sequence_id: str) -> list[int]:
    """The tokens a sequence generated."""
    ready = [event for event in events if isinstance(event, TokenReady) and event.sequence_id == sequence_id]
    return [token for event in ready for token in event.token_ids]


def text_of(events: Sequence[Event], sequence_id: str) -> str:
    """The text a sequence generated."""
    return "".join(event.text for event in events if isinstance(event, TokenReady) and event.sequence_id == sequence_id)


def finished_of(events: Sequence[Event], sequence_id: str) -> Finished:
    """The end of a sequence; exactly one."""
    (finished,) = (event for event in events if isinstance(event, Finished) and event.sequence_id == sequence_id)
    return finished
