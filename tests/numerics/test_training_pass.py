"""A training step computes what serving computes, and its gradient is that of its loss."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from model.adapter import AdapterConfig, base_digest, merge_adapter, save_adapter
from model.memory.writer import MemoryWriter
from model.plan import MemoryPlan
from model.runner import ModelRunner, PrefillItem
from model.training.batch import Batch, Context
from model.training.lora import adapter_factors, add_adapter
from model.training.step import TrainingStep
from model.transformer import Transformer
from tests.helpers.tiny_model import PREFIX_TOKENS, random_tokens, tiny_plan, tiny_transformer

PLAN = tiny_plan(query_chunk_tokens=16)
PAGED = replace(PLAN, pages_per_head=((0, 1), (3, 0)))
ONE_LAYER = replace(PLAN, pages_per_head=((0, 0), (1, 3)))
SMALL_PAGES = replace(PLAN, pages_per_head=((1, 5), (4, 2)))
REFERENCES = tuple(tuple(random_tokens(length, seed)) for seed, length in enumerate((20, 31, 4, 12)))
PRECEDING = tuple(tuple(random_tokens(length, 50 + length)) for length in (0, 12, 3, 30))
LONG = Context(tuple(random_tokens(40, 10)), 25, ((0, 1), (2,), (1, 2, 3)))
SHORT = Context(tuple(random_tokens(9, 11)), 3, ((3, 0),))
PLAIN = Context(tuple(random_tokens(21, 12)), 5)
LONGER = Context(tuple(random_tokens(70, 13)), 4, ((0,), (1, 2), (3,), (0, 3), (2,)))
LONGER_PLAIN = Context(tuple(random_tokens(140, 14)), 6)


def step_on(transformer: Transformer, plan: MemoryPlan = PLAN) -> TrainingStep:
    return TrainingStep(transformer, plan, PREFIX_TOKENS)


def served_nll(transformer: Transformer, context: Context, plan: MemoryPlan) -> list[float]:
    """-log p of the scored tokens, by the runner, one token at a time."""
    runner = ModelRunner(transformer, plan, prefix_tokens=PREFIX_TOKENS, num_slots=1, max_context_tokens=160)
    memories = MemoryWriter(transformer, plan, runner.prefix).write(REFERENCES, preceding=PRECEDING)
    runner.reset(0, reads_memories=context.reads_memories)
    losses = []
    for place, token in enumerate(context.tokens[:-1]):
        chunk = place // PLAN.query_chunk_tokens
        chosen = context.chunk_references[chunk] if context.chunk_references is not None else ()
        logits_V = runner.prefill([PrefillItem(0, [token], [[memories[index] for index in chosen]])]).logits_BV[0]
        losses.append(-float(logits_V.log_softmax(dim=-1)[context.tokens[place + 1]]))
    return losses[-context.num_scored :]


@pytest.mark.parametrize(
    "contexts",
    [[LONG, SHORT, PLAIN], [PLAIN, SHORT], [PLAIN], [SHORT], [PLAIN, LONGER, LONGER_PLAIN, LONG, SHORT, PLAIN]],
    ids=["chunks", "mixed", "plain", "reading", "of several lengths"],
)
@pytest.mark.parametrize(
    "plan",
    [PLAN, PAGED, ONE_LAYER, SMALL_PAGES, replace(PLAN, preceding_tokens=8)],
    ids=["no pages", "paged", "one layer", "small pages", "behind what precedes"],
)
@pytest.mark.parametrize("with_gradient", [False, True])
def test_a_step_equals_serving(contexts: list[Context], plan: MemoryPlan, with_gradient: bool) -> None:
    transformer = tiny_transformer()
    is_read = any(context.reads_memories for context in contexts)
    batch = Batch(REFERENCES if is_read else (), tuple(contexts), 6, PRECEDING if is_read else ())
    with torch.set_grad_enabled(with_gradient):
        _, cross_entropy_J, _ = step_on(transformer, plan)(batch)
    expected = [loss for context in contexts for loss in served_nll(transformer, context, plan)]
    torch.testing.assert_close(cross_entropy_J, torch.tensor(expected), atol=1e-4, rtol=1e-4)


def test_recomputing_activations_changes_nothing() -> None:
    gradients = []
    for recompute in (False, True):
        transformer = tiny_transformer()
        transformer.recompute = recompute
        add_trained_adapter(transformer)
        loss, _, _ = step_on(transformer)(Batch(REFERENCES, (LONG, PLAIN), 6))
        loss.backward()
        gradients.append([parameter.grad for parameter in transformer.parameters() if parameter.requires_grad])
    for kept, recomputed in zip(*gradients, strict=True):
        torch.testing.assert_close(kept, recomputed)


def add_trained_adapter(transformer: Transformer) -> None:
    """An adapter whose factors are random, as after training."""
    add_adapter(transformer, rank=2, alpha=4, seed=1)
    generator = torch.Generator().manual_seed(2)
    for _, up_OR in adapter_factors(transformer).values():
        up_OR.data.copy_(0.3 * torch.randn(up_OR.shape, generator=generator))


def test_the_gradient_is_the_slope_of_the_loss() -> None:
    transformer = tiny_transformer(dtype=torch.float64)
    add_trained_adapter(transformer)
    for update in (update for layer in transformer.layers for update in layer.updates.values()):
        update.double()
    taught = replace(SHORT, teacher_tokens=(*random_tokens(5, 3), *SHORT.targets), distillation=0.7)
    batch = Batch(REFERENCES, (LONG, taught, PLAIN), 6)
    step = step_on(transformer)
    step(batch)[0].backward()
    factors = adapter_factors(transformer)
    for module in ("layers.0.self_attn.q_proj", "layers.1.self_attn.k_proj", "layers.2.mlp.up_proj"):
        for factor in factors[module]:
            direction = torch.randn(factor.shape, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
            size = 1e-4
            with torch.no_grad():
                factor.add_(direction, alpha=size)
                above = step(batch)[0].double()
                factor.sub_(direction, alpha=2 * size)
                below = step(batch)[0].double()
                factor.add_(direction, alpha=size)
            assert factor.grad is not None
            slope = float((factor.grad * direction).sum())
            assert float(above - below) / (2 * size) == pytest.approx(slope, rel=0.02, abs=0.02)


def test_teaching_compares_with_the_base_model() -> None:
    transformer = tiny_transformer()
    taught = replace(PLAIN, teacher_tokens=PLAIN.tokens, cross_entropy=0.0, distillation=1.0)
    batch = Batch((), (taught,), 6)
    add_adapter(transformer, rank=2, alpha=4)
    loss, _, kl_J = step_on(transformer)(batch)
    assert float(loss.detach()) == pytest.approx(0, abs=1e-5)
    for _, up_OR in adapter_factors(transformer).values():
        up_OR.data.fill_(0.2)
    _, _, kl_J = step_on(transformer)(batch)
    assert float(kl_J.min()) > 0


def test_a_merged_adapter_equals_the_trained_one(tmp_path) -> None:  # type: ignore[no-untyped-def]
    trained, merged = tiny_transformer(), tiny_transformer()
    config = AdapterConfig(2, 4.0, ("q_proj",), "tiny", base_digest(trained))
    add_trained_adapter(trained)
    save_adapter(tmp_path, adapter_factors(trained), config, PLAN)
    merge_adapter(merged, tmp_path)
    batch = Batch(REFERENCES, (LONG, SHORT, PLAIN), 6)
    with torch.no_grad():
        torch.testing.assert_close(step_on(merged)(batch)[1], step_on(trained)(batch)[1], atol=1e-4, rtol=1e-4)
