"""The warmup-stable-decay schedule (paper 3.6 by way of MiniCPM). Knows no optimiser."""

from __future__ import annotations


def warmup_stable_decay(step: int, *, steps: int, warmup_steps: int, decay_steps: int) -> float:
    """Share of the full learning rate in this step, counted from 0: a linear rise, a plateau, a linear fall to zero.

    The first step already learns, and so does the last.
    """
    rise = (step + 1) / (warmup_steps + 1) if step < warmup_steps else 1.0
    left = steps - step
    fall = left / (decay_steps + 1) if left <= decay_steps else 1.0
    return min(rise, fall)
