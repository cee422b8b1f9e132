"""Scales of the integer stages where float arithmetic ends."""

from __future__ import annotations

import numpy as np
import pytest

from model.codec.scales import SCALE_DTYPES, codes_of, scales_of


@pytest.mark.parametrize("scale_dtype", SCALE_DTYPES)
@pytest.mark.parametrize("largest_code", [7, 127])
def test_the_smallest_numbers_have_a_scale(scale_dtype: str, largest_code: int) -> None:
    smallest = np.nextafter(np.float32(0), np.float32(1))
    numbers = np.array([[smallest, -3 * smallest], [0, 0]], dtype=np.float32)
    scale = scales_of(numbers, largest_code, scale_dtype, "int", "keys")
    assert float(scale[0]) * largest_code >= 3 * float(smallest)
    assert scale[1] == 0
    error = codes_of(numbers, scale) * scale[:, None].astype(np.float64) - numbers
    assert np.abs(error).max() <= float(scale[0]) / 2


def test_no_number_is_clipped_by_a_scale_that_is_rounded() -> None:
    numbers = np.random.default_rng(3).normal(size=(500, 8)).astype(np.float32)
    scale = scales_of(numbers, 7, "float16", "int4", "keys")
    assert (scale.astype(np.float32) * 7 >= np.abs(numbers).max(axis=-1)).all()
