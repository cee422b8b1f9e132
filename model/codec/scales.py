"""Scales of the integer stages: absmax divided by the largest code, in few bits. Knows no arrays' names."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

SCALE_DTYPES = ("float16", "float32")
"""What a scale may be stored as: 2 bytes, or 4 for numbers beyond what a float16 scale can hold."""


def check_scale_dtype(stage: str, scale_dtype: str) -> None:
    """Raises ValueError unless it is one of SCALE_DTYPES."""
    if scale_dtype not in SCALE_DTYPES:
        raise ValueError(f"{stage} scale_dtype is {scale_dtype!r}; choose one of {', '.join(SCALE_DTYPES)}")


def scales_of(
    numbers: NDArray[np.float32], largest_code: int, scale_dtype: str, stage: str, name: str
) -> NDArray[np.floating[Any]]:
    """The scale of each run of numbers along the last axis: absmax / `largest_code`, rounded up to `scale_dtype`.

    Rounded up, so that no number is clipped. A run of zeros has scale 0. Raises ValueError, naming `stage` and the
    array's `name`, if a scale exceeds its dtype.
    """
    largest = np.abs(numbers).max(axis=-1)
    # The quotient of the smallest numbers is rounded to 0, and they are not zeros.
    exact = np.maximum(
        largest / np.float32(largest_code), np.minimum(largest, np.nextafter(np.float32(0), np.float32(1)))
    )
    dtype = np.dtype(scale_dtype)
    with np.errstate(over="ignore"):  # an infinite scale is refused below, with a better message
        scale: NDArray[np.floating[Any]] = exact.astype(dtype)
        # A scale rounded down would clip the largest number of its run.
        scale = np.where(scale.astype(np.float32) < exact, np.nextafter(scale, dtype.type(np.inf)), scale)
    if np.isinf(scale).any():
        raise ValueError(
            f"{name} hold {float(np.abs(numbers).max()):.3g}, more than an {stage} vector with a {scale_dtype} "
            f"scale can hold ({float(np.finfo(dtype).max) * largest_code:.3g}); use scale_dtype float32 or the bf16 "
            "codec"
        )
    return scale


def codes_of(numbers: NDArray[np.float32], scale: NDArray[np.floating[Any]]) -> NDArray[np.int8]:
    """`numbers` / `scale` (without the last axis) to the nearest whole number, ties to even; 0 where the scale is 0."""
    divisor = np.where(scale == 0, 1, scale).astype(np.float32)[..., None]
    codes: NDArray[np.int8] = np.rint(numbers / divisor).astype(np.int8)
    return codes


def scale_of(name: str) -> str:
    """Name of the array of scales that stands behind array `name`."""
    return f"{name}.scale"
