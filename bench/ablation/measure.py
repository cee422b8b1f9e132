"""Items through the model under every variation, on the path that serves, memories written once for many of them."""

from __future__ import annotations

import gc
import hashlib
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from bench.ablation.reading import VariedReader, writer
from bench.ablation.results import Cell, Results, Subject
from bench.ablation.variations import Variation
from model.context import ContextOpening, references_as_text
from model.memory.explicit_memory import ExplicitMemory
from model.memory.writer import MemoryWriter
from model.plan import MemoryPlan
from model.runner import ModelRunner
from model.scoring import AnswerScore, AnswerScorer, ForcedAnswer
from model.tokenizer import Tokenizer
from model.transformer import Transformer
from services.datasets.item import Item, Passage

NUM_SLOTS = 8
BLOCK_ITEMS = 8
"""Items whose memories of all layers are held at once: half a gigabyte for SmolLM2-135M at 32 tokens."""
_MARGIN_TOKENS = 8


@dataclass(frozen=True)
class Model:
    """Weights with their tokenizer."""

    transformer: Transformer
    tokenizer: Tokenizer


@dataclass(frozen=True)
class _Cell:
    """What is measured at once."""

    key: str
    variation: Variation
    is_wrong: bool = False


def sample_of(items: Sequence[Item]) -> str:
    """A digest of what the items say; what precedes references is not in it, being cut from the same documents."""
    return hashlib.sha256(repr(list(items)).encode()).hexdigest()[:16]


def picked(item: Item, count: int) -> tuple[Passage, ...]:
    """`count` of an item's references, in their order: those that hold the answer first of all, then the others.

    Of several that hold it the last come first: a text is gone on with from what stands directly before it.
    """
    first = [*reversed(item.gold), *(index for index in range(len(item.references)) if index not in item.gold)]
    passages = item.passages
    return tuple(passages[index] for index in sorted(first[:count]))


class Ablation:
    """One subject on the items of one set."""

    def __init__(
        self,
        model: Model,
        default: MemoryPlan,
        items: Sequence[Item],
        *,
        results: Results,
        subject: Subject,
        set_name: str,
        done: Callable[[str], None] = lambda key: None,
    ) -> None:
        """`done(key)` is told of every cell measured now."""
        self._model, self._default, self._items = model, default, items
        self._results, self._subject, self._set_name, self._done = results, subject, set_name, done
        self._sample = sample_of(items)
        self._tokens: dict[str, list[int]] = {}

    def run(self, variations: Iterable[Variation]) -> None:
        """Measure what is not measured yet: the baselines, then the variations, those of one writing together."""
        for mode in ("none", "rag"):
            if not self._is_known(mode):
                began = time.monotonic()
                self._add(mode, self._text(mode), time.monotonic() - began)
        served = Variation(self._default)
        wanted = {"memory-wrong": _Cell("memory-wrong", served, is_wrong=True)}
        wanted |= {variation.key: _Cell(variation.key, variation) for variation in (served, *variations)}
        groups: dict[str, list[_Cell]] = defaultdict(list)
        for cell in wanted.values():
            if not self._is_known(cell.key):
                groups[cell.variation.writing_key].append(cell)
        for group in groups.values():
            self._group(group)
            gc.collect()

    def _is_known(self, key: str) -> bool:
        return self._results.has(self._subject, self._set_name, key, self._sample)

    def _text(self, mode: str) -> list[AnswerScore]:
        """The baselines that read no memories."""
        plan, tokenizer = self._default, self._model.tokenizer
        opening = ContextOpening(tokenizer, plan).tokens(reads_memories=False)
        forced = []
        for item in self._items:
            read = picked(item, plan.memories_per_chunk) if mode == "rag" else ()
            text = references_as_text([passage.text for passage in read]) + item.prompt
            context = (*opening, *tokenizer.encode(text))
            forced.append(ForcedAnswer(context, tuple(tokenizer.encode(item.answer)), None))
        runner = ModelRunner(
            self._model.transformer,
            plan,
            prefix_tokens=tokenizer.encode_special(plan.prefix),
            num_slots=NUM_SLOTS,
            max_context_tokens=max(len(one.context) + len(one.answer) for one in forced) + _MARGIN_TOKENS,
        )
        return AnswerScorer(runner).score(forced)

    def _group(self, cells: Sequence[_Cell]) -> None:
        """Cells that read the same written memories, a block of items after the other."""
        scores: dict[str, list[AnswerScore]] = {cell.key: [] for cell in cells}
        seconds = dict.fromkeys(scores, 0.0)
        written = writer(self._model.transformer, self._model.tokenizer, cells[0].variation)
        for start in range(0, len(self._items), BLOCK_ITEMS):
            block = self._items[start : start + BLOCK_ITEMS]
            passages = sorted({one for cell in cells for item in block for one in self._references(item, cell)})
            began = time.monotonic()
            memories = dict(zip(passages, self._written(written, passages), strict=True))
            writing = (time.monotonic() - began) / len(cells)
            for cell in cells:
                began = time.monotonic()
                scores[cell.key] += self._read(block, cell, memories)
                seconds[cell.key] += time.monotonic() - began + writing
        for cell in cells:
            self._add(cell.key, scores[cell.key], seconds[cell.key])

    def _written(self, writer: MemoryWriter, passages: Sequence[Passage]) -> list[ExplicitMemory]:
        limit = self._default.max_reference_tokens
        return writer.write(
            [self._encoded(one.text)[:limit] for one in passages],
            preceding=[self._encoded(one.preceding) for one in passages],
        )

    def _read(self, block: Sequence[Item], cell: _Cell, written: Mapping[Passage, ExplicitMemory]) -> list[AnswerScore]:
        variation, tokenizer = cell.variation, self._model.tokenizer
        opening = ContextOpening(tokenizer, variation.plan).tokens(reads_memories=True)
        contexts = [(*opening, *tokenizer.encode(item.prompt)) for item in block]
        answers = [tuple(tokenizer.encode(item.answer)) for item in block]
        room = max(len(context) + len(answer) for context, answer in zip(contexts, answers, strict=True))
        reader = VariedReader(
            self._model.transformer, tokenizer, variation, num_slots=NUM_SLOTS, room=room + _MARGIN_TOKENS
        )
        forced = []
        for item, context, answer in zip(block, contexts, answers, strict=True):
            memories = reader.memories([written[passage] for passage in self._references(item, cell)])
            forced.append(ForcedAnswer(context, answer, (memories,)))
        return AnswerScorer(reader).score(forced)

    def _references(self, item: Item, cell: _Cell) -> tuple[Passage, ...]:
        count = cell.variation.plan.memories_per_chunk
        return item.wrong_passages[:count] if cell.is_wrong else picked(item, count)

    def _encoded(self, text: str) -> list[int]:
        if text not in self._tokens:
            self._tokens[text] = self._model.tokenizer.encode(text)
        return self._tokens[text]

    def _add(self, key: str, scores: Sequence[AnswerScore], seconds: float) -> None:
        nll = [sum(score.nll) / len(score.nll) for score in scores]
        greedy = [all(score.is_greedy) for score in scores]
        subject = self._subject
        self._results.add(
            Cell(subject.key, self._set_name, key, nll, greedy, round(seconds, 1), self._sample, subject.heading)
        )
        self._done(key)
