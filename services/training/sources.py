"""Items of all sources, mixed by shares, as batches of each step: a function of the seed and the step alone.

That is what makes a run exactly resumable: nothing has to be remembered.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

from model.training.batch import Batch
from services.datasets import registry
from services.datasets.item import DatasetError, Item
from services.training.config import TEXT_SOURCE, Source, TrainingConfig
from services.training.examples import MODES, ExampleBuilder, Mode, batch_of, draw_mode


class MixedSource:
    """Implements BatchSource over pools of items."""

    def __init__(
        self, config: TrainingConfig, builder: ExampleBuilder, pools: Sequence[Sequence[Item]], tokens: Sequence[int]
    ) -> None:
        """`pools`: items of each of `config.sources`. `tokens`: choices of tokens per memory."""
        self._config, self._builder, self._pools, self._tokens = config, builder, pools, tuple(tokens)
        self._by_kind: list[dict[str, list[Item]]] = []
        for pool in pools:
            kinds: dict[str, list[Item]] = {}
            for item in pool:
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
            examples = [self._builder.build(item, mode) for item, mode in chosen[start : start + size]]
            pieces.append(batch_of(examples, tokens_per_memory))
        return pieces

    def _draw(self, draw: random.Random) -> list[tuple[Item, Mode]]:
        """The items of one pool, of one source and kind."""
        config = self._config
        source = draw.choices(range(len(self._pools)), weights=[source.share for source in config.sources])[0]
        first = draw.choice(self._pools[source])
        items = [first]
        if config.batch.pool > 1:
            kin = self._by_kind[source][first.kind]
            items = share_references(draw.choices(kin, k=config.batch.pool), config.batch.references, draw)
        drawn = []
        for item in items:
            shares: dict[Mode, float] = {mode: getattr(config.modes, mode) for mode in MODES}
            if not item.wrong_references:
                shares["wrong"] = 0.0
            drawn.append((item, draw_mode(draw, shares)))
        return drawn


def share_references(items: Sequence[Item], references: int, draw: random.Random) -> list[Item]:
    """The same items, each with its own gold references among the others' as distractors: `references` at most.

    Its wrong references are the others'. A reference that holds an item's answer is no distractor for it.
    """
    golds = list(dict.fromkeys(item.references[place] for item in items for place in item.gold))
    shared = []
    for item in items:
        own = [item.references[place] for place in item.gold][:references]
        answers = [answer.casefold() for answer in item.accepted]
        others = [text for text in golds if text not in own and not any(a in text.casefold() for a in answers)]
        chosen = own + draw.sample(others, min(len(others), references - len(own)))
        draw.shuffle(chosen)
        gold = tuple(place for place, text in enumerate(chosen) if text in own)
        shared.append(replace(item, references=tuple(chosen), gold=gold, wrong_references=tuple(others[:references])))
    return shared


def load_pool(source: Source, *, seed: int, references: int) -> list[Item]:
    """The training items of a source. Raises DatasetError."""
    if source.name == TEXT_SOURCE:
        return text_items(source.items, seed=seed, references=references)
    if source.name in registry.MEASURED_ONLY:
        raise DatasetError(f"the set {source.name} may be measured with, not trained on: name another source")
    return registry.load(source.name, split="train", items=source.items, seed=seed, references=references)


def text_items(count: int, *, seed: int, references: int) -> list[Item]:
    """Chunks of running text to go on with, their neighbours as references, filled up with chunks of other texts."""
    documents = registry.text_chunks("train", seed)
    draw = random.Random(f"memory3 text {seed}")
    long = [number for number, pieces in enumerate(documents) if len(pieces) > 1]
    places = [(number, place) for number in long for place in range(len(documents[number]))]
    if count > len(places):
        raise DatasetError(f"{count} items of running text asked; there are {len(places)}: ask for at most so many")
    return [_text_item(documents, draw, number, place, references) for number, place in draw.sample(places, count)]


def _text_item(
    documents: Sequence[Sequence[str]], draw: random.Random, number: int, place: int, references: int
) -> Item:
    pieces = documents[number]
    near = sorted((index for index in range(len(pieces)) if index != place), key=lambda index: abs(index - place))
    chosen = [pieces[index] for index in near[:references]]
    gold = list(chosen)
    while len(chosen) < references:
        chosen.append(_other(documents, draw, number))
    draw.shuffle(chosen)
    words = pieces[place].split(" ")
    opening = max(1, len(words) // 8)
    return Item(
        item_id=f"text-{number}-{place}",
        kind=TEXT_SOURCE,
        prompt=" ".join(words[:opening]),
        answer="".join(f" {word}" for word in words[opening:]) or " ",
        references=tuple(chosen),
        gold=tuple(index for index, text in enumerate(chosen) if text in gold),
        wrong_references=tuple(_other(documents, draw, number) for _ in range(references)),
        accepted=(),
    )


def _other(documents: Sequence[Sequence[str]], draw: random.Random, number: int) -> str:
    """A chunk of another document."""
    other = draw.randrange(len(documents) - 1)
    return draw.choice(documents[other + (other >= number)])
