"""Memories read at other positions and with other sinks, held against the naive twin."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from bench.ablation.reading import VariedReader, shifted, writer
from bench.ablation.variations import Value, Variation, axes
from model.memory.explicit_memory import ExplicitMemory
from model.memory.writer import MemoryWriter
from model.naive import naive_logits, naive_write, rotated
from model.runner import ModelRunner, PrefillItem
from model.tokenizer import Tokenizer
from model.transformer import Transformer
from tests.helpers.tiny_model import BOS, random_tokens, tiny_model_directory, tiny_plan, tiny_transformer

PLAN = tiny_plan(max_reference_tokens=24)
LENGTHS = (9, 24, 4)
CONTEXT = random_tokens(7, seed=99)


@pytest.fixture(scope="module")
def transformer() -> Transformer:
    return tiny_transformer()


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return Tokenizer.load(tiny_model_directory(tmp_path_factory.mktemp("model")))


def references() -> list[list[int]]:
    return [random_tokens(length, seed) for seed, length in enumerate(LENGTHS)]


def read(transformer: Transformer, tokenizer: Tokenizer, variation: Variation, context: list[int]) -> torch.Tensor:
    """Logits after the context, by the way under test."""
    reader = VariedReader(transformer, tokenizer, variation, num_slots=2, room=32)
    memories = reader.memories(writer(transformer, tokenizer, variation).write(references()))
    reader.reset(1, reads_memories=True)
    return reader.prefill([PrefillItem(1, context, [memories])]).logits_BV[0]


def naive(
    transformer: Transformer, memories: list[ExplicitMemory], context: list[int], position: int, prefix: tuple[int, ...]
) -> torch.Tensor:
    return naive_logits(
        transformer, PLAN, prefix, context, [memories] * len(context), context_position=position
    )[-1].float()  # fmt: skip


def naive_shifted(memory: ExplicitMemory, by: int, theta: float) -> ExplicitMemory:
    """Every key turned by the naive twin's own rotation."""
    keys = torch.stack([rotated(key.double(), by, theta) for key in memory.k_LKSD.flatten(0, 2)])
    return replace(memory, k_LKSD=keys.view(memory.k_LKSD.shape), v_LKSD=memory.v_LKSD.double())


def assert_equal(fast: torch.Tensor, slow: torch.Tensor) -> None:
    torch.testing.assert_close(fast, slow, atol=5e-4, rtol=1e-3)


def test_as_served_is_the_runner_itself(transformer: Transformer, tokenizer: Tokenizer) -> None:
    runner = ModelRunner(transformer, PLAN, prefix_tokens=[BOS], num_slots=1, max_context_tokens=32)
    memories = MemoryWriter(transformer, PLAN, runner.prefix).write(references())
    runner.reset(0, reads_memories=True)
    served = runner.prefill([PrefillItem(0, CONTEXT, [memories])]).logits_BV[0]
    assert_equal(read(transformer, tokenizer, Variation(PLAN), CONTEXT), served)


@pytest.mark.parametrize("by", [0, 1, -3, 40])
def test_a_shifted_memory_is_that_of_a_reference_further_on(transformer: Transformer, by: int) -> None:
    theta = transformer.config.rope_theta
    memory = naive_write(transformer, PLAN, [BOS], references()[0])
    torch.testing.assert_close(shifted(memory, by, theta).k_LKSD, naive_shifted(memory, by, theta).k_LKSD)
    torch.testing.assert_close(shifted(memory, by, theta).v_LKSD, memory.v_LKSD)


def test_positions(transformer: Transformer, tokenizer: Tokenizer) -> None:
    theta = transformer.config.rope_theta
    written = [naive_write(transformer, PLAN, [BOS], tokens) for tokens in references()]
    aligned = [naive_shifted(memory, 24 - memory.num_reference_tokens, theta) for memory in written]
    fast = read(transformer, tokenizer, Variation(PLAN, positions="right-aligned"), CONTEXT)
    assert_equal(fast, naive(transformer, aligned, CONTEXT, 1 + 24, (BOS,)))
    behind = [naive_shifted(memory, by, theta) for memory, by in zip(written, (0, 9, 33), strict=True)]
    fast = read(transformer, tokenizer, Variation(PLAN, positions="sequential", gap=None), CONTEXT)
    assert_equal(fast, naive(transformer, behind, CONTEXT, 1 + 37, (BOS,)))


