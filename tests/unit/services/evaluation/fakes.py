"""A model that answers by rule, and items for it."""

from __future__ import annotations

from collections.abc import Sequence

from services.datasets.item import Item, Passage
from services.evaluation.ports import Context, Recall, References, ScoredAnswer


def item(number: int = 0, **changes: object) -> Item:
    """Five given references, of which one holds the answer."""
    values: dict[str, object] = {
        "item_id": f"item-{number}",
        "kind": "towns",
        "prompt": f"Question: What is {number}?\nAnswer:",
        "answer": f" name{number}",
        "references": tuple(f"reference {number}.{place}" for place in range(5)),
        "gold": (2,),
        "wrong_references": tuple(f"reference {number + 100}.{place}" for place in range(5)),
        "accepted": (f"name{number}",),
    }
    return Item(**(values | changes))  # type: ignore[arg-type]


class RuleModel:
    """An answer costs 4 nats a character, its token; 1 where its reference is text, 2 where it is a memory.

    It notes what it was asked. References longer than 20 characters are cut.
    """

    def __init__(self, *, knows_chat: bool = False) -> None:
        self._knows_chat = knows_chat
        self.contexts: list[tuple[str, tuple[str, ...], bool]] = []
        self.scored: list[tuple[str, Sequence[References] | None]] = []
        self.num_generated = 0
        self.generated_from: list[tuple[str, tuple[str, ...], bool]] = []
        self.recalled: list[Sequence[References]] = []

    def cut(self, reference: str) -> str:
        return reference[:20]

    def context(self, prompt: str, references: Sequence[str], *, reads_memories: bool) -> Context:
        self.contexts.append((prompt, tuple(references), reads_memories))
        return Context((len(self.contexts) - 1,), (True,), reads_memories)

    def chat(self, question: str, references: Sequence[str], *, reads_memories: bool) -> Context | None:
        if not self._knows_chat:
            return None
        return self.context(f"<user>{question}", references, reads_memories=reads_memories)

    def queries(self, context: Context, answer: str) -> list[str | None]:
        return [self.contexts[context.tokens[0]][0], None, "later"]

    def score(self, contexts: Sequence[tuple[Context, str, Sequence[References] | None]]) -> list[ScoredAnswer]:
        scores = []
        for context, answer, spans in contexts:
            self.scored.append((answer, spans))
            prompt, references, _ = self.contexts[context.tokens[0]]
            number = prompt.removeprefix("Question: What is ").partition("?")[0]
            nll = 4.0
            if any(f" {number}." in one.text for span in spans or () for one in span):
                nll = 2.0
            if any(f" {number}." in text for text in references):
                nll = 1.0
            scores.append(ScoredAnswer((nll,) * len(answer), is_greedy=nll == 1.0))
        return scores

    def generate(self, contexts: Sequence[Context], recall: Recall, max_tokens: int) -> list[str]:
        self.num_generated += len(contexts)
        self.generated_from += [self.contexts[context.tokens[0]] for context in contexts]
        for place, context in enumerate(contexts):
            if context.reads_memories:
                self.recalled += [recall(place, ["a query"])]
        return [f"It is NAME{place}." for place in range(len(contexts))]


class Shelf:
    """A source that finds, for each query, three references that name it."""

    def __init__(self) -> None:
        self.queries: list[str] = []

    def find(self, queries: Sequence[str]) -> list[References]:
        self.queries += queries
        return [tuple(Passage(f"{query[-9:]} found {place}") for place in range(3)) for query in queries]
