"""Items of all sources, mixed by shares, as batches of each step: a function of the seed and the step alone.

That is what makes a run exactly resumable: nothing has to be remembered.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from model.training.batch import Batch
from services.datasets import registry
from services.datasets.item import DatasetError, Item, Passage, parted
from services.datasets.word_index import WordIndex
from services.training.config import Source, TrainingConfig
from services.training.examples import MODES, ExampleBuilder, Mode, batch_of, draw_mode
from services.training.text_items import CONTINUE, RECALL, long_text_items, read_folder, recall_items, text_items

T = TypeVar("T")

_NEAREST = 12
"""Items so near to one are drawn to share its references."""


@dataclass(frozen=True)
class Pool:
    """The training items of a source."""

    items: Sequence[Item]
    near: Sequence[Sequence[int]] = ()
    """For each item the places of those most like it; () where any of its kind will do."""


class MixedSource:
    """Implements BatchSource over pools of items."""

    def __init__(
        self, config: TrainingConfig, builder: ExampleBuilder, pools: Sequence[Pool], tokens: Sequence[int]
    ) -> None:
        """`pools`: of each of `config.sources`. `tokens`: choices of tokens per memory."""
        self._config, self._builder, self._pools, self._tokens = config, builder, pools, tuple(tokens)
        self._by_kind: list[dict[str, list[Item]]] = []
        for pool in pools:
            kinds: dict[str, list[Item]] = {}
            for item in pool.items:
                kinds.setdefault(item.kind, []).append(item)
            self._by_kind.append(kinds)

    def pieces(self, step: int, rank: int, world: int) -> Sequence[Batch]:
        """See `services.training.ports.BatchSource`."""
        config = self._config
        num_pieces = world * config.batch.accumulation
        size = config.batch.items // num_pieces
        draw = random.Random(f"memory3 step {config.seed} {step}")
        tokens_per_memory = draw.choice(self._tokens)
        chosen = [one for _ in range(config.batch.items // config.batch.pool) for one in self._draw(draw)]
        pieces = []
        for piece in range(config.batch.accumulation):
            start = (piece * world + rank) * size
            examples = [self._builder.build(*one) for one in chosen[start : start + size]]
            pieces.append(batch_of(examples, tokens_per_memory))
        return pieces

    def _draw(self, draw: random.Random) -> list[tuple[Item, Mode, bool]]:
        """The items of one pool, of one source and kind: what each reads, and whether it is asked as in a chat."""
        config = self._config
        source = draw.choices(range(len(self._pools)), weights=[source.share for source in config.sources])[0]
        pool = self._pools[source]
        first = draw.randrange(len(pool.items))
        items = [pool.items[first]]
        if config.batch.pool > 1:
            items = self._together(source, first, draw)
            if config.sources[source].shared:
                items = share_references(items, config.batch.references, draw)
        drawn = []
        for item in items:
            shares: dict[Mode, float] = {mode: getattr(config.modes, mode) for mode in MODES}
            if not item.wrong_references:
                shares["wrong"] = 0.0
            drawn.append((item, draw_mode(draw, shares), draw.random() < config.chat))
        return drawn

    def _together(self, source: int, first: int, draw: random.Random) -> list[Item]:
        """As many items of one source as share their references."""
        pool, size = self._pools[source], self._config.batch.pool
        if not pool.near:
            return _some(draw, self._by_kind[source][pool.items[first].kind], size)
        return [pool.items[place] for place in (first, *_some(draw, pool.near[first], size - 1))]


def _some(draw: random.Random, things: Sequence[T], count: int) -> list[T]:
    """Different ones, if there are enough."""
    return draw.sample(things, count) if count <= len(things) else draw.choices(things, k=count)


def share_references(items: Sequence[Item], references: int, draw: random.Random) -> list[Item]:
    """The same items, each with its own gold references among the others' as distractors: `references` at most.

    Its wrong references are the others'. A reference that holds an item's answer is no distractor for it. An item that
    has no distractors (neighbours of one text) stays as it is.
    """
    golds: dict[str, Passage] = {}
    for one in (item.passages[place] for item in items for place in item.gold):
        golds.setdefault(one.text, one)
    shared = []
    for item in items:
        if len(item.gold) == len(item.references) == references > 1:
            shared.append(item)
            continue
        own = [item.passages[place] for place in item.gold][:references]
        given = {one.text for one in own}
        answers = [answer.casefold() for answer in item.accepted]
        others = [
            one for text, one in golds.items() if text not in given and not any(a in text.casefold() for a in answers)
        ]
        chosen = own + draw.sample(others, min(len(others), references - len(own)))
        draw.shuffle(chosen)
        texts, preceding = parted(chosen)
        wrong, wrong_preceding = parted(others[:references])
        shared.append(
            replace(
                item,
                references=texts,
                gold=tuple(place for place, text in enumerate(texts) if text in given),
                wrong_references=wrong,
                preceding=preceding,
                wrong_preceding=wrong_preceding,
            )
        )
    return shared


def load_pool(source: Source, *, seed: int, references: int) -> Pool:
    """The training items of a source. Raises DatasetError."""
    items = _items(source, seed=seed, references=references)
    return Pool(items, nearest_items(items)) if source.near else Pool(items)


def nearest_items(items: Sequence[Item]) -> list[list[int]]:
    """For each item the places of those whose gold references are most like its own but not the same, nearest first.

    Where few are like it, those that follow it in the pool stand in.
    """
    golds = [" ".join(item.references[place] for place in item.gold) for item in items]
    index = WordIndex(golds)
    found = []
    for place, gold in enumerate(golds):
        near = [other for other in index.nearest(place, 4 * _NEAREST) if golds[other] != gold]
        following = ((place + step) % len(items) for step in range(_NEAREST + 1))
        found.append(list(dict.fromkeys((*near, *following)))[:_NEAREST])
    return found


def _items(source: Source, *, seed: int, references: int) -> list[Item]:
    if source.name in registry.MEASURED_ONLY:
        raise DatasetError(f"the set {source.name} may be measured with, not trained on: name another source")
    if source.name not in (CONTINUE, RECALL):
        if source.folder is not None:
            raise DatasetError(
                f"the set {source.name} has the folder {source.folder}; only {CONTINUE} and {RECALL} read one: "
                "leave it out"
            )
        return registry.load(source.name, split="train", items=source.items, seed=seed, references=references)
    documents = registry.text_chunks("train", seed) if source.folder is None else read_folder(source.folder)
    to_go_on = text_items if source.folder is None else long_text_items
    make = recall_items if source.name == RECALL else to_go_on
    return make(documents, source.items, seed=seed, references=references)
