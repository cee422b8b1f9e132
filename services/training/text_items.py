"""Running text as items: to be gone on with after its neighbours, or to be said again. Knows no tokenizer."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

from services.datasets.item import DatasetError, Item, Passage, parted
from services.datasets.lengths import chunks, spans

CONTINUE, RECALL = "text", "recall"
"""Names of the sources of running text; every other name is a question set."""

_WINDOW = 5
"""Neighbouring places of one long document that make a kind: drawn together, they share most of their references."""
_LONGEST_CUE = 6
"""Words of a sentence that say which one is to be said again."""
_SHORTEST_SENTENCE = 8
"""Words; shorter ones are not asked for."""

Documents = Sequence[Sequence[str]]
"""Each in neighbouring chunks, none longer than a reference."""


def read_folder(folder: Path) -> list[list[str]]:
    """The `.txt` files below a folder, in the order of their paths. Raises DatasetError if there are none."""
    try:
        texts = [path.read_text(encoding="utf-8") for path in sorted(folder.rglob("*.txt"))]
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(f"a text below {folder} cannot be read ({error}); give files of UTF-8") from error
    documents = [pieces for text in texts if (pieces := chunks(" ".join(text.split())))]
    if not documents:
        raise DatasetError(f"no .txt file with text below {folder}; give a folder that has some")
    return documents


def long_text_items(documents: Documents, count: int, *, seed: int, references: int) -> list[Item]:
    """Places in documents that have as many chunks before them as references: these are the references, in order.

    Wrong references follow each other too, before a place in another document: they are to be told by what they say,
    not by their disorder. Whole windows of neighbouring places are drawn, each a kind of its own. Raises DatasetError.
    """
    draw = random.Random(f"memory3 long text {seed}")
    windows = [
        (number, range(start, min(start + _WINDOW, len(pieces))))
        for number, pieces in enumerate(documents)
        for start in range(references, len(pieces), _WINDOW)
    ]
    num_places, num_long = sum(len(window) for _, window in windows), len({number for number, _ in windows})
    if num_places < count or num_long < 2:
        raise DatasetError(
            f"{count} items of long text asked; {num_long} documents have {num_places} places with {references} chunks "
            "before them: ask for fewer, or give more such documents"
        )
    draw.shuffle(windows)
    places = [(number, window.start, place) for number, window in windows for place in window][:count]
    items = []
    for number, start, place in places:
        near = _before(documents[number], place, references)
        elsewhere, window = draw.choice(windows)
        while elsewhere == number:
            elsewhere, window = draw.choice(windows)
        wrong = _before(documents[elsewhere], window.start, references)
        kind = f"{CONTINUE}-{number}-{start}"
        items.append(_continued(f"{CONTINUE}-{number}-{place}", kind, documents[number][place], near, near, wrong))
    return items


def text_items(documents: Documents, count: int, *, seed: int, references: int) -> list[Item]:
    """Chunks to go on with, their neighbours as references, filled up with other texts' chunks. Raises DatasetError."""
    draw = random.Random(f"memory3 text {seed}")
    long = [number for number, pieces in enumerate(documents) if len(pieces) > 1]
    places = [(number, place) for number in long for place in range(len(documents[number]))]
    items = []
    for number, place in _drawn(draw, places, count):
        pieces = documents[number]
        near = sorted((index for index in range(len(pieces)) if index != place), key=lambda index: abs(index - place))
        gold = [_passage(pieces, index) for index in near[:references]]
        chosen = gold + [_other(documents, draw, number) for _ in range(references - len(gold))]
        draw.shuffle(chosen)
        wrong = [_other(documents, draw, number) for _ in range(references)]
        items.append(_continued(f"{CONTINUE}-{number}-{place}", CONTINUE, pieces[place], chosen, gold, wrong))
    return items


def recall_items(documents: Documents, count: int, *, seed: int, references: int) -> list[Item]:
    """Sentences to be said again from their first words: one reference is their chunk, the others are of other texts.

    What a memory keeps of a text is asked for word by word. Raises DatasetError.
    """
    draw = random.Random(f"memory3 recall {seed}")
    places = [(number, place) for number, pieces in enumerate(documents) for place in range(len(pieces))]
    items = []
    for number, place in _drawn(draw, places, count):
        piece = documents[number][place]
        sentences = [words for one in spans(piece) if len(words := one.split()) >= _SHORTEST_SENTENCE]
        if not sentences:
            continue
        words = draw.choice(sentences)
        cue = draw.randint(3, min(_LONGEST_CUE, len(words) - 2))
        own = _passage(documents[number], place)
        chosen = [own, *(_other(documents, draw, number) for _ in range(references - 1))]
        draw.shuffle(chosen)
        texts, preceding = parted(chosen)
        wrong_texts, wrong_preceding = parted([_other(documents, draw, number) for _ in range(references)])
        items.append(
            Item(
                item_id=f"{RECALL}-{number}-{place}",
                kind=RECALL,
                prompt=" ".join(words[:cue]),
                answer=" " + " ".join(words[cue:]),
                references=texts,
                gold=(chosen.index(own),),
                wrong_references=wrong_texts,
                accepted=(),
                preceding=preceding,
                wrong_preceding=wrong_preceding,
            )
        )
    return items


def _drawn(draw: random.Random, places: Sequence[tuple[int, int]], count: int) -> list[tuple[int, int]]:
    if count > len(places):
        raise DatasetError(f"{count} items of running text asked; there are {len(places)}: ask for at most so many")
    return draw.sample(places, count)


def _continued(
    item_id: str,
    kind: str,
    piece: str,
    references: Sequence[Passage],
    gold: Sequence[Passage],
    wrong: Sequence[Passage],
) -> Item:
    words = piece.split(" ")
    opening = max(1, len(words) // 8)
    texts, preceding = parted(references)
    wrong_texts, wrong_preceding = parted(wrong)
    return Item(
        item_id=item_id,
        kind=kind,
        prompt=" ".join(words[:opening]),
        answer="".join(f" {word}" for word in words[opening:]) or " ",
        references=texts,
        gold=tuple(index for index, one in enumerate(references) if one in gold),
        wrong_references=wrong_texts,
        accepted=(),
        preceding=preceding,
        wrong_preceding=wrong_preceding,
    )


def _before(pieces: Sequence[str], place: int, count: int) -> list[Passage]:
    return [_passage(pieces, before) for before in range(place - count, place)]


def _passage(pieces: Sequence[str], place: int) -> Passage:
    return Passage(pieces[place], pieces[place - 1] if place else "")


def _other(documents: Documents, draw: random.Random, number: int) -> Passage:
    """A chunk of another document."""
    other = draw.randrange(len(documents) - 1)
    pieces = documents[other + (other >= number)]
    return _passage(pieces, draw.choice(range(len(pieces))))
