"""The axes of the ablation and their values, each a variation of one default plan. Knows no model and no items."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from model.identity import canonical_json
from model.plan import GROUP_COMBINES, SELECTIONS, MemoryPlan

Positions = Literal["parallel", "right-aligned", "sequential"]
Sink = Literal["shared", "in every memory", "references without", "behind memories only", "none"]

TOKENS_PER_MEMORY = (4, 8, 16, 32, 64, 128)
MEMORIES = (1, 2, 3, 4, 5, 6, 8, 10)
FREE_SELECTIONS = tuple(selection for selection in SELECTIONS if selection != "trained")
"""A token scorer goes with one adapter and one choice of layers."""
GAPS = (32, 128, 512, 1024)
"""Small enough for a model of 2048 positions."""
PRECEDING_TOKENS = (0, 32, 128)
MAX_MEMORIES = max(MEMORIES)


@dataclass(frozen=True)
class Variation:
    """A way to write and read memories; what a plan cannot say stands beside it."""

    plan: MemoryPlan
    positions: Positions = "parallel"
    """parallel: all references share the interval P to P+R-1, each from its begin on; right-aligned: each to its end;
    sequential: one behind the other."""
    gap: int | None = 0
    """Positions between the references' interval and the context; None: the context stands behind the last token of the
    longest reference (always so if the references are sequential)."""
    sink: Sink = "shared"
    """Where the plan's prefix is: shared, as served (encoded before each reference, dropped, once in the context); kept
    in every memory too; not before references; read only as first context token, behind memories; nowhere."""

    @property
    def key(self) -> str:
        """Equal for equal variations, whatever their plan is called."""
        plan = json.loads(replace(self.plan, name="", codec=("none",)).to_json())
        return canonical_json({"plan": plan, "positions": self.positions, "gap": self.gap, "sink": self.sink})

    @property
    def writing_key(self) -> str:
        """Equal for variations whose memories differ in nothing but the layers and positions that are read."""
        plan = self.plan
        has_prefix = self.sink not in ("references without", "none")
        written = [plan.selection, plan.group_combine, plan.tokens_per_memory, plan.max_reference_tokens]
        return canonical_json([*written, plan.preceding_tokens, plan.prefix if has_prefix else ""])


@dataclass(frozen=True)
class Value:
    """One value on an axis."""

    label: str
    variation: Variation
    is_default: bool = False


def axes(default: MemoryPlan, num_layers: int) -> dict[str, tuple[Value, ...]]:
    """Axis by axis its values, in the order in which they are shown; one value of each is the default plan itself."""
    return {
        "layers": _values(default, _layers(default, num_layers)),
        "tokens": _values(default, _tokens(default)),
        "selection": _values(default, _fields(default, "selection", FREE_SELECTIONS)),
        "group": _values(default, _fields(default, "group_combine", GROUP_COMBINES)),
        "preceding": _values(default, _fields(default, "preceding_tokens", PRECEDING_TOKENS)),
        "memories": _values(default, _fields(default, "memories_per_chunk", MEMORIES)),
        "positions": _values(default, _positions(default)),
        "gap": _values(default, _gaps(default)),
        "sink": _values(default, _sinks(default)),
    }


TITLES = {
    "layers": "Memory layers",
    "tokens": "Tokens per KV head",
    "selection": "Selection of tokens",
    "group": "Query heads of a KV head combined by",
    "preceding": "Tokens in view of what precedes a reference",
    "memories": "Memories per chunk",
    "positions": "Positions of references",
    "gap": "Gap between references and context",
    "sink": "Prefix, context BOS and separator",
}
"""Every axis, for people."""


def layers_label(layers: Sequence[int]) -> str:
    """`15-29`, or `15 of 1-29` where they do not follow each other."""
    if list(layers) == list(range(layers[0], layers[-1] + 1)):
        return f"{layers[0]}-{layers[-1]}"
    return f"{len(layers)} of {layers[0]}-{layers[-1]}"


def _values(default: MemoryPlan, named: Iterator[tuple[str, Variation]]) -> tuple[Value, ...]:
    served = Variation(default)
    found = {variation.key: Value(label, variation, variation.key == served.key) for label, variation in named}
    if served.key not in found:
        return (Value(f"as served: {default.name}", served, True), *found.values())
    return tuple(found.values())


def _layers(default: MemoryPlan, num_layers: int) -> Iterator[tuple[str, Variation]]:
    """Windows of a third, half and two thirds of the depth, all layers, every second one, and the default's."""
    step = max(1, num_layers // 6)
    windows = [range(num_layers)]
    for width in (4 * step, 3 * step, 2 * step):
        windows += [range(begin, begin + width) for begin in range(0, num_layers - width + 1, step)]
    windows += [range(1, num_layers, 2), range(num_layers // 2 + 1, num_layers, 2)]
    for window in (*windows, default.memory_layers):
        layers = tuple(window)
        if layers:
            yield layers_label(layers) if len(layers) > 1 else str(layers[0]), _of(default, memory_layers=layers)


def _tokens(default: MemoryPlan) -> Iterator[tuple[str, Variation]]:
    for tokens in sorted({*TOKENS_PER_MEMORY, default.tokens_per_memory}):
        if tokens <= default.max_reference_tokens:
            yield str(tokens), _of(default, tokens_per_memory=tokens)


def _fields(default: MemoryPlan, field: str, values: Sequence[str | int]) -> Iterator[tuple[str, Variation]]:
    known = getattr(default, field)
    for value in values if known in values else (*values, known):
        yield str(value), _of(default, **{field: value})


def _positions(default: MemoryPlan) -> Iterator[tuple[str, Variation]]:
    yield "parallel", Variation(default)
    yield "parallel, right-aligned", Variation(default, positions="right-aligned")
    yield "sequential", Variation(default, positions="sequential", gap=None)


def _gaps(default: MemoryPlan) -> Iterator[tuple[str, Variation]]:
    yield "behind the longest", Variation(default, gap=None)
    for gap in (0, *GAPS):
        yield str(gap), Variation(default, gap=gap)


def _sinks(default: MemoryPlan) -> Iterator[tuple[str, Variation]]:
    yield "as served", Variation(default)
    yield "without separator", _of(default, separator="")
    yield "prefix kept in every memory", Variation(default, sink="in every memory")
    yield "references without prefix", Variation(default, sink="references without")
    yield "prefix, and BOS behind memories", _of(default, context_bos=default.prefix)
    yield (
        "BOS behind memories only",
        Variation(replace(default, context_bos=default.prefix), sink="behind memories only"),
    )
    yield "no prefix anywhere", Variation(default, sink="none")
    yield "prefix with 'Reference:'", _of(default, prefix=f"{default.prefix}Reference:")


def _of(default: MemoryPlan, **changes: object) -> Variation:
    return Variation(replace(default, **changes))  # type: ignore[arg-type]
