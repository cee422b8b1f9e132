"""Which tokens of prompt and output ask for memories."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.engine.query import generated_query, prompt_queries

CHUNK = 64


def _queries(is_content: list[bool]) -> list[tuple[int, ...] | None]:
    return prompt_queries(range(len(is_content)), is_content, CHUNK)


@pytest.mark.parametrize(("num_tokens", "num_chunks"), [(1, 1), (63, 1), (64, 1), (65, 2), (128, 2), (129, 3)])
def test_there_is_one_query_for_each_chunk_of_the_grid(num_tokens: int, num_chunks: int) -> None:
    assert len(_queries([True] * num_tokens)) == num_chunks


def test_a_full_chunk_asks_with_itself() -> None:
    assert _queries([True] * 128) == [tuple(range(64)), tuple(range(64, 128))]


def test_a_partial_last_chunk_asks_with_the_64_tokens_up_to_its_end() -> None:
    assert _queries([True] * 70) == [tuple(range(64)), tuple(range(6, 70))]


def test_scaffolding_is_left_out() -> None:
    is_content = [False] * 10 + [True] * 30 + [False] * 24
    assert _queries(is_content) == [tuple(range(10, 40))]


def test_a_chunk_with_few_content_tokens_takes_content_from_before_it() -> None:
    is_content = [True] * 64 + [False] * 49 + [True] * 15 + [True] * 64
    assert _queries(is_content) == [tuple(range(64)), (*range(15, 64), *range(113, 128)), tuple(range(128, 192))]


def test_a_chunk_with_16_content_tokens_asks_with_them_alone() -> None:
    is_content = [True] * 64 + [False] * 48 + [True] * 16 + [True] * 64
    assert _queries(is_content)[1] == tuple(range(112, 128))


def test_a_chunk_without_content_inherits() -> None:
    is_content = [True] * 64 + [False] * 64 + [True] * 64 + [False] * 3
    assert _queries(is_content) == [tuple(range(64)), None, tuple(range(128, 192)), None]


def test_the_first_chunk_without_content_takes_the_first_content_of_the_prompt() -> None:
    is_content = [False] * 64 + [True] * 100
    queries = _queries(is_content)
    assert queries[0] == tuple(range(64, 128))
    assert queries[1] == tuple(range(64, 128))
    assert queries[2] == tuple(range(100, 164))


def test_a_prompt_without_content_asks_nothing() -> None:
    assert _queries([False] * 130) == [None, None, None]


@given(st.lists(st.booleans(), min_size=1, max_size=400))
def test_queries_are_content_in_order_and_never_of_the_future(is_content: list[bool]) -> None:
    queries = _queries(is_content)
    for chunk, query in enumerate(queries):
        own = [index for index in range(chunk * CHUNK, min(len(is_content), (chunk + 1) * CHUNK)) if is_content[index]]
        if query is None:
            assert not own
            continue
        assert 1 <= len(query) <= CHUNK
        assert list(query) == sorted(set(query))
        assert all(is_content[index] for index in query)
        assert set(own) <= set(query)
        assert max(query) < (chunk + 1) * CHUNK or (chunk == 0 and not own)
    assert (queries[0] is None) == (not any(is_content))


def test_output_is_filled_up_with_content_of_the_prompt() -> None:
    is_content = [True] * 20 + [False] * 4
    assert generated_query(range(24), is_content, [100 + i for i in range(56)], CHUNK) == (
        *range(12, 20),
        *range(100, 156),
    )


def test_enough_output_asks_alone() -> None:
    assert generated_query(range(24), [True] * 24, list(range(120)), CHUNK) == tuple(range(56, 120))


def test_little_output_after_a_prompt_without_content_asks_alone() -> None:
    assert generated_query(range(24), [False] * 24, [7, 8], CHUNK) == (7, 8)
