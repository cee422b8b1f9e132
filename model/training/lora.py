"""Low-rank adapters on our fused weights, with one pair of factors for each projection that other tools know.

The update is applied to activations, never added to the frozen weights: they then need no gradient, which saves a third
of a step. `model.adapter` keeps what is trained here as files and adds it to the weights for serving.

Shape letters: T tokens, I inputs, O outputs, R rank, S the ranks of all parts of one fused weight.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from model.config import ModelConfig
from model.transformer import Layer, Transformer

TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
"""Projections that can have an adapter, by the names of Hugging Face."""

FUSED = {
    "qkv_AC": ("q_proj", "k_proj", "v_proj"),
    "out_CE": ("o_proj",),
    "gate_up_FC": ("gate_proj", "up_proj"),
    "down_CW": ("down_proj",),
}
"""Our weight -> the projections that lie in its rows, in order."""


def projection_sizes(config: ModelConfig) -> dict[str, int]:
    """Rows (outputs) of each projection."""
    kv = config.num_kv_heads * config.head_dim
    return {
        "q_proj": config.num_heads * config.head_dim,
        "k_proj": kv,
        "v_proj": kv,
        "o_proj": config.hidden_dim,
        "gate_proj": config.mlp_dim,
        "up_proj": config.mlp_dim,
        "down_proj": config.hidden_dim,
    }


class LowRankUpdate(nn.Module):
    """What an adapter adds to the product of one fused weight: scale x (x A^T) B^T, block by block."""

    def __init__(
        self, parts: Sequence[tuple[str, int]], targets: Sequence[str], num_inputs: int, rank: int, scale: float
    ) -> None:
        """`parts`: projections and their rows, in order; those not in `targets` stay as they are."""
        super().__init__()
        self._parts = tuple(parts)
        self._scale = scale
        self._held: tuple[Tensor, Tensor] | None = None
        self.enabled = True
        self.down = nn.ParameterDict({name: torch.zeros(rank, num_inputs) for name, _ in parts if name in targets})
        self.up = nn.ParameterDict({name: torch.zeros(rows, rank) for name, rows in parts if name in targets})

    def forward(self, x_TI: Tensor, y_TO: Tensor) -> Tensor:
        """`y_TO` with the update added, in its dtype."""
        if not self.enabled:
            return y_TO
        dtype = y_TO.dtype
        down_SI, up_OS = self._joined(dtype) if self._held is None else self._held
        inner_TS = x_TI.to(dtype) @ down_SI.t()
        updated_TO: Tensor = torch.addmm(y_TO, inner_TS, up_OS.t(), alpha=self._scale)
        return updated_TO

    def hold(self, dtype: torch.dtype | None) -> None:
        """Put the factors together now, for all calls until this is called again; None: for each call anew."""
        self._held = None if dtype is None else self._joined(dtype)

    def _joined(self, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """All parts' factors as one pair."""
        down_SI = torch.cat([self.down[name] for name, _ in self._parts if name in self.down])
        up_OS = torch.block_diag(*[self.up[name] if name in self.up else self._nothing(n) for name, n in self._parts])
        return down_SI.to(dtype), up_OS.to(dtype)

    def _nothing(self, rows: int) -> Tensor:
        return torch.zeros(rows, 0, device=next(self.parameters()).device)


def add_adapter(
    transformer: Transformer,
    *,
    rank: int,
    alpha: float,
    targets: Sequence[str] = TARGETS,
    first_layer: int = 0,
    seed: int = 0,
) -> None:
    """Give the model trainable factors, float32, beside its frozen weights. Until trained they change nothing.

    Layers below `first_layer` get none: the way back ends there, which saves its time.

    Raises ValueError if a target is unknown or there is none.
    """
    unknown = sorted(set(targets) - set(TARGETS))
    if unknown or not targets:
        raise ValueError(f"adapter targets are {list(targets)}; choose some of {', '.join(TARGETS)}")
    if rank < 1:
        raise ValueError(f"adapter rank is {rank}; give at least 1")
    sizes = projection_sizes(transformer.config)
    generator = torch.Generator().manual_seed(seed)
    for layer in list(_layers(transformer))[first_layer:]:
        for weight, names in FUSED.items():
            if not set(names) & set(targets):
                continue
            num_inputs = getattr(layer, weight).shape[1]
            update = LowRankUpdate([(name, sizes[name]) for name in names], targets, num_inputs, rank, alpha / rank)
            for down_RI in update.down.values():
                # As PEFT: uniform with bound 1/sqrt(inputs); the other factor is zero.
                noise_RI = torch.rand(down_RI.shape, generator=generator)
                down_RI.data.copy_((2 * noise_RI - 1) / num_inputs**0.5)
            layer.updates[weight] = update.to(transformer.device)


def adapter_factors(transformer: Transformer) -> dict[str, tuple[Tensor, Tensor]]:
    """`layers.0.self_attn.q_proj` and so on -> its factors `down_RI` and `up_OR`, as they are being trained."""
    factors = {}
    for index, layer in enumerate(_layers(transformer)):
        for update in layer.updates.values():
            assert isinstance(update, LowRankUpdate)
            for name in update.down:
                factors[f"layers.{index}.{module_of(name)}"] = (update.down[name], update.up[name])
    return factors


def module_of(projection: str) -> str:
    """Where Hugging Face has a projection within a layer."""
    return f"{'self_attn' if projection[0] in 'qkvo' else 'mlp'}.{projection}"


@contextmanager
def factors_held(transformer: Transformer) -> Iterator[None]:
    """Within this the factors are put together once, and not in every pass: the passes of one step share a graph.

    The factors must not change meanwhile. With activation checkpointing nothing is held: going back repeats a pass as
    it was.
    """
    updates = _updates(transformer)
    for update in updates:
        update.hold(None if transformer.recompute else transformer.dtype)
    try:
        yield
    finally:
        for update in updates:
            update.hold(None)


@contextmanager
def adapter_off(transformer: Transformer) -> Iterator[None]:
    """Within this the model is the base model."""
    updates = _updates(transformer)
    for update in updates:
        update.enabled = False
    try:
        yield
    finally:
        for update in updates:
            update.enabled = True


def _updates(transformer: Transformer) -> list[LowRankUpdate]:
    updates = (update for layer in _layers(transformer) for update in layer.updates.values())
    return [update for update in updates if isinstance(update, LowRankUpdate)]


def _layers(transformer: Transformer) -> Iterator[Layer]:
    for layer in transformer.layers:
        assert isinstance(layer, Layer)
        yield layer
