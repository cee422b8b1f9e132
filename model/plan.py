"""The memory plan: which keys and values of a reference become its explicit memory, and how a context reads them.

A plan is data: it belongs to a checkpoint and travels with it. This file knows no tensors, no tokenizer and no codec;
docs/memory-plan.md explains every field and the presets.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from model.identity import canonical_json

if TYPE_CHECKING:
    from model.config import ModelConfig

SELECTIONS = ("attention", "reconstruction", "trained", "causal", "random", "value_norm")
_REPEATING = ("reconstruction", "trained")
GROUP_COMBINES = ("sum", "max", "mean")
REFERENCE_TOKENS_LIMIT = 256
"""The place of a kept token in its reference is stored as one byte."""

_READ_ONLY_FIELDS = ("name", "query_chunk_tokens", "memories_per_chunk", "context_bos", "separator")
"""Fields that change how memories are read or named, never what is written."""


@dataclass(frozen=True)
class MemoryPlan:
    """How memories are written and read. Raises ValueError on construction if a field contradicts itself or another."""

    name: str
    """For people and logs; no part of a memory's identity."""
    memory_layers: tuple[int, ...]
    """Layers whose attention reads memories, ascending, counted from 0."""
    tokens_per_memory: int
    """S: tokens kept per memory layer and KV head, in the mean over all; a shorter reference keeps all it has."""
    selection: str
    """How tokens are scored: "attention" (unmasked and un-rotated, paper 3.3), "reconstruction" (by a repeat of the
    reference), "trained" (the same, corrected by a token scorer), "causal", "random" or "value_norm"."""
    group_combine: str
    """How the scores of the query heads of one KV head are combined: "sum", "max" or "mean"."""
    max_reference_tokens: int = 128
    """R: longest reference, in tokens without the prefix; also the interval of positions all memories share."""
    query_chunk_tokens: int = 64
    """Q: tokens of prompt or output that make one query and share one set of memories."""
    memories_per_chunk: int = 5
    """M: memories one query chunk reads."""
    prefix: str = ""
    """Special-token text encoded before every reference, then dropped from its memory; opens every context, once."""
    context_bos: str = ""
    """Special-token text that opens a context after its memories; empty when the prefix alone is the attention sink."""
    separator: str = ""
    """Text that opens a context which reads memories."""
    codec: tuple[str, ...] = ("int8",)
    """Names of the codec stages, in the order of encoding."""
    pages_per_head: tuple[tuple[int, ...], ...] = ()
    """For each memory layer and KV head, how many pages of a memory it fills; in all once, twice, ... as many as there
    are heads, and a page is S tokens, half of S, ..., so that a memory is no larger. Empty: one each
    (`model.memory.pages`)."""
    token_scorer: str = ""
    """Identity of the token scorer that selection "trained" corrects scores with (`model.token_scorer`)."""
    preceding_tokens: int = 0
    """How many tokens of what stands directly before a reference in its document are in view when it is written."""

    def __post_init__(self) -> None:
        # JSON and callers may bring lists; the plan is hashable only with tuples.
        object.__setattr__(self, "memory_layers", tuple(self.memory_layers))
        object.__setattr__(self, "codec", tuple(self.codec))
        object.__setattr__(self, "pages_per_head", tuple(map(tuple, self.pages_per_head)))
        _check_layers(self.memory_layers)
        _check_choice("selection", self.selection, SELECTIONS)
        _check_scorer(self.selection, self.token_scorer)
        _check_choice("group_combine", self.group_combine, GROUP_COMBINES)
        _check_range("max_reference_tokens", self.max_reference_tokens, 1, REFERENCE_TOKENS_LIMIT)
        _check_range("tokens_per_memory", self.tokens_per_memory, 1, self.max_reference_tokens)
        _check_pages(self.pages_per_head, len(self.memory_layers), self.tokens_per_memory)
        _check_range("preceding_tokens", self.preceding_tokens, 0, REFERENCE_TOKENS_LIMIT)
        _check_range("query_chunk_tokens", self.query_chunk_tokens, 1, None)
        _check_range("memories_per_chunk", self.memories_per_chunk, 1, None)
        for name in ("name", "prefix", "context_bos", "separator"):
            if not isinstance(getattr(self, name), str):
                raise ValueError(f"plan field {name} is {getattr(self, name)!r}; give text")
        if not self.codec or not all(isinstance(stage, str) and stage for stage in self.codec):
            raise ValueError(f"plan codec is {list(self.codec)!r}; name at least one stage, for example ['int8']")

    @property
    def repeats_references(self) -> bool:
        """Whether a reference is run twice to choose its tokens."""
        return self.selection in _REPEATING

    def in_view(self, preceding: Sequence[int]) -> Sequence[int]:
        """What is in view of the tokens that stand directly before a reference: the last of them."""
        return preceding[-self.preceding_tokens :] if self.preceding_tokens else ()

    def unfitted(self) -> MemoryPlan:
        """Without what was fitted to one adapter and its memory layers: one page for each head, no token scorer."""
        selection = "reconstruction" if self.selection == "trained" else self.selection
        return replace(self, pages_per_head=(), selection=selection, token_scorer="")

    @property
    def pages_each(self) -> int:
        """Pages of a head, in the mean over all."""
        num_heads = sum(map(len, self.pages_per_head))
        return sum(map(sum, self.pages_per_head)) // num_heads if num_heads else 1

    @property
    def tokens_per_page(self) -> int:
        """Tokens that one page holds."""
        return self.tokens_per_memory // self.pages_each

    def memory_shape(self, config: ModelConfig) -> tuple[int, int, int, int]:
        """Of the keys of a full reference: memory layers, pages of a layer in the mean, tokens of a page, head dim."""
        pages_of_layer = self.pages_each * config.num_kv_heads
        return len(self.memory_layers), pages_of_layer, self.tokens_per_page, config.head_dim

    def pages(self, num_kv_heads: int) -> tuple[tuple[int, ...], ...]:
        """`pages_per_head`, written out where it is empty."""
        return self.pages_per_head or ((1,) * num_kv_heads,) * len(self.memory_layers)

    def check_pages(self, num_kv_heads: int) -> None:
        """Raises ValueError if `pages_per_head` is not for a model of so many KV heads."""
        if any(len(counts) != num_kv_heads for counts in self.pages_per_head):
            raise ValueError(
                f"plan {self.name!r} gives pages to {[len(counts) for counts in self.pages_per_head]} heads of its "
                f"memory layers, but the model has {num_kv_heads} KV heads in each; give one number for each head"
            )

    def written(self) -> dict[str, Any]:
        """The fields that decide what a written memory holds, as JSON types; the codec speaks for itself.

        `codec` is left out because the fingerprint takes the codec's full description, parameters included.
        """
        skipped = (*_READ_ONLY_FIELDS, "codec")
        return {key: value for key, value in _as_json_types(self).items() if key not in skipped}

    def to_json(self) -> str:
        """Canonical JSON: equal plans give equal text."""
        return canonical_json(_as_json_types(self))

    @classmethod
    def from_json(cls, text: str) -> MemoryPlan:
        """The plan `to_json` wrote. Raises ValueError on bad JSON, unknown or missing fields, or a contradiction."""
        value = json.loads(text)
        if not isinstance(value, dict):
            raise ValueError(f"a memory plan is a JSON object, not {type(value).__name__}")
        known = [field.name for field in fields(cls)]
        unknown = sorted(set(value) - set(known))
        if unknown:
            raise ValueError(f"memory plan has unknown fields {unknown}; known are {known}")
        try:
            return cls(**value)
        except TypeError as error:
            raise ValueError(f"memory plan cannot be read: {error}; fields are {known}") from error

    def validate(self, config: ModelConfig) -> None:
        """Raises ValueError, naming value, limit and remedy, if this plan does not fit the model."""
        if self.memory_layers[-1] >= config.num_layers:
            raise ValueError(
                f"plan {self.name!r} reads memories in layer {self.memory_layers[-1]}, but the model has "
                f"{config.num_layers} layers (0 to {config.num_layers - 1}); choose layers within the model"
            )
        self.check_pages(config.num_kv_heads)
        smallest_context = self.max_reference_tokens + self.query_chunk_tokens
        if smallest_context > config.max_context_tokens:
            raise ValueError(
                f"plan {self.name!r} needs {smallest_context} positions (max_reference_tokens "
                f"{self.max_reference_tokens} + query_chunk_tokens {self.query_chunk_tokens}), but the model has "
                f"{config.max_context_tokens}; lower max_reference_tokens or query_chunk_tokens"
            )
        written_over = self.preceding_tokens + self.max_reference_tokens * (2 if self.repeats_references else 1)
        if written_over > config.max_context_tokens:
            raise ValueError(
                f"plan {self.name!r} writes a reference over {written_over} positions (preceding_tokens "
                f"{self.preceding_tokens}, and max_reference_tokens {self.max_reference_tokens}, twice where selection "
                f"{self.selection!r} repeats it), but the model has {config.max_context_tokens}; lower either or "
                "choose another selection"
            )


