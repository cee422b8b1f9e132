"""Pages: how the tokens of a memory are spread over its heads.

A memory is L*K pages of S tokens, or r*L*K of S/r: all plans of one S are of equal size. A plan says how many of them
each head fills (`pages_per_head`); they lie in the order of layers, heads, and tokens within a head, and arrays of
pages have r*K of them in each of L layers, whosever they are:

    pages_per_head   ((1, 0), (2, 1))
    page             0: layer 0, head 0 | 1: layer 1, head 0 | 2: layer 1, head 0, further on | 3: layer 1, head 1

A reference may have fewer tokens than the pages of a head. The last page then begins before the end of the one before
it and holds some of its tokens again, so that all pages are full; a reader is shown each token once. Knows no model.

Shape letters: L memory layers, K KV heads, S kept tokens of a page, J pages of the head that has most, G pages of a
layer, R tokens of a reference, from 0 for an absent one.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import accumulate

import torch
from torch import Tensor

from model.plan import MemoryPlan


def page_starts(num_pages: int, num_kept: int, tokens_per_page: int) -> list[int]:
    """Which of a head's `num_kept` tokens each of its pages begins with; a page has `tokens_per_page`, or all."""
    last = max(0, num_kept - tokens_per_page)
    return [min(page * tokens_per_page, last) for page in range(num_pages)]


def heads_of_pages(pages_K: Sequence[int], device: torch.device) -> Tensor:
    """`head_G`: whose each page of a layer is."""
    heads = [head for head, count in enumerate(pages_K) for _ in range(count)]
    return torch.tensor(heads, dtype=torch.long, device=device)


class PageTable:
    """Where a reader finds the tokens of each head in a memory, and which of them it is shown."""

    def __init__(self, plan: MemoryPlan, num_kv_heads: int, device: torch.device) -> None:
        """Raises ValueError if the plan's pages are not for so many KV heads."""
        plan.check_pages(num_kv_heads)
        size = plan.tokens_per_page
        self.tokens_per_page = size
        counts_LK = plan.pages(num_kv_heads)
        firsts = iter(accumulate((count for counts_K in counts_LK for count in counts_K), initial=0))
        self._page_L: list[Tensor] = []
        self._visible_L: list[Tensor] = []
        for counts_K in counts_LK:
            most = max(counts_K)
            page_KJ = torch.zeros(num_kv_heads, most, dtype=torch.long)
            visible_RKJS = torch.zeros(plan.max_reference_tokens + 1, num_kv_heads, most, size, dtype=torch.bool)
            for head, count in enumerate(counts_K):
                page_KJ[head, :count] = torch.arange(count) + next(firsts)
                visible_RKJS[:, head, :count] = _visible(count, size, plan.max_reference_tokens)
            self._page_L.append(page_KJ.to(device))
            self._visible_L.append(visible_RKJS.to(device))

    def num_rows(self, memory_layer: int) -> int:
        """Rows that a memory takes in the `memory_layer`-th memory layer: those of the head that has most pages."""
        return self._page_L[memory_layer].shape[1] * self.tokens_per_page

    def of_heads(self, memory_layer: int) -> Tensor:
        """`page_KJ`: the pages of each head; any page where a head has fewer than J."""
        return self._page_L[memory_layer]

    def visible(self, memory_layer: int) -> Tensor:
        """bool `visible_RKJS`: by the tokens of a reference, which rows are its own and not shown elsewhere."""
        return self._visible_L[memory_layer]


@lru_cache(maxsize=64)
def page_table(plan: MemoryPlan, num_kv_heads: int, device: torch.device) -> PageTable:
    """The table of a plan, made once."""
    with torch.inference_mode(mode=False):  # serving and training share it
        return PageTable(plan, num_kv_heads, device)


def _visible(num_pages: int, tokens_per_page: int, longest_reference: int) -> Tensor:
    """`visible_RJS` of one head."""
    visible_RJS = torch.zeros(longest_reference + 1, num_pages, tokens_per_page, dtype=torch.bool)
    for num_tokens in range(1, longest_reference + 1):
        num_kept, in_page = min(num_tokens, num_pages * tokens_per_page), min(num_tokens, tokens_per_page)
        for page, start in enumerate(page_starts(num_pages, num_kept, tokens_per_page)):
            shown_before = page * tokens_per_page - start
            visible_RJS[num_tokens, page, min(shown_before, in_page) : in_page] = True
    return visible_RJS