@pytest.mark.parametrize(("gap", "position"), [(None, 1 + 24), (0, 1 + 24), (10, 1 + 34), (500, 1 + 524)])
def test_gaps(transformer: Transformer, tokenizer: Tokenizer, gap: int | None, position: int) -> None:
    written = [naive_write(transformer, PLAN, [BOS], tokens) for tokens in references()]
    fast = read(transformer, tokenizer, Variation(PLAN, gap=gap), CONTEXT)
    assert_equal(fast, naive(transformer, written, CONTEXT, position, (BOS,)))


def test_sinks(transformer: Transformer, tokenizer: Tokenizer) -> None:
    theta = transformer.config.rope_theta
    bare = [naive_write(transformer, PLAN, [], tokens) for tokens in references()]
    fast = read(transformer, tokenizer, Variation(PLAN, sink="none"), CONTEXT)
    assert_equal(fast, naive(transformer, bare, CONTEXT, 24, ()))
    moved = [naive_shifted(memory, 1, theta) for memory in bare]
    fast = read(transformer, tokenizer, Variation(PLAN, sink="references without"), CONTEXT)
    assert_equal(fast, naive(transformer, moved, CONTEXT, 1 + 24, (BOS,)))
    written = [naive_write(transformer, PLAN, [BOS], tokens) for tokens in references()]
    behind = [BOS, *CONTEXT]
    fast = read(transformer, tokenizer, Variation(PLAN, sink="behind memories only"), behind)
    assert_equal(fast, naive(transformer, written, behind, 1 + 24, ()))


def test_a_prefix_that_is_kept_is_the_prefix_once_more_for_each_memory(
    transformer: Transformer, tokenizer: Tokenizer
) -> None:
    """A prefix alone, written as a reference without prefix, has the keys and values that a kept prefix has."""
    all_tokens = replace(PLAN, tokens_per_memory=24)
    prefix = naive_write(transformer, PLAN, [], [BOS])
    written = [naive_write(transformer, all_tokens, [BOS], tokens) for tokens in references()]
    slow = naive(transformer, [memory for one in written for memory in (prefix, one)], CONTEXT, 1 + 24, (BOS,))
    assert_equal(read(transformer, tokenizer, Variation(all_tokens, sink="in every memory"), CONTEXT), slow)


class TestAxes:
    def values(self) -> dict[str, tuple[Value, ...]]:
        return axes(tiny_plan(memory_layers=(2, 3), tokens_per_memory=6), 4)

    def test_each_has_the_default_once_and_no_value_twice(self) -> None:
        for name, values in self.values().items():
            assert [value.is_default for value in values].count(True) == 1, name
            assert len({value.variation.key for value in values}) == len(values), name
            assert len({value.label for value in values}) == len(values), name

    def test_one_field_is_moved_at_a_time(self) -> None:
        default = Variation(tiny_plan(memory_layers=(2, 3), tokens_per_memory=6))
        for value in self.values()["tokens"]:
            assert replace(value.variation.plan, tokens_per_memory=6) == default.plan
        assert [value.variation.plan.memories_per_chunk for value in self.values()["memories"]][-1] == 10

    def test_every_value_fits_a_runner(self, transformer: Transformer, tokenizer: Tokenizer) -> None:
        for values in self.values().values():
            for value in values:
                VariedReader(transformer, tokenizer, value.variation, num_slots=1, room=8)

    def test_layers_share_one_writing(self) -> None:
        found = self.values()
        assert (
            len({value.variation.writing_key for name in ("layers", "memories", "gap") for value in found[name]}) == 1
        )
        assert len({value.variation.writing_key for value in found["selection"]}) == len(found["selection"])


def test_the_default_may_lie_on_no_grid() -> None:
    values = axes(tiny_plan(memory_layers=(0, 3), tokens_per_memory=7, memories_per_chunk=7), 4)
    assert [value.label for value in values["layers"] if value.is_default] == ["2 of 0-3"]
    assert [value.label for value in values["tokens"]][:3] == ["4", "7", "8"]
    assert [value.label for value in values["memories"] if value.is_default] == ["7"]
