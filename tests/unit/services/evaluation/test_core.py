"""Which references each mode reads, as what; what is generated; what is refused."""

from __future__ import annotations

import pytest

from services.datasets.item import Passage
from services.evaluation.core import Evaluation, EvaluationError, possible_modes
from services.evaluation.modes import Mode
from tests.unit.services.evaluation.fakes import RuleModel, Shelf, item

ALL = tuple(Mode)


def test_every_mode_reads_what_its_name_says() -> None:
    model, one = RuleModel(), item()
    Evaluation(model, ALL).run([one])
    read = {
        mode: (references, spans)
        for mode, (_, references, _), (_, spans) in zip(ALL, model.contexts, model.scored, strict=True)
    }
    assert read == {
        Mode.NONE: ((), None),
        Mode.RAG: (one.references, None),
        Mode.RAG_GOLD: ((one.references[2],), None),
        Mode.RAG_WRONG: (one.wrong_references, None),
        Mode.MEMORY: ((), (one.passages,)),
        Mode.MEMORY_WRONG: ((), (one.wrong_passages,)),
        Mode.RAG_MEMORY: (one.references, (one.passages,)),
    }
    assert [reads for _, _, reads in model.contexts] == [False, False, False, False, True, True, True]


def test_results_stand_in_the_order_of_the_items() -> None:
    outcome = Evaluation(RuleModel(), (Mode.NONE, Mode.MEMORY)).run([item(number) for number in range(70)])
    for rows in outcome.results.values():
        assert [row.item_id for row in rows] == [f"item-{number}" for number in range(70)]
    assert {row.nll for row in outcome.results[Mode.NONE]} == {4.0}
    assert {row.nll for row in outcome.results[Mode.MEMORY]} == {2.0}
    assert outcome.truncated_share == 0


def test_progress_counts_items_times_modes() -> None:
    told: list[int] = []
    Evaluation(RuleModel(), (Mode.NONE, Mode.RAG)).run([item(number) for number in range(40)], told.append)
    assert told == sorted(told)
    assert told[-1] == 80


def test_long_references_are_cut_in_every_mode_and_counted() -> None:
    model = RuleModel()
    long = item(references=("reference 0.0 " + "x" * 30, "reference 0.1"), gold=(0,), wrong_references=())
    outcome = Evaluation(model, (Mode.RAG, Mode.RAG_GOLD, Mode.MEMORY)).run([long])
    read = [one.text for one in model.scored[2][1][0]]  # type: ignore[index]
    shown = [*model.contexts[0][1], *model.contexts[1][1], *read]
    assert all(len(text) <= 20 for text in shown)
    assert outcome.truncated_share == 0.5


def test_choices_are_all_scored_and_the_likeliest_is_chosen() -> None:
    model = RuleModel()
    outcome = Evaluation(model, (Mode.NONE,)).run([item(answer=" no", choices=(" yes", " no"))])
    (result,) = outcome.results[Mode.NONE]
    assert [answer for answer, _ in model.scored] == [" yes", " no"]
    # Equal by token, so the first one; by sum the shorter one.
    assert (result.chosen, result.is_choice_right, result.is_summed_choice_right) == (" yes", False, True)
    assert result.num_tokens == 3


def test_generation_is_spared_where_greedy_is_known_to_give_the_answer() -> None:
    model = RuleModel()
    outcome = Evaluation(model, (Mode.NONE, Mode.RAG, Mode.MEMORY), generated_tokens=8).run([item(0), item(1)])
    assert model.num_generated == 4
    assert model.recalled == [[item(0).passages], [item(1).passages]]
    assert [row.contains for row in outcome.results[Mode.NONE]] == [True, True]
    assert [row.generated for row in outcome.results[Mode.RAG]] == [" name0", " name1"]


