"""Which tokens ask for memories (paper 3.1: a query is the chunk itself; while generating, the 64 tokens before).

The paper leaves partial chunks and template scaffolding open. Here only content asks: scaffolding says nothing of what
the user wants to know, and a query of a few words finds little, so a thin chunk asks with the content before it too.
"""

from collections.abc import Sequence

MIN_OWN_CONTENT_TOKENS = 16
"""A chunk with fewer content tokens than this asks with content from before it as well."""


def prompt_queries(
    tokens: Sequence[int], is_content: Sequence[bool], chunk_tokens: int
) -> list[tuple[int, ...] | None]:
    """The query of each prompt chunk; None for a chunk that reads on what the chunk before it read.

    Chunks lie on a grid of `chunk_tokens` from the first token; the last may be partial. The first is None only when
    the whole prompt has no content.
    """
    content = [index for index, marked in enumerate(is_content) if marked]
    queries: list[tuple[int, ...] | None] = []
    num_before = 0  # content tokens before this chunk
    for start in range(0, len(tokens), chunk_tokens):
        end = start + chunk_tokens
        num_until = num_before
        while num_until < len(content) and content[num_until] < end:
            num_until += 1
        num_own = num_until - num_before
        if num_own == 0:
            chosen = content[:chunk_tokens] if start == 0 else []
        elif end > len(tokens) or num_own < MIN_OWN_CONTENT_TOKENS:
            chosen = content[max(0, num_until - chunk_tokens) : num_until]
        else:
            chosen = content[num_before:num_until]
        queries.append(tuple(tokens[index] for index in chosen) or None)
        num_before = num_until
    return queries


def generated_query(
    tokens: Sequence[int], is_content: Sequence[bool], output_tokens: Sequence[int], chunk_tokens: int
) -> tuple[int, ...]:
    """The last `chunk_tokens` tokens of content and output, oldest first."""
    query = list(output_tokens[-chunk_tokens:])
    for index in range(len(tokens) - 1, -1, -1):
        if len(query) == chunk_tokens:
            break
        if is_content[index]:
            query.insert(0, tokens[index])
    return tuple(query)
