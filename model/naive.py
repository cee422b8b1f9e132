"""The slow obvious twin of the fast path: whole sequences, one token and one head at a time, in float64.

No cache, no batch, no padding, no fused operations: what tests hold the fast path against. It reads the weights of a
`Transformer` and shares no computation with it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from model.memory.explicit_memory import ExplicitMemory
from model.memory.sparsify import LEAST_NEEDED, random_scores
from model.plan import MemoryPlan
from model.transformer import Transformer


def memories_of_tokens(
    chunk_memories: Sequence[Sequence[ExplicitMemory]], num_tokens: int, query_chunk_tokens: int
) -> list[Sequence[ExplicitMemory]]:
    """The memories each of `num_tokens` context tokens reads when every query chunk has its own."""
    return [chunk_memories[token // query_chunk_tokens] for token in range(num_tokens)]


@torch.inference_mode()
def naive_logits(
    transformer: Transformer,
    plan: MemoryPlan,
    prefix_tokens: Sequence[int],
    context_tokens: Sequence[int],
    token_memories: Sequence[Sequence[ExplicitMemory]],
    *,
    reads_memories: bool = True,
    context_position: int | None = None,
) -> Tensor:
    """float64 `[T, V]`: logits after each context token, which reads `token_memories[t]` beside what is before it.

    `reads_memories` decides where the context stands, as in `ModelRunner.reset`; `context_position` overrules it.
    """
    model, num_prefix = _Weights(transformer), len(prefix_tokens)
    if context_position is None:
        context_position = num_prefix + (plan.max_reference_tokens if reads_memories else 0)
    positions = [*range(num_prefix), *range(context_position, context_position + len(context_tokens))]
    hidden = [model.embedding[token] for token in (*prefix_tokens, *context_tokens)]
    for layer_index in range(model.num_layers):
        layer = model.layer(layer_index)
        plain = [layer.project(vector) for vector in hidden]
        heads = [token.at(position, model.theta) for token, position in zip(plain, positions, strict=True)]
        for token in range(len(hidden)):
            memories = token_memories[token - num_prefix] if token >= num_prefix else ()
            outputs = []
            for head in range(model.num_heads):
                kv_head = head // model.group_size
                keys = [seen.keys[kv_head] for seen in heads[: token + 1]]
                values = [seen.values[kv_head] for seen in heads[: token + 1]]
                if layer_index in plan.memory_layers:
                    memory_layer = plan.memory_layers.index(layer_index)
                    for memory in memories:
                        kept = _kept_tokens(memory, plan.pages(model.num_kv_heads), memory_layer, kv_head)
                        keys += [key for key, _ in kept]
                        values += [value for _, value in kept]
                outputs.append(_attend(heads[token].queries[head], keys, values))
            hidden[token] = layer.finish(hidden[token], torch.cat(outputs))
    return torch.stack([model.logits(vector) for vector in hidden[num_prefix:]])


@torch.inference_mode()
def naive_write(
    transformer: Transformer,
    plan: MemoryPlan,
    prefix_tokens: Sequence[int],
    reference_tokens: Sequence[int],
    preceding_tokens: Sequence[int] = (),
) -> ExplicitMemory:
    """The memory of one reference, in float64, with all of `preceding_tokens` in view."""
    model, num_prefix = _Weights(transformer), len(prefix_tokens)
    first = num_prefix + len(preceding_tokens)
    end = first + len(reference_tokens)
    repeat = reference_tokens if plan.repeats_references else ()
    hidden = [model.embedding[token] for token in (*prefix_tokens, *preceding_tokens, *reference_tokens, *repeat)]
    kept_keys, kept_values, kept_places = [], [], []
    tokens_per_page = min(plan.tokens_per_page, len(reference_tokens))
    for layer_index in range(plan.memory_layers[-1] + 1):
        layer = model.layer(layer_index)
        plain = [layer.project(vector) for vector in hidden]
        heads = [token.at(position, model.theta) for position, token in enumerate(plain)]
        if layer_index in plan.memory_layers:
            memory_layer = plan.memory_layers.index(layer_index)
            scored = heads if plan.selection == "causal" else plain
            # Tokens are chosen, and stored, as if nothing had preceded the reference.
            alone = [*heads[:num_prefix], *heads[first:]]
            stored = [token.at(num_prefix + place, model.theta) for place, token in enumerate(plain[first:end])]
            for kv_head in range(model.num_kv_heads):
                if repeat:
                    scores = _reconstruction_scores(model, plan, alone, num_prefix, kv_head)
                    if plan.selection == "trained":
                        assert transformer.token_scorer is not None
                        weight = transformer.token_scorer.weight_LKF[memory_layer, kv_head].double()
                        scores = [
                            math.log(score + LEAST_NEEDED) + float(weight @ plain[first + place].fused)
                            for place, score in enumerate(scores)
                        ]
                else:
                    scores = _scores(
                        model, plan, scored[first:end], reference_tokens, memory_layer=memory_layer, kv_head=kv_head
                    )
                best_first = sorted((-score, place) for place, score in enumerate(scores))
                num_pages = plan.pages(model.num_kv_heads)[memory_layer][kv_head]
                best = sorted(place for _, place in best_first[: num_pages * plan.tokens_per_page])
                for page in range(num_pages):
                    start = min(page * plan.tokens_per_page, len(best) - tokens_per_page)
                    places = best[start : start + tokens_per_page]
                    kept_places.append(torch.tensor(places, dtype=torch.uint8))
                    kept_keys.append(torch.stack([stored[place].keys[kv_head] for place in places]))
                    kept_values.append(torch.stack([stored[place].values[kv_head] for place in places]))
        for token in range(len(hidden)):
            outputs = []
            for head in range(model.num_heads):
                kv_head = head // model.group_size
                keys = [seen.keys[kv_head] for seen in heads[: token + 1]]
                values = [seen.values[kv_head] for seen in heads[: token + 1]]
                outputs.append(_attend(heads[token].queries[head], keys, values))
            hidden[token] = layer.finish(hidden[token], torch.cat(outputs))
    shape = plan.memory_shape(transformer.config)[:2]
    return ExplicitMemory(
        torch.stack(kept_keys).unflatten(0, shape),
        torch.stack(kept_values).unflatten(0, shape),
        torch.stack(kept_places).unflatten(0, shape),
        len(reference_tokens),
    )


def _kept_tokens(
    memory: ExplicitMemory, pages_LK: Sequence[Sequence[int]], memory_layer: int, kv_head: int
) -> list[tuple[Tensor, Tensor]]:
    """Key and value of every token the head kept, once each, whatever pages hold it."""
    first = sum(map(sum, pages_LK[:memory_layer])) + sum(pages_LK[memory_layer][:kv_head])
    by_position = {}
    for page in range(first, first + pages_LK[memory_layer][kv_head]):
        tensors = (memory.k_LKSD, memory.v_LKSD, memory.positions_LKS)
        for key, value, position in zip(*(tensor.flatten(0, 1)[page] for tensor in tensors), strict=True):
            by_position[int(position)] = (key.double(), value.double())
    return list(by_position.values())


def rotated(vector: Tensor, position: int, theta: float) -> Tensor:
    """Pair i is (vector[i], vector[i + D/2]): a complex number, turned by position / theta^(2i/D)."""
    first, second = vector.chunk(2)
    angles = position * theta ** (-2 * torch.arange(len(first), dtype=torch.float64) / len(vector))
    turned = torch.complex(first, second) * torch.polar(torch.ones_like(angles), angles)
    return torch.cat((turned.real, turned.imag))


def _attend(query: Tensor, keys: Sequence[Tensor], values: Sequence[Tensor]) -> Tensor:
    """One query's softmax over all it sees."""
    return (torch.stack(list(keys)) @ query / math.sqrt(len(query))).softmax(dim=0) @ torch.stack(list(values))


