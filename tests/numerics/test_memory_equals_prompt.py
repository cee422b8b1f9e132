"""One dense memory beside the context equals the same text in the prompt: nothing is lost but what a plan leaves out.

Dense: all layers are memory layers, all 128 tokens are kept; the context stands right behind them.
"""

import pytest
import torch

from model.codec.chain import CodecChain
from model.expansion.expander import Expander
from model.memory.explicit_memory import ExplicitMemory
from model.memory.writer import MemoryWriter
from model.plan import MemoryPlan
from model.runner import ModelRunner, PrefillItem
from model.tokenizer import Tokenizer
from model.transformer import Transformer
from tests.helpers.real_model import real_model_directory, real_transformer
from tests.helpers.tiny_model import PREFIX_TOKENS, random_tokens, tiny_plan, tiny_transformer

TEXT = (
    "The lighthouse of Varnholm was built in 1843 by the engineer Ida Brekke on a cliff above the harbour. Its "
    "lamp burned whale oil for eleven years, until the town council bought a lens from Paris and a clock that "
    "turned it once a minute. In the winter of 1871 the keeper, Anders Lund, kept it alight for nine nights while "
    "ships sheltered in the bay; the council gave him a silver watch, which hangs today in the museum beside the "
    "old clock. The tower was painted red and white in 1902, and the last keeper left it when the light was made "
    "automatic in 1968. Visitors climb its 212 steps. "
)


def _dense(transformer: Transformer) -> MemoryPlan:
    return tiny_plan(memory_layers=tuple(range(transformer.config.num_layers)), tokens_per_memory=128)


def _logits(
    runner: ModelRunner, slot: int, tokens: list[int], memories: list[ExplicitMemory], rest: list[int]
) -> torch.Tensor:
    num_chunks = -(-len(tokens) // runner.plan.query_chunk_tokens)
    first = runner.prefill([PrefillItem(slot, tokens, [memories] * num_chunks)]).logits_BV
    return torch.cat([first, *(runner.decode([slot], [token]).logits_BV for token in rest)])


def _compare(
    transformer: Transformer, prefix: list[int], reference: list[int], context: list[int], rest: list[int]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits with the reference as a memory, and with it in the prompt."""
    assert len(reference) == 128
    runner = ModelRunner(transformer, _dense(transformer), prefix_tokens=prefix, num_slots=2, max_context_tokens=300)
    memory = MemoryWriter(transformer, runner.plan, runner.prefix).write([reference])
    runner.reset(0, reads_memories=True)
    runner.reset(1, reads_memories=False)
    return _logits(runner, 0, context, memory, rest), _logits(runner, 1, reference + context, [], rest)


@pytest.mark.parametrize("num_context", [1, 64, 100])
def test_tiny_model(num_context: int):
    context = random_tokens(num_context, seed=2)
    as_memory, as_prompt = _compare(tiny_transformer(), list(PREFIX_TOKENS), random_tokens(128), context, [1, 2, 3])
    torch.testing.assert_close(as_memory, as_prompt, atol=1e-4, rtol=0)


@pytest.mark.weights
def test_smollm2():
    tokenizer = Tokenizer.load(real_model_directory())
    reference = tokenizer.encode(TEXT)[:128]
    context = tokenizer.encode("\n\nQuestion: Who built the lighthouse of Varnholm?\nAnswer: It was built by")
    rest = tokenizer.encode(" Ida Brekke")
    prefix = tokenizer.encode_special("<|endoftext|>")
    as_memory, as_prompt = _compare(real_transformer(), prefix, reference, context, rest)
    torch.testing.assert_close(as_memory, as_prompt, atol=1e-4, rtol=0)
    assert as_memory[:-1].argmax(-1).tolist() == rest  # and the answer is right


def test_stored_memory_reads_nearly_as_the_fresh_one():
    """Write, store, load, read: int8 changes the logits little, float32 not at all."""
    transformer = tiny_transformer()
    fresh, stored = {}, {}
    for codec in ("fp32", "int8"):
        plan = tiny_plan(codec=(codec,))
        runner = ModelRunner(transformer, plan, prefix_tokens=PREFIX_TOKENS, num_slots=1, max_context_tokens=100)
        (memory,) = MemoryWriter(transformer, plan, runner.prefix).write([random_tokens(60)], ["0" * 32])
        chain = CodecChain.from_plan(plan)
        record = chain.encode(memory.to_arrays(), memory.reference_id, "1" * 32)
        (loaded,) = Expander(chain, "cpu").expand([chain.unpack(record, memory.reference_id, "1" * 32)])
        assert torch.equal(loaded.positions_LKS, memory.positions_LKS)
        for read, logits in ((memory, fresh), (loaded, stored)):
            runner.reset(0, reads_memories=True)
            logits[codec] = _logits(runner, 0, random_tokens(10, 5), [read], [1])
    assert torch.equal(stored["fp32"], fresh["fp32"])
    assert 0 < (stored["int8"] - fresh["int8"]).abs().mean() < 0.05
