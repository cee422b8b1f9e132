"""Running text as sequences: where they are cut, which references they read, and that none gives them away."""

from __future__ import annotations

import random

from model.training.leak import leaks
from services.training.nearest import NearestReferences
from services.training.sequences import Sequences, SequenceSource, cut_references, cut_sequences, find_references
from tests.helpers.tiny_model import tiny_plan

PLAN = tiny_plan(query_chunk_tokens=4, memories_per_chunk=3)


def test_documents_are_cut_into_sequences_and_references() -> None:
    documents = [[1, 2, 3, 4, 5], [6, 7]]
    assert cut_sequences(documents, 4, [0]) == [(1, 2, 3, 4), (5, 0, 6, 7)]
    assert cut_references(documents, 3) == [(1, 2, 3), (4, 5), (6, 7)]


def test_the_nearest_reference_shares_rare_tokens() -> None:
    references = [(1, 1, 2, 3), (1, 1, 8, 9), (1, 1, 4, 5)]
    assert NearestReferences(references, 10).search([(1, 9, 8), (4, 1, 1)], 1) == [[1], [2]]


def test_no_reference_gives_its_sequence_away() -> None:
    draw = random.Random(0)
    documents = [[draw.randrange(50) for _ in range(24)] for _ in range(6)]
    sequences, references = cut_sequences(documents, 12, [0]), cut_references(documents, 8)
    data = find_references(sequences, references, PLAN, 50)
    chosen = [(number, place) for number, of in enumerate(data.reference_of) for place in of if place is not None]
    assert len(chosen) > len(sequences)
    assert not any(leaks(sequences[number], references[place]) for number, place in chosen)


DATA = Sequences(
    tokens=((1,) * 16, (2,) * 16),
    references=((10,), (11,), (12,), (13,)),
    reference_of=((3, None, 1, 3), (0, 1, 2, 3)),
)


def source(memories_from: int | None) -> SequenceSource:
    return SequenceSource(DATA, PLAN, items=2, accumulation=1, seed=1, memories_from=memories_from)


def test_a_chunk_reads_its_own_reference_and_those_of_the_window_before_it() -> None:
    batch = source(0).batch([0, 1], reads_memories=True)
    assert batch.references == ((13,), (11,), (10,), (12,))
    read = [
        [{batch.references[place] for place in chunk} for chunk in context.chunk_references or ()]
        for context in batch.contexts
    ]
    assert read[0] == [{(13,)}, {(13,)}, {(13,), (11,)}, {(11,), (13,)}]
    assert read[1] == [{(10,)}, {(10,), (11,)}, {(10,), (11,), (12,)}, {(11,), (12,), (13,)}]


def test_all_arms_see_the_same_text_and_memories_from_their_step_on() -> None:
    arms = [source(start) for start in (None, 0, 3)]
    for step in range(5):
        batches = [arm.pieces(step, 0, 1)[0] for arm in arms]
        assert len({tuple(context.tokens for context in batch.contexts) for batch in batches}) == 1
        assert [batch.contexts[0].reads_memories for batch in batches] == [False, True, step >= 3]
