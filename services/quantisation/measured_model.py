"""The model of a training of a codebook: settings -> weights, adapter merged, under a plan."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from model.adapter import PLAN_FILE, adapter_digest, adapter_plan, merge_adapter
from model.checkpoint import load_transformer, read_config, weights_digest
from model.codec.codebook import Codebook, CodebookOrigin
from model.codec.resolve import codebook_origin
from model.context import ContextOpening
from model.directory import locate_adapter, locate_model
from model.plan import MemoryPlan
from model.plan_file import read_plan
from model.quantisation.gain import mean_nll
from model.quantisation.sensitivity import Sensitivity, measure_sensitivity
from model.token_scorer import find_token_scorer
from model.tokenizer import Tokenizer
from model.training.batch import Batch, Context
from services.common.processor import native_dtype
from services.quantisation.config import QuantisationSettings
from services.quantisation.exercises import Exercise, Task
from services.quantisation.ports import Progress

_UNSCORED = 2
"""First tokens of a text that is said again: before them nothing tells which memory is meant."""
_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


class MeasuredModel:
    """Implements `services.quantisation.ports.Model`. Raises ValueError or OSError if the parts do not fit."""

    def __init__(self, settings: QuantisationSettings, plan: str | None, tokens_per_memory: int | None) -> None:
        """`plan` and `tokens_per_memory` go before what settings and adapter say; None leaves it."""
        if settings.torch_threads:
            torch.set_num_threads(settings.torch_threads)
        directory = locate_model(settings.model, settings.cache_dir)
        adapter = locate_adapter(settings.adapter, settings.model)
        config = read_config(directory)
        self.plan = _plan(plan, adapter, settings.plan)
        if tokens_per_memory is not None:
            self.plan = replace(self.plan, tokens_per_memory=tokens_per_memory)
        self.plan.validate(config)
        self._tokenizer = Tokenizer.load(directory)
        self._prefix_tokens = self._tokenizer.encode_special(self.plan.prefix)
        weights = weights_digest(directory) + ("" if adapter is None else f"+{adapter_digest(adapter)}")
        self._origin = codebook_origin(self.plan, config, weights=weights, num_prefix_tokens=len(self._prefix_tokens))
        dtype = native_dtype() if settings.dtype == "auto" else settings.dtype
        self._opening = ContextOpening(self._tokenizer, self.plan).tokens(reads_memories=True)
        device = settings.device
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        self._transformer = load_transformer(directory, _DTYPES[dtype], device)
        if adapter is not None:
            merge_adapter(self._transformer, adapter)
        self._transformer.token_scorer = find_token_scorer(self.plan, config, adapter)
        self._transformer.requires_grad_(False)
        self._batch_size = settings.batch_size

    @property
    def origin(self) -> CodebookOrigin:
        return self._origin

    @property
    def head_dim(self) -> int:
        return self._transformer.config.head_dim

    @property
    def memories_per_chunk(self) -> int:
        return self.plan.memories_per_chunk

    def measure(self, exercises: Sequence[Exercise], progress: Progress) -> Sensitivity:
        """See `Model`."""
        batches = self._batches(exercises)
        return measure_sensitivity(self._transformer, self.plan, self._prefix_tokens, batches, progress)

    def nll(
        self, exercises: Sequence[Exercise], codebooks: Sequence[Codebook | None], progress: Progress
    ) -> list[float]:
        """See `Model`."""
        batches = self._batches(exercises)
        return mean_nll(self._transformer, self.plan, self._prefix_tokens, batches, codebooks, progress)

    def _batches(self, exercises: Sequence[Exercise]) -> list[Batch]:
        at_once = max(1, self._batch_size // self.plan.memories_per_chunk)
        return [self._batch(exercises[start : start + at_once]) for start in range(0, len(exercises), at_once)]

    def _batch(self, exercises: Sequence[Exercise]) -> Batch:
        limit = self.plan.max_reference_tokens
        references: list[tuple[int, ...]] = []
        contexts: list[Context] = []
        for exercise in exercises:
            first = len(references)
            references += [tuple(self._tokenizer.encode(text)[:limit]) for text in exercise.references]
            read = tuple(range(first, len(references)))
            contexts += [self._context(task, read) for task in exercise.tasks]
        return Batch(tuple(references), tuple(contexts), self.plan.tokens_per_memory)

    def _context(self, task: Task, read: tuple[int, ...]) -> Context:
        """A text that is said again fills one query chunk at most."""
        before = (*self._opening, *self._tokenizer.encode(task.prompt))
        answer = self._tokenizer.encode(task.answer)
        if not task.prompt:
            answer = answer[: self.plan.query_chunk_tokens - len(before)]
        num_scored = len(answer) if task.prompt else max(1, len(answer) - _UNSCORED)
        tokens = (*before, *answer)
        num_chunks = -(-len(tokens) // self.plan.query_chunk_tokens)
        return Context(tokens, num_scored, chunk_references=(read,) * num_chunks)


def _plan(asked: str | None, adapter: Path | None, default: str) -> MemoryPlan:
    """The one that is asked for; else the one the adapter was trained under, if it brings one; else the default."""
    if asked is not None:
        return read_plan(asked)
    if adapter is not None and (adapter / PLAN_FILE).is_file():
        return adapter_plan(adapter)
    return read_plan(default)