def _scores(
    model: _Weights,
    plan: MemoryPlan,
    heads: Sequence[_Heads],
    reference_tokens: Sequence[int],
    *,
    memory_layer: int,
    kv_head: int,
) -> list[float]:
    """How much each token of the reference deserves to be kept by this KV head."""
    num_tokens = len(heads)
    if plan.selection == "random":
        return [float(x) for x in random_scores(reference_tokens, memory_layer, model.num_kv_heads)[kv_head]]
    if plan.selection == "value_norm":
        return [float(row.values[kv_head].norm()) for row in heads]
    by_head = []
    for head in range(kv_head * model.group_size, (kv_head + 1) * model.group_size):
        received = torch.zeros(num_tokens, dtype=torch.float64)
        for i in range(num_tokens):
            keys = torch.stack([row.keys[kv_head] for row in heads[: i + 1 if plan.selection == "causal" else None]])
            weights = (keys @ heads[i].queries[head] / math.sqrt(model.head_dim)).softmax(dim=0)
            received[: len(keys)] += weights
        by_head.append(received)
    return _combined(by_head, plan)


def _reconstruction_scores(
    model: _Weights, plan: MemoryPlan, heads: Sequence[_Heads], num_prefix: int, kv_head: int
) -> list[float]:
    """`heads` are of prefix, reference and its repeat, rotated."""
    num_tokens = (len(heads) - num_prefix) // 2
    by_head = []
    for head in range(kv_head * model.group_size, (kv_head + 1) * model.group_size):
        most = torch.zeros(num_tokens, dtype=torch.float64)
        for i in range(num_prefix + num_tokens, len(heads)):
            keys = torch.stack([row.keys[kv_head] for row in heads[: i + 1]])
            weights = (keys @ heads[i].queries[head] / math.sqrt(model.head_dim)).softmax(dim=0)
            for j in range(num_tokens):
                length = heads[num_prefix + j].values[kv_head].norm()
                most[j] = max(most[j], weights[num_prefix + j] * length)
        by_head.append(most)
    return _combined(by_head, plan)


