"""Running text as items: neighbours in order, whole sentences asked for again, and clear errors."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from services.datasets.item import DatasetError, Item
from services.training.config import Source
from services.training.sources import load_pool
from services.training.text_items import long_text_items, read_folder, recall_items, text_items

DOCUMENTS = [[f"Document {name} in its part {part} says quite a lot of words." for part in range(12)] for name in "abc"]


def test_a_long_text_goes_on_after_the_chunks_directly_before() -> None:
    items = long_text_items(DOCUMENTS, 15, seed=1, references=5)
    assert len(items) == 15
    for item in items:
        document = next(pieces for pieces in DOCUMENTS if item.prompt + item.answer in pieces)
        place = document.index(item.prompt + item.answer)
        assert list(item.references) == document[place - 5 : place]
        assert list(item.preceding) == ["", *document][place - 5 : place]
        assert item.gold == (0, 1, 2, 3, 4)
        other = next(pieces for pieces in DOCUMENTS if item.wrong_references[0] in pieces)
        first = other.index(item.wrong_references[0])
        assert list(item.wrong_references) == other[first : first + 5]
        assert other is not document


@pytest.mark.parametrize("make", [long_text_items, text_items, recall_items])
def test_every_reference_has_with_it_what_stands_before_it_in_its_document(make: Callable[..., list[Item]]) -> None:
    before = {piece: pieces[place - 1] if place else "" for pieces in DOCUMENTS for place, piece in enumerate(pieces)}
    for item in make(DOCUMENTS, 15, seed=1, references=5):
        passages = (*item.passages, *item.wrong_passages)
        assert len(passages) == 10
        assert all(one.preceding == before[one.text] for one in passages)


def test_a_kind_is_a_window_of_neighbouring_places() -> None:
    kinds: dict[str, list[int]] = {}
    for item in long_text_items(DOCUMENTS, 15, seed=1, references=5):
        kinds.setdefault(item.kind, []).append(int(item.item_id.rsplit("-", 1)[1]))
    assert all(max(places) - min(places) < 5 for places in kinds.values())
    assert any(len(places) == 5 for places in kinds.values())


def test_what_is_recalled_is_the_rest_of_a_sentence_in_the_gold_reference_alone() -> None:
    items = recall_items(DOCUMENTS, 20, seed=1, references=5)
    assert len(items) == 20
    for item in items:
        (gold,) = item.gold
        assert [item.prompt + item.answer in text for text in item.references] == [place == gold for place in range(5)]
        assert len(item.prompt.split()) >= 3
    assert len({item.gold for item in items}) > 1


def test_short_texts_are_filled_up_with_others() -> None:
    for item in text_items([pieces[:3] for pieces in DOCUMENTS], 9, seed=1, references=5):
        assert len(item.gold) == 2
        assert len(item.references) == 5


@pytest.mark.parametrize("make", [long_text_items, text_items, recall_items])
def test_more_than_there_is_is_refused(make: type[object]) -> None:
    with pytest.raises(DatasetError, match="1000 items of"):
        make(DOCUMENTS, 1000, seed=1, references=5)  # type: ignore[call-arg]


def test_a_single_document_long_enough_is_refused() -> None:
    with pytest.raises(DatasetError, match="1 documents have 7 places"):
        long_text_items([DOCUMENTS[0], DOCUMENTS[1][:5]], 3, seed=1, references=5)


def test_a_folder_without_texts_is_refused_and_one_that_is_no_utf8(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"no \.txt file"):
        read_folder(tmp_path)
    (tmp_path / "bad.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(DatasetError, match="give files of UTF-8"):
        read_folder(tmp_path)


def test_a_source_reads_its_folder(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / f"{name}.txt").write_text(f"The {name} of the text is here and goes on.\n" * 200)
    source = Source(name="text", share=1.0, items=5, folder=tmp_path)
    assert len(load_pool(source, seed=1, references=5).items) == 5
