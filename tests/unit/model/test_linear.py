"""Both ways of a linear layer are the same product, whichever a processor is given."""

from __future__ import annotations

import pytest
import torch

from model import linear as module
from model.linear import linear, numbers_of_columns, weights_left, weights_right

_XEON = {"avx512_f": True, "avx512_bf16": False}
_EPYC = {"avx512_f": True, "avx512_bf16": True}


@pytest.mark.parametrize("with_residual", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("num_tokens", [1, 2, 8, 17])
def test_both_ways_are_the_product(num_tokens: int, dtype: torch.dtype, *, with_residual: bool) -> None:
    draw = torch.Generator().manual_seed(num_tokens)
    x_TI, weight_OI, residual_TO = (
        torch.randn(*shape, generator=draw).to(dtype) for shape in ((num_tokens, 24), (40, 24), (num_tokens, 40))
    )
    added = residual_TO if with_residual else None
    expected = x_TI.double() @ weight_OI.double().T + (residual_TO.double() if with_residual else 0)
    tolerance = 1e-5 if dtype is torch.float32 else 0.1
    for way in (weights_left, weights_right, linear):
        y_TO = way(x_TI, weight_OI, added)
        assert y_TO.dtype is dtype
        torch.testing.assert_close(y_TO.double(), expected, atol=tolerance, rtol=1e-2)


@pytest.mark.parametrize("num_tokens", [1, 9])
def test_the_way_back_is_the_same(num_tokens: int) -> None:
    grads = []
    for way in (weights_left, weights_right):
        draw = torch.Generator().manual_seed(5)
        x_TI, weight_OI, residual_TO = (
            torch.randn(*shape, generator=draw).requires_grad_()
            for shape in ((num_tokens, 24), (40, 24), (num_tokens, 40))
        )
        way(x_TI, weight_OI, residual_TO).square().sum().backward()
        grads.append([x_TI.grad, weight_OI.grad, residual_TO.grad])
    for one, other in zip(*grads, strict=True):
        torch.testing.assert_close(one, other, atol=1e-3, rtol=1e-4)


def test_the_way_is_chosen_by_processor_format_and_number(monkeypatch: pytest.MonkeyPatch) -> None:
    taken = []
    for name in ("weights_left", "weights_right"):
        monkeypatch.setattr(module, name, lambda *_, name=name: taken.append(name))
    for cpu, dtype in ((_XEON, torch.float32), (_XEON, torch.bfloat16), (_EPYC, torch.bfloat16), ({}, torch.float32)):
        monkeypatch.setattr(module, "_NUM_COLUMNS", numbers_of_columns(cpu))
        for num_tokens in (1, 8, 48, 49):
            linear(torch.zeros(num_tokens, 4, dtype=dtype), torch.zeros(3, 4, dtype=dtype))
    left, right = "weights_left", "weights_right"
    assert taken == [right, left, left, right, *[right] * 4, left, left, right, right, *[right] * 4]