def _combined(by_head: Sequence[Tensor], plan: MemoryPlan) -> list[float]:
    group = torch.stack(list(by_head))
    combined = {"sum": group.sum(dim=0), "max": group.amax(dim=0), "mean": group.mean(dim=0)}[plan.group_combine]
    return [float(x) for x in combined]


@dataclass
class _Heads:
    """Queries, keys and values of one token in one layer, head by head."""

    queries: list[Tensor]
    keys: list[Tensor]
    values: list[Tensor]

    @property
    def fused(self) -> Tensor:
        """All of it, one behind the other."""
        return torch.cat((*self.queries, *self.keys, *self.values))

    def at(self, position: int, theta: float) -> _Heads:
        """The same token standing at a position."""
        queries = [rotated(query, position, theta) for query in self.queries]
        return _Heads(queries, [rotated(key, position, theta) for key in self.keys], self.values)


class _Weights:
    """The weights of a transformer in float64, taken apart."""

    def __init__(self, transformer: Transformer) -> None:
        config = transformer.config
        self.num_layers, self.num_heads, self.num_kv_heads = config.num_layers, config.num_heads, config.num_kv_heads
        self.group_size, self.theta, self.eps = config.heads_per_kv_head, config.rope_theta, config.rms_norm_eps
        self.head_dim = config.head_dim
        self.embedding = transformer.embedding_VC.double()
        self._state = {name: tensor.double() for name, tensor in transformer.state_dict().items()}

    def layer(self, index: int) -> _LayerWeights:
        prefix = f"layers.{index}."
        return _LayerWeights(
            self, {name.removeprefix(prefix): t for name, t in self._state.items() if name.startswith(prefix)}
        )

    def normed(self, vector: Tensor, weight: Tensor) -> Tensor:
        return vector / torch.sqrt((vector * vector).mean() + self.eps) * weight

    def logits(self, vector: Tensor) -> Tensor:
        head: Tensor = self._state.get("head_VC", self.embedding)
        return head @ self.normed(vector, self._state["final_norm_C"])


@dataclass
class _LayerWeights:
    model: _Weights
    weights: dict[str, Tensor]

    def project(self, vector: Tensor) -> _Heads:
        """What the token asks, offers and says in this layer."""
        model = self.model
        fused = self.weights["qkv_AC"] @ model.normed(vector, self.weights["attention_norm_C"])
        heads = list(fused.split(model.head_dim))
        first_key, first_value = model.num_heads, model.num_heads + model.num_kv_heads
        return _Heads(heads[:first_key], heads[first_key:first_value], heads[first_value:])

    def finish(self, vector: Tensor, attended: Tensor) -> Tensor:
        """The residual stream after attention output and MLP."""
        vector = vector + self.weights["out_CE"] @ attended
        gate, up = (self.weights["gate_up_FC"] @ self.model.normed(vector, self.weights["mlp_norm_C"])).chunk(2)
        return vector + self.weights["down_CW"] @ (gate * torch.sigmoid(gate) * up)
