"""One linear layer, by the faster of the two ways the CPU has for few tokens. Knows no model.

Shape letters: T tokens, I inputs, O outputs.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional


def numbers_of_columns(cpu: Mapping[str, object]) -> dict[torch.dtype, range]:
    """Numbers of tokens, by number format, for which weights on the left are faster on a processor (`bench.linear`).

    `cpu`: its capabilities, as torch names them.
    """
    columns = {}
    if cpu.get("avx512_f"):
        # With so few rows on the left, the library there packs the weights anew for every product.
        columns[torch.float32] = range(8, 49)
    if cpu.get("avx512_bf16") or cpu.get("amx_bf16"):
        columns[torch.bfloat16] = range(1, 17)
    return columns


# An older torch, as a GPU's machine may have, cannot tell.
_NUM_COLUMNS = numbers_of_columns(getattr(torch.cpu, "get_capabilities", dict)())


def linear(x_TI: Tensor, weight_OI: Tensor, residual_TO: Tensor | None = None) -> Tensor:
    """`x @ weight.T + residual`, `[T, O]`, not always contiguous."""
    if weight_OI.device.type == "cpu" and len(x_TI) in _NUM_COLUMNS.get(weight_OI.dtype, ()):
        return weights_left(x_TI, weight_OI, residual_TO)
    return weights_right(x_TI, weight_OI, residual_TO)


def weights_right(x_TI: Tensor, weight_OI: Tensor, residual_TO: Tensor | None = None) -> Tensor:
    """Tokens are rows."""
    if residual_TO is None:
        return functional.linear(x_TI, weight_OI)
    return torch.addmm(residual_TO, x_TI, weight_OI.t())


def weights_left(x_TI: Tensor, weight_OI: Tensor, residual_TO: Tensor | None = None) -> Tensor:
    """Tokens are columns; what comes back is a view of them."""
    num_tokens = len(x_TI)
    x_IT = _two_rows(x_TI).t()
    y_OT = weight_OI @ x_IT if residual_TO is None else torch.addmm(_two_rows(residual_TO).t(), weight_OI, x_IT)
    return y_OT[:, :num_tokens].t()


def _two_rows(x_TI: Tensor) -> Tensor:
    # One column alone would be a product with a vector, for which bfloat16 has a slow kernel.
    return x_TI.expand(2, -1) if len(x_TI) == 1 else x_TI
