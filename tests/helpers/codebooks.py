"""Codebooks of any shape, without training one."""

from __future__ import annotations

import functools
from dataclasses import replace
from pathlib import Path

import numpy as np

from model.checkpoint import read_config, weights_digest
from model.codec.codebook import Codebook, CodebookOrigin
from model.codec.resolve import codebook_origin, codebook_shape
from model.plan import MemoryPlan
from model.quantisation.levels import normal_levels

KEY_SIZE = 10.0
"""Standard deviation of the keys this fits; values have 1."""


@functools.cache
def a_codebook(
    num_layers: int = 3, num_heads: int = 2, head_dim: int = 16, least_bits: int = 6, value_gain: float = 1.0
) -> Codebook:
    """Random directions, and `least_bits` to `least_bits` + 2 bits for each number of a normally distributed vector."""
    rng = np.random.default_rng(head_dim)
    shape = (num_layers, num_heads, 2 * head_dim)
    basis_LKIE = np.linalg.qr(rng.standard_normal((*shape, 2 * head_dim)))[0]
    basis_LKIE[..., :head_dim] *= KEY_SIZE
    origin = CodebookOrigin("a" * 64, tuple(range(num_layers)), 10_000.0, 1)
    bits_LKI = rng.integers(least_bits, least_bits + 3, shape).astype(np.uint8)
    mean_LKE = 0.1 * rng.standard_normal(shape)
    arrays = mean_LKE.astype(np.float32), basis_LKIE.astype(np.float32), bits_LKI, normal_levels()
    return Codebook(origin, *arrays, value_gain=value_gain)


def codebook_for(directory: Path, plan: MemoryPlan, num_prefix_tokens: int) -> Codebook:
    """One that a reader of this model directory and plan takes; its directions are random."""
    config = read_config(directory)
    origin = codebook_origin(plan, config, weights=weights_digest(directory), num_prefix_tokens=num_prefix_tokens)
    return replace(a_codebook(*codebook_shape(plan, config)), origin=origin)