def test_a_question_is_asked_in_a_chat_where_the_model_knows_chats() -> None:
    asked, plain = item(0, question="What is 0?"), item(1)
    model = RuleModel(knows_chat=True)
    outcome = Evaluation(model, (Mode.RAG, Mode.MEMORY), generated_tokens=8).run([asked, plain])
    # What is known of the scored prompt says nothing of the chat.
    assert model.generated_from == [
        ("<user>What is 0?", asked.references, False),
        ("<user>What is 0?", (), True),
        (plain.prompt, (), True),
    ]
    assert [row.generated for row in outcome.results[Mode.RAG]] == ["It is NAME0.", " name1"]
    knows_none = RuleModel()
    Evaluation(knows_none, (Mode.MEMORY,), generated_tokens=8).run([asked])
    assert knows_none.generated_from == [(asked.prompt, (), True)]


def test_a_generated_text_must_hold_an_accepted_answer() -> None:
    evaluation = Evaluation(RuleModel(), (Mode.NONE,), generated_tokens=8)
    rows = evaluation.run([item(0, accepted=("elsewhere", "Name0")), item(1, accepted=("elsewhere",))]).results
    assert [row.contains for row in rows[Mode.NONE]] == [True, False]


def test_without_accepted_strings_nothing_is_generated() -> None:
    model = RuleModel()
    outcome = Evaluation(model, (Mode.NONE,), generated_tokens=8).run([item(accepted=())])
    assert model.num_generated == 0
    assert outcome.results[Mode.NONE][0].contains is None


class TestRetrieval:
    """Items without given references."""

    def items(self) -> list[object]:
        return [item(number, references=(), gold=(), wrong_references=()) for number in range(4)]

    def test_the_prompt_finds_the_text_and_each_span_its_memories(self) -> None:
        model, shelf = RuleModel(), Shelf()
        Evaluation(model, (Mode.RAG, Mode.MEMORY), source=shelf).run(self.items())  # type: ignore[arg-type]
        assert model.contexts[1][1] == tuple(f"?\nAnswer: found {place}" for place in range(3))
        spans = model.scored[-1][1]
        assert spans is not None
        assert [span[0].text for span in spans] == ["?\nAnswer: found 0", "?\nAnswer: found 0", "later found 0"]

    def test_a_query_is_asked_once(self) -> None:
        shelf = Shelf()
        Evaluation(RuleModel(), (Mode.RAG, Mode.MEMORY), source=shelf).run(self.items())  # type: ignore[arg-type]
        assert len(shelf.queries) == len(set(shelf.queries)) == 5

    def test_wrong_memories_are_another_items_and_never_its_own(self) -> None:
        class ByNumber(Shelf):
            def find(self, queries):  # type: ignore[no-untyped-def]
                return [(Passage("common"), Passage(query[18:19])) for query in queries]

        model = RuleModel()
        Evaluation(model, (Mode.MEMORY_WRONG,), source=ByNumber()).run(self.items())  # type: ignore[arg-type]
        assert [spans[0] for _, spans in model.scored if spans] == [(Passage(one),) for one in "2301"]

    def test_gold_is_refused_and_left_out_of_all(self) -> None:
        with pytest.raises(EvaluationError, match=r"rag-gold .* choose among none, rag, rag-wrong, memory"):
            Evaluation(RuleModel(), (Mode.RAG_GOLD,), source=Shelf()).run(self.items())  # type: ignore[arg-type]
        assert Mode.RAG_GOLD not in possible_modes(self.items())  # type: ignore[arg-type]

    def test_a_source_is_needed(self) -> None:
        with pytest.raises(EvaluationError, match="name a retrieval tier"):
            Evaluation(RuleModel(), (Mode.NONE,)).run(self.items())  # type: ignore[arg-type]


@pytest.mark.parametrize("mode", [Mode.RAG_WRONG, Mode.MEMORY_WRONG])
def test_wrong_references_need_another_item(mode: Mode) -> None:
    with pytest.raises(EvaluationError, match=f"mode {mode} reads .* at least 2 items"):
        Evaluation(RuleModel(), (mode,)).run([item(wrong_references=())])
