"""Each stage on arrays, undone in torch for a batch of memories: the inverse of the stage's `encode`.

Names and dtypes are the stage's; every tensor has a leading dimension of memories, and lies on one device.
"""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from model.codec.base import VECTOR_ARRAYS, ArraysToArrays
from model.codec.floats import Bf16, Fp32
from model.codec.int4 import NUMBERS_OF_BYTE, Int4
from model.codec.int8 import Int8
from model.codec.scales import scale_of
from model.codec.trellis import Trellis
from model.expansion.trellis import TrellisExpansion

Tensors = dict[str, Tensor]
Expansion = Callable[[Tensors], Tensors]
FusedExpansion = Callable[[Tensor], tuple[Tensor, Tensor, Tensor]]
"""Payloads `[U, X]` to keys, values and positions."""

log = logging.getLogger(__name__)


def expansion_of(stage: ArraysToArrays, device: torch.device) -> Expansion:
    """What undoes the stage, its tables on the device. Raises TypeError on a stage without one."""
    match stage:
        case Fp32():
            return lambda arrays: arrays
        case Bf16():
            return lambda arrays: _each_vector_array(arrays, _from_bf16)
        case Int8():
            return lambda arrays: _each_vector_array(arrays, _from_int8)
        case Int4():
            pairs = torch.from_numpy(NUMBERS_OF_BYTE).to(device)
            return lambda arrays: _each_vector_array(
                arrays, lambda tensors, name: _from_int4(tensors, name, pairs, stage.group_size)
            )
        case Trellis():
            return TrellisExpansion(stage, device)
    raise TypeError(f"codec stage {stage.name!r} has no expansion; give it one in model/expansion/stages.py")


def fused_expansion_of(
    stages: Sequence[ArraysToArrays], device: torch.device, dtype: torch.dtype
) -> FusedExpansion | None:
    """One kernel that undoes all the stages, if there is one for them and this machine can compile it."""
    stage = stages[0] if len(stages) == 1 else None
    if device.type != "cuda" or not isinstance(stage, Trellis) or importlib.util.find_spec("triton") is None:
        return None
    from model.expansion.fused_trellis import FusedTrellis  # noqa: PLC0415 - needs triton

    try:
        return FusedTrellis(stage, device, dtype)
    except Exception as error:  # whatever triton, or the C compiler it calls, may lack
        log.warning("no kernel for codec stage trellis (%s: %s); expanding takes longer", type(error).__name__, error)
        return None


def _each_vector_array(arrays: Tensors, expand: Callable[[Tensors, str], Tensor]) -> Tensors:
    return {name: expand(arrays, name) for name in VECTOR_ARRAYS} | {"positions": arrays["positions"]}


def _from_bf16(arrays: Tensors, name: str) -> Tensor:
    return arrays[name].view(torch.bfloat16)


def _from_int8(arrays: Tensors, name: str) -> Tensor:
    return arrays[name].float() * arrays[scale_of(name)].float()[..., None]


def _from_int4(arrays: Tensors, name: str, pairs: Tensor, group_size: int) -> Tensor:
    codes = arrays[name]
    numbers = pairs.index_select(0, codes.flatten().int()).view(*codes.shape[:-1], -1)
    scales = arrays[scale_of(name)].float().repeat_interleave(group_size, dim=-1)
    return numbers * scales[..., : numbers.shape[-1]]
