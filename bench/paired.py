"""Two evaluations of the same items, item by item: how much worse one checkpoint is than the other, with its error."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

LIMIT = 0.02
"""Share of the NLL that an adapter may cost where nothing is read as memory."""
_ERRORS = 1.96


@dataclass(frozen=True)
class Change:
    """Of a mean NLL, as a share of it."""

    items: int
    before: float
    after: float
    share: float
    """after / before - 1."""
    share_se: float
    """Standard error over the items drawn, each with itself."""

    @property
    def verdict(self) -> str:
        """Whether it is worse by more than the limit, by the 95 % interval."""
        low, high = self.share - _ERRORS * self.share_se, self.share + _ERRORS * self.share_se
        return "within" if high <= LIMIT else "beyond" if low > LIMIT else "open"


def change(before: Mapping[str, Any], after: Mapping[str, Any], mode: str) -> Change:
    """From one report of `memory3 eval --json` to another, in one mode. Raises ValueError if the items differ."""
    ids = [[item["item_id"] for item in report["items"]] for report in (before, after)]
    if ids[0] != ids[1] or len(ids[0]) < 2:
        raise ValueError(
            f"evaluations of {len(ids[0])} and {len(ids[1])} items, which must be the same two or more; measure both "
            "with one set, split, seed and number"
        )
    first, second = (np.array([item["nll"][mode] for item in report["items"]]) for report in (before, after))
    ratio = second.mean() / first.mean()
    residues = (second - ratio * first) / first.mean()
    error = residues.std(ddof=1) / len(residues) ** 0.5
    return Change(len(first), float(first.mean()), float(second.mean()), float(ratio - 1), float(error))
