"""A config -> what its steps run, and what is measured on the way. Reads the sets, knows no files of a run."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from model.plan import MemoryPlan
from model.tokenizer import Tokenizer
from model.training.step import TrainingStep
from services.datasets import registry
from services.datasets.item import DatasetError, Item, Split
from services.training.assembly import Assembled
from services.training.config import TrainingConfig
from services.training.examples import ExampleBuilder
from services.training.held_out import HeldOut, HeldOutSequences, load_sets
from services.training.ports import BatchSource
from services.training.sequences import Sequences, SequenceSource, cut_references, cut_sequences, find_references
from services.training.sources import MixedSource, load_pool

Measure = Callable[[], Mapping[str, float]]


class Texts:
    """The items of a run, read before a model is loaded, so that a missing set shows at once."""

    def __init__(self, config: TrainingConfig) -> None:
        """Raises DatasetError."""
        seed, references = config.seed, config.batch.references
        self._config = config
        self._pools = [load_pool(source, seed=seed, references=references) for source in config.sources]
        self._held_out: Mapping[str, list[Item]] = {}
        if config.sequences is None:
            self._held_out = load_sets(config.evaluation, seed=seed, references=references)

    def source(self, model: Assembled) -> BatchSource:
        """What each step runs."""
        config = self._config
        if config.sequences is not None:
            return self._sequences(model, "train", config.sequences.documents)
        builder = ExampleBuilder(model.tokenizer, model.plan, config.losses, model.template)
        return MixedSource(config, builder, self._pools, model.tokens_per_memory)

    def measure(self, model: Assembled, step_module: TrainingStep) -> Measure | None:
        """What is measured on the way; None if nothing is."""
        items, sequences = self._config.evaluation.items, self._config.sequences
        if not items:
            return None
        if sequences is not None:
            source = self._sequences(model, "held-out", max(items, sequences.documents // 4))
            return HeldOutSequences(step_module, source, min(items, source.num_sequences))
        builder = ExampleBuilder(model.tokenizer, model.plan)
        return HeldOut(step_module, builder, self._held_out, model.tokens_per_memory)

    def _sequences(self, model: Assembled, split: Split, documents: int) -> SequenceSource:
        config = self._config
        assert config.sequences is not None
        data = text_sequences(
            model.tokenizer,
            model.plan,
            model.transformer.config.vocab_size,
            split,
            documents=documents,
            length=config.sequences.tokens,
            seed=config.seed,
        )
        return SequenceSource(
            data,
            model.plan,
            items=config.batch.items,
            accumulation=config.batch.accumulation,
            seed=config.seed,
            memories_from=0 if config.stage == "memory" else None,
        )


def text_sequences(
    tokenizer: Tokenizer, plan: MemoryPlan, vocab_size: int, split: Split, *, documents: int, length: int, seed: int
) -> Sequences:
    """Running text of a split as sequences with their references. Raises DatasetError."""
    texts = [" ".join(pieces) for pieces in registry.text_chunks(split, seed)[:documents]]
    encoded = [tokenizer.encode(text) for text in texts]
    sequences = cut_sequences(encoded, length, tokenizer.encode("\n\n"))
    if not sequences:
        raise DatasetError(
            f"{documents} documents of running text are shorter than one sequence of {length} tokens; give more of them"
        )
    references = cut_references(encoded, plan.max_reference_tokens)
    return find_references(sequences, references, plan, vocab_size)
