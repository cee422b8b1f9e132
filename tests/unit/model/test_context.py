"""How a context opens and how references stand in it; which directory a setting names."""

from __future__ import annotations

from pathlib import Path

from model.context import ContextOpening, references_as_text
from model.directory import locate_model
from model.tokenizer import Tokenizer
from tests.helpers.tiny_model import BOS, tiny_model_directory, tiny_plan


def test_references_stand_one_a_line_before_an_empty_one() -> None:
    assert references_as_text(["One.", "Two."]) == "One.\nTwo.\n\n"
    assert references_as_text([]) == ""


def test_only_a_context_that_reads_memories_has_the_separator(tmp_path: Path) -> None:
    tokenizer = Tokenizer.load(tiny_model_directory(tmp_path / "tiny"))
    opening = ContextOpening(tokenizer, tiny_plan(context_bos="<s>"))
    assert opening.tokens(reads_memories=False) == (BOS,)
    assert opening.tokens(reads_memories=True) == (BOS, *tokenizer.encode("\n\n"))


def test_a_directory_is_taken_as_it_is_named(tmp_path: Path) -> None:
    assert locate_model(str(tmp_path), tmp_path / "cache") == tmp_path
    assert not (tmp_path / "cache").exists()