def _as_json_types(plan: MemoryPlan) -> dict[str, Any]:
    values = asdict(plan)
    for name in ("pages_per_head", "token_scorer", "preceding_tokens"):
        if not values[name]:
            del values[name]  # plans from before there was this field keep their text and fingerprint
    return {key: _listed(value) for key, value in values.items()}


def _listed(value: Any) -> Any:
    return [_listed(one) for one in value] if isinstance(value, tuple) else value


def _check_pages(pages_per_head: tuple[tuple[int, ...], ...], num_layers: int, tokens_per_memory: int) -> None:
    if not pages_per_head:
        return
    counts = [count for of_layer in pages_per_head for count in of_layer]
    if any(type(count) is not int or count < 0 for count in counts):
        raise ValueError(f"plan pages_per_head is {pages_per_head!r}; give whole numbers from 0")
    if len(pages_per_head) != num_layers or len({len(of_layer) for of_layer in pages_per_head}) != 1:
        raise ValueError(
            f"plan pages_per_head has {[len(of_layer) for of_layer in pages_per_head]} numbers in its layers; give one "
            f"for each KV head in each of {num_layers} memory layers"
        )
    pages_each, too_many = divmod(sum(counts), len(counts))
    if too_many or not pages_each:
        raise ValueError(
            f"plan pages_per_head gives away {sum(counts)} pages; give as many as there are heads, {len(counts)}, or a "
            "multiple of that"
        )
    if tokens_per_memory % pages_each:
        raise ValueError(
            f"plan tokens_per_memory is {tokens_per_memory}, which {pages_each} pages a head in the mean cannot share; "
            f"give a multiple of {pages_each}"
        )


def _check_layers(layers: tuple[int, ...]) -> None:
    if not layers or any(type(layer) is not int or layer < 0 for layer in layers):
        raise ValueError(f"plan memory_layers is {list(layers)!r}; give at least one layer number, counted from 0")
    if any(low >= high for low, high in pairwise(layers)):
        raise ValueError(f"plan memory_layers is {list(layers)!r}; give each layer once, in ascending order")


def _check_scorer(selection: str, token_scorer: str) -> None:
    if not isinstance(token_scorer, str) or bool(token_scorer) != (selection == "trained"):
        raise ValueError(
            f"plan selection is {selection!r} and token_scorer {token_scorer!r}; give selection 'trained' the identity "
            "of a token scorer, and any other none"
        )


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f"plan {name} is {value!r}; choose one of {', '.join(choices)}")


def _check_range(name: str, value: int, low: int, high: int | None) -> None:
    if type(value) is not int or value < low or (high is not None and value > high):
        limit = f"from {low} to {high}" if high is not None else f"of at least {low}"
        raise ValueError(f"plan {name} is {value!r}; give a whole number {limit}")
