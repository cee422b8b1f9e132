"""Pages: a reader is shown each token that a head keeps, once, however few the reference has."""

import pytest
import torch

from model.memory.pages import PageTable, heads_of_pages, page_starts
from model.memory.sparsify import choose_pages
from tests.helpers.tiny_model import tiny_plan

CPU = torch.device("cpu")
PAGES = ((0, 1), (3, 0))


@pytest.mark.parametrize("num_tokens", [1, 5, 6, 7, 11, 12, 13, 17, 18, 19, 40])
def test_every_kept_token_is_shown_once(num_tokens: int) -> None:
    plan = tiny_plan(pages_per_head=PAGES, max_reference_tokens=40)
    table = PageTable(plan, 2, CPU)
    scores_11T = torch.arange(num_tokens).float()[None, None]
    places_1GS = choose_pages(scores_11T, torch.ones(1, num_tokens, dtype=torch.bool), (3,), 6)
    shown_JS = table.visible(1)[num_tokens, 0, :, : places_1GS.shape[2]]
    shown = places_1GS[0][shown_JS].tolist()
    assert sorted(shown) == list(range(max(0, num_tokens - 18), num_tokens))


def test_pages_are_full_and_ascending_even_of_short_references() -> None:
    places_1GS = choose_pages(torch.arange(8.0)[None, None], torch.ones(1, 8, dtype=torch.bool), (3,), 6)
    assert places_1GS.tolist() == [[[0, 1, 2, 3, 4, 5], [2, 3, 4, 5, 6, 7], [2, 3, 4, 5, 6, 7]]]


def test_rows_of_absent_memories_and_of_heads_with_fewer_pages_are_hidden() -> None:
    table = PageTable(tiny_plan(pages_per_head=PAGES), 2, CPU)
    assert not table.visible(1)[0].any()
    assert not table.visible(1)[:, 1].any()
    assert table.visible(0)[20].tolist() == [[[False] * 6], [[True] * 6]]


def test_rows_and_pages_lie_as_the_plan_says() -> None:
    table = PageTable(tiny_plan(pages_per_head=PAGES), 2, CPU)
    assert [table.num_rows(0), table.num_rows(1)] == [6, 18]
    assert table.of_heads(0)[1].tolist() == [0]
    assert table.of_heads(1)[0].tolist() == [1, 2, 3]
    assert heads_of_pages((3, 0, 2), CPU).tolist() == [0, 0, 0, 2, 2]


def test_a_layer_may_have_no_pages() -> None:
    table = PageTable(tiny_plan(pages_per_head=((0, 0), (3, 1))), 2, CPU)
    assert [table.num_rows(0), table.num_rows(1)] == [0, 18]


def test_one_page_each_is_the_plan_without_pages() -> None:
    one_each = PageTable(tiny_plan(pages_per_head=((1, 1), (1, 1))), 2, CPU)
    none = PageTable(tiny_plan(), 2, CPU)
    for layer in (0, 1):
        assert torch.equal(one_each.of_heads(layer), none.of_heads(layer))
        assert torch.equal(one_each.visible(layer), none.visible(layer))


def test_starts_never_reach_beyond_what_is_kept() -> None:
    assert page_starts(3, 24, 8) == [0, 8, 16]
    assert page_starts(3, 20, 8) == [0, 8, 12]
    assert page_starts(3, 5, 8) == [0, 0, 0]
    assert page_starts(0, 0, 8) == []
