"""What knowledge costs in each format it can have: floating point operations to write and to read, bytes to keep.

The paper's arithmetic (appendix A for operations, 3.3 for bytes) for any decoder and plan. Pure: no tensors, no prices,
no clock. One operation (FLOP) is one addition or one multiplication, so a product of matrices counts twice its size.

Letters: N layers · Y depth of the deepest memory layer, counted from 1 · L memory layers · H query heads · K KV heads
· D head dimension · C model width · W MLP width · V vocabulary · R reference tokens · S kept tokens · Q query-chunk
tokens · U tokens of a training sequence. P = 2CHD + 2CKD are the attention weights of one layer, 3CW those of its MLP.
"""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from math import ceil
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from model.config import ModelConfig
    from model.plan import MemoryPlan

KNOWLEDGE_FORMATS = ("text_rag", "explicit_memory", "parameters")
"""The paper's memory hierarchy (6.1): from cheap to write to cheap to read."""
BYTE_FORMATS = ("dense", "kv_cache", "sparse", "int8", "int4", "vq")
"""What a memory's vectors may be kept as, from the largest: see `bytes_per_memory`."""
TRAINING_TOKENS = 2048
"""U: what the paper's model was trained with (5.1)."""
VQ_BYTES = 14
"""Bytes of one vector after the paper's quantiser (appendix B)."""
INT4_GROUP = 16
"""Numbers that share one scale in format int4."""

_FLOAT_BYTES = 2
"""bfloat16 numbers, and the float16 scales of int8 and int4."""
_SELECTION_SHARE = {
    "reconstruction": Fraction(2),  # the repeat's tokens look at the reference and at themselves
    "trained": Fraction(2),  # the same; what is added to each token's score is a few products more
    "causal": Fraction(1, 2),
    "random": Fraction(0),
    "value_norm": Fraction(0),
}
"""What a rule computes to choose tokens, in full squares of attention weights; other rules take one."""


def write_flop(config: ModelConfig, plan: MemoryPlan, training_tokens: int = TRAINING_TOKENS) -> dict[str, int]:
    """Operations that bring one reference of R tokens into each format, once (paper A.1 to A.3).

    "text_rag" is 0: text is only stored. "explicit_memory": the encoding, stopped within the deepest memory layer, and
    the choice of tokens (selections "reconstruction" and "trained" encode a reference twice over), behind as many
    tokens of what precedes it as the plan puts in view. "parameters": a lower bound, one training step over the
    reference, forward and backward.
    """
    tokens, width = plan.max_reference_tokens, _attention_width(config)
    depth = plan.memory_layers[-1] + 1
    run = plan.preceding_tokens + (2 * tokens if plan.repeats_references else tokens)
    encode = depth * (run * _attention_weights(config) + run**2 * width)
    encode += (depth - 1) * run * _mlp_weights(config)
    choose = len(plan.memory_layers) * tokens**2 * width * _SELECTION_SHARE.get(plan.selection, Fraction(1))
    weights = _attention_weights(config) + _mlp_weights(config)
    train = config.num_layers * tokens * (weights + training_tokens * width)
    train += tokens * config.vocab_size * config.hidden_dim
    return {"text_rag": 0, "explicit_memory": ceil(2 * (encode + choose)), "parameters": 6 * train}


def read_flop(config: ModelConfig, plan: MemoryPlan) -> dict[str, int]:
    """Operations that one use costs: one query chunk of Q tokens reads one reference (paper A.1 to A.3).

    "text_rag": a lower bound, the reference encoded anew in the prompt and attended to by the chunk. "explicit_memory":
    attention over S keys and values in L layers. "parameters": a lower bound, 0.
    """
    tokens, chunk, width = plan.max_reference_tokens, plan.query_chunk_tokens, _attention_width(config)
    in_prompt = config.num_layers * tokens * (_attention_weights(config) + (tokens + 2 * chunk) * width)
    in_prompt += (config.num_layers - 1) * tokens * _mlp_weights(config)
    attend = len(plan.memory_layers) * 2 * chunk * plan.tokens_per_memory * width
    return {"text_rag": 2 * in_prompt, "explicit_memory": 2 * attend, "parameters": 0}


def crossover_uses(write: Mapping[str, float], read: Mapping[str, float]) -> dict[str, float | None]:
    """For each format, the number of expected uses up to which it is the cheapest in total (paper equation 1).

    A format takes over where the one before it ends. None: cheapest however often it is used; 0: never the cheapest.
    Costs may have any unit, the same in both.
    """
    ends: dict[str, float | None] = {}
    for name in write:
        begin, end = 0.0, float("inf")
        for other in write:
            dearer_to_write, dearer_to_read = write[name] - write[other], read[name] - read[other]
            if dearer_to_read > 0:
                end = min(end, -dearer_to_write / dearer_to_read)
            elif dearer_to_read < 0:
                begin = max(begin, -dearer_to_write / dearer_to_read)
            elif dearer_to_write > 0:
                end = 0.0
        ends[name] = None if end == float("inf") else end if end > begin else 0.0
    return ends


def bytes_per_memory(
    config: ModelConfig, plan: MemoryPlan, *, vq_bytes: int = VQ_BYTES, int4_group: int = INT4_GROUP
) -> dict[str, int]:
    """Bytes of the keys and values of one reference in each format; positions and record headers are not counted.

    "dense": no sparsity of any kind, bfloat16, one vector for each query head, layer and token (where the paper's
    reckoning starts, 3.3). "kv_cache": the same for KV heads: what the reference takes in a cache as text. The others
    keep S tokens of K heads in L layers: "sparse" in bfloat16; "int8" with one float16 scale a vector; "int4" with one
    for each `int4_group` numbers; "vq" with `vq_bytes` for each vector. Raises ValueError on sizes below 1.
    """
    for name, value in (("vq_bytes", vq_bytes), ("int4_group", int4_group)):
        if value < 1:
            raise ValueError(f"{name} is {value}; give at least 1")
    in_text = 2 * config.num_layers * plan.max_reference_tokens
    kept = 2 * len(plan.memory_layers) * config.num_kv_heads * plan.tokens_per_memory
    full, dim = _FLOAT_BYTES * config.head_dim, config.head_dim
    return {
        "dense": in_text * config.num_heads * full,
        "kv_cache": in_text * config.num_kv_heads * full,
        "sparse": kept * full,
        "int8": kept * (dim + _FLOAT_BYTES),
        "int4": kept * (ceil(dim / 2) + _FLOAT_BYTES * ceil(dim / int4_group)),
        "vq": kept * vq_bytes,
    }


def _attention_width(config: ModelConfig) -> int:
    """HD: each query-key pair costs so many products for its score, and as many for its value."""
    return config.num_heads * config.head_dim


def _attention_weights(config: ModelConfig) -> int:
    """P: queries and output, keys and values."""
    return 2 * config.hidden_dim * (_attention_width(config) + config.num_kv_heads * config.head_dim)


def _mlp_weights(config: ModelConfig) -> int:
    """3CW: gate, up and down."""
    return 3 * config.hidden_dim * config.mlp_dim
