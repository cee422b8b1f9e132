"""One linear layer, by the fastest of the ways the CPU has for few tokens. Knows no model.

Shape letters: T tokens, I inputs, O outputs.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

_FEW_TOKENS = 16


def linear(x_TI: Tensor, weight_OI: Tensor, residual_TO: Tensor | None = None) -> Tensor:
    """`x @ weight.T + residual`, `[T, O]`, not always contiguous."""
    if len(x_TI) > _FEW_TOKENS or weight_OI.dtype is not torch.bfloat16 or weight_OI.device.type != "cpu":
        if residual_TO is None:
            return functional.linear(x_TI, weight_OI)
        return torch.addmm(residual_TO, x_TI, weight_OI.t())
    # The bfloat16 kernel is 1.5 times faster with the weights on the left, and needs two columns for it.
    num_tokens = len(x_TI)
    x_IT = _two_rows(x_TI).t()
    y_OT = weight_OI @ x_IT if residual_TO is None else torch.addmm(_two_rows(residual_TO).t(), weight_OI, x_IT)
    return y_OT[:, :num_tokens].t()


def _two_rows(x_TI: Tensor) -> Tensor:
    return x_TI.expand(2, -1) if len(x_TI) == 1 else x_TI
