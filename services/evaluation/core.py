"""Measures items in every mode: which references a context reads, what is scored, what is generated.

Knows texts and numbers; tokens, tensors and services stand behind the ports.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from services.datasets.item import Item, Passage
from services.evaluation.figures import ItemResult
from services.evaluation.modes import READINGS, Mode, Source
from services.evaluation.ports import Context, Model, References, ReferenceSource, ScoredAnswer

BLOCK_ITEMS = 32
"""Items measured in all modes before the next ones: what bounds the memories held at once."""


class EvaluationError(Exception):
    """What was asked cannot be measured; the message names the value and the remedy."""


@dataclass(frozen=True)
class Outcome:
    """All results, items in the same order in every mode."""

    results: Mapping[Mode, Sequence[ItemResult]]
    truncated_share: float
    """Of all references read, the share that was longer than the plan allows and was cut."""


def check_modes(modes: Sequence[Mode], items: Sequence[Item]) -> None:
    """Raises EvaluationError if a mode needs references that these items do not have."""
    if Mode.RAG_GOLD in modes and not all(item.gold for item in items):
        raise EvaluationError(
            "mode rag-gold needs references known to hold the answer, and this set leaves references to retrieval; "
            f"choose among {', '.join(possible_modes(items))}"
        )
    wrong = [mode for mode in modes if Source.WRONG in (READINGS[mode].text, READINGS[mode].memories)]
    if wrong and len(items) < 2 and not all(item.wrong_references for item in items):
        raise EvaluationError(f"mode {wrong[0]} reads the references of another item; give at least 2 items")


def possible_modes(items: Sequence[Item]) -> tuple[Mode, ...]:
    """Every mode these items can be measured in."""
    has_gold = all(item.gold for item in items)
    return tuple(mode for mode in Mode if mode is not Mode.RAG_GOLD or has_gold)


class Evaluation:
    """One model on any number of items."""

    def __init__(
        self, model: Model, modes: Sequence[Mode], *, source: ReferenceSource | None = None, generated_tokens: int = 0
    ) -> None:
        """`source`: for items without given references. `generated_tokens`: at most; 0 generates nothing."""
        self._model, self._modes, self._source = model, modes, source
        self._generated_tokens = generated_tokens
        self._found: dict[str, References] = {}
        self._cut: dict[str, str] = {}

    def run(self, items: Sequence[Item], progress: Callable[[int], None] = lambda done: None) -> Outcome:
        """`progress` is told how many items times modes are done. Raises EvaluationError before anything is run."""
        check_modes(self._modes, items)
        if self._source is None and not all(item.references for item in items):
            raise EvaluationError("this set leaves references to retrieval; name a retrieval tier")
        results: dict[Mode, list[ItemResult]] = {mode: [] for mode in self._modes}
        found = self._found_references(items)
        wrong = self._wrong_references(items, found)
        done = 0
        for start in range(0, len(items), BLOCK_ITEMS):
            block = range(start, min(start + BLOCK_ITEMS, len(items)))
            for mode in self._modes:
                picked = [items[index] for index in block]
                references: dict[Source, Sequence[References]] = {
                    Source.NOTHING: [() for _ in block],
                    Source.FOUND: [found[index] for index in block],
                    Source.GOLD: [tuple(self._short(item.passages[gold]) for gold in item.gold) for item in picked],
                    Source.WRONG: [wrong[index] for index in block],
                }
                results[mode] += self._measure(picked, mode, references)
                done += len(block)
                progress(done)
        truncated = sum(original != short for original, short in self._cut.items())
        return Outcome(results, truncated / max(1, len(self._cut)))

    def _measure(
        self, items: Sequence[Item], mode: Mode, references: Mapping[Source, Sequence[References]]
    ) -> list[ItemResult]:
        reading = READINGS[mode]
        memories = references[reading.memories]
        texts = [[one.text for one in of_item] for of_item in references[reading.text]]
        contexts = [
            self._model.context(item.prompt, text, reads_memories=reading.reads_memories)
            for item, text in zip(items, texts, strict=True)
        ]
        answers = [(index, answer) for index, item in enumerate(items) for answer in item.choices or (item.answer,)]
        spans = self._spans(items, contexts, answers, mode, memories)
        scores = self._model.score(
            [(contexts[index], answer, span) for (index, answer), span in zip(answers, spans, strict=True)]
        )
        by_item: list[dict[str, ScoredAnswer]] = [{} for _ in items]
        for (index, answer), score in zip(answers, scores, strict=True):
            by_item[index][answer] = score
        asked = [
            self._asked(item, text, mode, context) for item, text, context in zip(items, texts, contexts, strict=True)
        ]
        is_said = [
            context is scored_context and scored[item.answer].is_greedy
            for item, context, scored_context, scored in zip(items, asked, contexts, by_item, strict=True)
        ]
        generated = self._generate(items, asked, is_said, mode, memories)
        return [_result(item, scored, text) for item, scored, text in zip(items, by_item, generated, strict=True)]

    def _asked(self, item: Item, text: Sequence[str], mode: Mode, context: Context) -> Context:
        """What is generated from: a question as a chat asks it, where the model knows chats; else what was scored."""
        reads_memories = READINGS[mode].reads_memories
        chat = self._model.chat(item.question, text, reads_memories=reads_memories) if item.question else None
        return chat or context

    def _spans(
        self,
        items: Sequence[Item],
        contexts: Sequence[Context],
        answers: Sequence[tuple[int, str]],
        mode: Mode,
        memories: Sequence[References],
    ) -> list[Sequence[References] | None]:
        """What each span of each answer reads as memories: the same throughout, or its own recall."""
        if not READINGS[mode].reads_memories:
            return [None] * len(answers)
        if READINGS[mode].memories is not Source.FOUND or self._source is None:
            return [(memories[index],) for index, _ in answers]
        asked = [
            None if items[index].references else self._model.queries(contexts[index], answer)
            for index, answer in answers
        ]
        self._find([query for queries in asked for query in queries or () if query is not None])
        spans: list[Sequence[References] | None] = []
        for (index, _), queries in zip(answers, asked, strict=True):
            read: list[References] = [] if queries is not None else [memories[index]]
            for query in queries or ():
                inherited: References = read[-1] if read else ()
                read.append(inherited if query is None else self._recalled(query))
            spans.append(read)
        return spans

    def _generate(
        self,
        items: Sequence[Item],
        contexts: Sequence[Context],
        is_said: Sequence[bool],
        mode: Mode,
        memories: Sequence[References],
    ) -> list[str | None]:
        """Generated texts; None where none is wanted. `is_said`: greedy generation begins with the item's answer."""
        texts: list[str | None] = [None] * len(items)
        if not self._generated_tokens:
            return texts
        wanted = []
        for index, item in enumerate(items):
            if not item.accepted:
                continue
            if is_said[index] and _contains(item.answer, item.accepted):
                texts[index] = item.answer
            else:
                wanted.append(index)
        is_own = READINGS[mode].memories is Source.FOUND and self._source is not None

        def recall(place: int, queries: Sequence[str]) -> Sequence[References]:
            index = wanted[place]
            if not is_own or items[index].references:
                return [memories[index]] * len(queries)
            self._find(queries)
            return [self._recalled(query) for query in queries]

        given = self._model.generate([contexts[index] for index in wanted], recall, self._generated_tokens)
        for index, text in zip(wanted, given, strict=True):
            texts[index] = text
        return texts

    def _found_references(self, items: Sequence[Item]) -> list[References]:
        """The given ones, or what the prompt finds."""
        self._find([item.prompt for item in items if not item.references])
        return [
            tuple(map(self._short, item.passages)) if item.references else self._recalled(item.prompt) for item in items
        ]

    def _wrong_references(self, items: Sequence[Item], found: Sequence[References]) -> list[References]:
        """Given ones, or what another item's prompt found and this one's did not."""
        wrong: list[References] = []
        for index, item in enumerate(items):
            if item.wrong_references:
                wrong.append(tuple(map(self._short, item.wrong_passages)))
                continue
            others = [found[(index + step) % len(items)] for step in range(len(items) // 2 or 1, len(items))]
            apart = [tuple(one for one in other if one not in found[index]) for other in others]
            wrong.append(next((passages for passages in apart if passages), ()))
        return wrong

    def _find(self, queries: Sequence[str]) -> None:
        missing = list(dict.fromkeys(query for query in queries if query not in self._found))
        if missing and self._source is not None:
            self._found |= zip(missing, self._source.find(missing), strict=True)

    def _recalled(self, query: str) -> References:
        return tuple(map(self._short, self._found[query]))

    def _short(self, passage: Passage) -> Passage:
        if passage.text not in self._cut:
            self._cut[passage.text] = self._model.cut(passage.text)
        return passage._replace(text=self._cut[passage.text])


def _contains(text: str, accepted: Sequence[str]) -> bool:
    return any(answer.casefold() in text.casefold() for answer in accepted)


def _result(item: Item, scored: Mapping[str, ScoredAnswer], generated: str | None) -> ItemResult:
    score = scored[item.answer]
    chosen = summed = None
    if item.choices:
        chosen = min(item.choices, key=lambda choice: sum(scored[choice].nll) / len(scored[choice].nll))
        summed = min(item.choices, key=lambda choice: sum(scored[choice].nll))
    return ItemResult(
        item_id=item.item_id,
        kind=item.kind,
        nll=sum(score.nll) / len(score.nll),
        num_tokens=len(score.nll),
        em=score.is_greedy,
        contains=None if generated is None else _contains(generated, item.accepted),
        chosen=chosen,
        is_choice_right=None if chosen is None else chosen == item.answer,
        is_summed_choice_right=None if summed is None else summed == item.answer,
        generated=generated,
    )
