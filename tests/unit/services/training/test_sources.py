"""Items that share their references: one reference for each item, and never the answer among the distractors."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import pytest

from services.datasets.item import DatasetError, Item
from services.training import sources
from services.training.config import BatchOptions, Source, TrainingConfig
from services.training.sources import MixedSource, Pool, load_pool, nearest_items, share_references


def _item(number: int, answer: str) -> Item:
    return Item(
        item_id=str(number),
        kind="towers",
        prompt=f"The builder of tower {number} is",
        answer=f" {answer}",
        references=("a distractor", f"Tower {number} was built by {answer}.", "another"),
        gold=(1,),
        wrong_references=("of another item",),
        accepted=(answer,),
    )


def test_each_reads_its_own_and_the_others() -> None:
    items = [_item(number, name) for number, name in enumerate(("Ada", "Bo", "Cy", "Di", "Ed"))]
    shared = share_references(items, 5, random.Random(1))
    texts = {item.references[1] for item in items}
    for item, before in zip(shared, items, strict=True):
        assert set(item.references) == texts
        assert [item.references[place] for place in item.gold] == [before.references[1]]
        assert set(item.wrong_references) == texts - {before.references[1]}


def test_a_reference_that_holds_the_answer_is_no_distractor_and_limits_hold() -> None:
    items = [_item(1, "Ada"), _item(2, "ADA"), *(_item(number, f"name{number}") for number in range(3, 9))]
    shared = share_references(items, 3, random.Random(2))
    for item in shared:
        assert len(item.references) == 3
        holders = [text for text in item.references if item.accepted[0].casefold() in text.casefold()]
        assert holders == [item.references[item.gold[0]]]


def test_shared_references_keep_what_precedes_them() -> None:
    items = [_item(number, name) for number, name in enumerate(("Ada", "Bo", "Cy"))]
    ada, bo, cy = items
    ada, cy = (
        replace(item, preceding=("x", f"before {item.item_id}", ""), wrong_preceding=("y",)) for item in (ada, cy)
    )
    before = {one.references[1]: one.preceding[1] if one.preceding else "" for one in (ada, bo, cy)}
    for item in share_references([ada, bo, cy], 5, random.Random(1)):
        assert len(item.passages) == 3
        assert all(one.preceding == before[one.text] for one in (*item.passages, *item.wrong_passages))
    assert all(item.preceding == item.wrong_preceding == () for item in share_references(items, 5, random.Random(1)))


def test_what_precedes_must_be_told_of_every_reference() -> None:
    with pytest.raises(ValueError, match="shorter"):
        assert replace(_item(1, "Ada"), preceding=("x",)).passages


def test_a_set_of_texts_that_are_not_ours_to_train_on_is_refused() -> None:
    with pytest.raises(DatasetError, match="continuation may be measured with, not trained on"):
        load_pool(Source(name="continuation", share=1.0), seed=1, references=5)


def test_neighbours_of_one_text_keep_their_references() -> None:
    item = replace(_item(1, "Ada"), references=("before", "and before that"), gold=(0, 1))
    assert share_references([item, _item(2, "Bo")], 2, random.Random(1))[0] == item


def test_a_folder_of_a_question_set_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="only text and recall read one"):
        load_pool(Source(name="fiction", share=1.0, folder=tmp_path), seed=1, references=5)


def _said(number: int, text: str) -> Item:
    return replace(_item(number, f"answer {number}"), references=("of no one", text), gold=(1,))


def test_near_items_are_those_of_like_texts() -> None:
    towns = [_said(number, f"{name} is a harbour town on the estuary.") for number, name in enumerate("ABCDEF")]
    moths = [_said(10 + number, f"The {name} moth sheds its antennae at dusk.") for number, name in enumerate("GHIJKL")]
    mixed = [item for pair in zip(towns, moths, strict=True) for item in pair]
    for place, near in enumerate(nearest_items(mixed)):
        assert [other % 2 for other in near[:5]] == [place % 2] * 5
        assert place not in near[:5]


def test_an_item_with_the_same_text_is_not_near_and_every_item_has_others() -> None:
    same = [_said(number, "One and the same text.") for number in range(3)]
    assert nearest_items([*same, _said(3, "One and another text.")])[0][0] == 3
    assert all(near for near in nearest_items(same))


class _Kept:
    """In place of a builder: an example's context is the item itself."""

    def build(self, item: Item, mode: str, in_chat: bool) -> Item:
        return item


@pytest.mark.parametrize("form", ["shared", "near", "own"])
def test_items_drawn_together(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "batch_of", lambda examples, tokens: examples)
    source = Source(name="fiction", share=1.0, shared=form != "own", near=form == "near")
    config = TrainingConfig(steps=1, sources=(source,), batch=BatchOptions(items=6, pool=3))
    items = [_said(number, f"{number % 4} is told of in text {number}.") for number in range(24)]
    pool = Pool(items, [[(place + 4) % 24, (place + 8) % 24] for place in range(24)] if source.near else ())
    (drawn,) = MixedSource(config, _Kept(), [pool], [8]).pieces(0, 0, 1)  # type: ignore[arg-type]
    assert len(drawn) == 6
    assert len({item.item_id for item in drawn[:3]}) == 3
    for item in drawn:
        if form == "own":
            assert item in items
        else:
            assert "of no one" not in item.references
    if form == "near":
        assert len({int(item.item_id) % 4 for item in drawn[:3]}) == 1
