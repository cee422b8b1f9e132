"""Tokenizer and detokenizer on a small byte-level BPE: user text gives no special token, and no byte is lost."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tokenizers import Tokenizer as LibraryTokenizer
from tokenizers import decoders, models, pre_tokenizers, trainers
from tokenizers.processors import TemplateProcessing

from model.tokenizer import IncrementalDetokenizer, Tokenizer

SPECIALS = ["<s>", "</s>", "<|im_start|>", "<|im_end|>"]
TEXTS = ["the cat and the dog", "Paris is the capital of France", "你好世界", "naïve café", "😀😀 smile", "1234 5678"]


def build_description() -> str:
    """A BPE with some hundred merges, all bytes, and a post-processor that would add a BOS if it were let."""
    tokenizer = LibraryTokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=SPECIALS,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXTS * 20, trainer)
    tokenizer.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    tokenizer.enable_truncation(4)
    tokenizer.enable_padding(length=4)
    return str(tokenizer.to_str())


DESCRIPTION = build_description()
TOKENIZER = Tokenizer(DESCRIPTION, bos_token_id=0, eos_token_ids=(1,))


@given(st.text())
@example("the cat 你好 😀 naïve \x00\x7f\n\t")
@example("<s><|im_start|>system\n</s>")
def test_text_survives_and_never_gives_a_special_token(text: str) -> None:
    ids = TOKENIZER.encode(text)
    assert TOKENIZER.decode(ids) == text
    assert not TOKENIZER.special_token_ids.intersection(ids)


@given(st.text(max_size=10), st.sampled_from(SPECIALS), st.text(max_size=10))
def test_special_tokens_are_parsed_only_when_asked(before: str, special: str, after: str) -> None:
    text = before + special + after
    assert TOKENIZER.id(special) not in TOKENIZER.encode(text)
    assert TOKENIZER.id(special) in TOKENIZER.encode_special(text)


@pytest.mark.parametrize("encode", [TOKENIZER.encode, TOKENIZER.encode_special, TOKENIZER.encode_with_offsets])
def test_text_that_is_no_unicode_is_refused(encode: Callable[[str], object]) -> None:
    """JSON can spell a lone surrogate, so a document can bring one."""
    with pytest.raises(ValueError, match="surrogate"):
        encode(json.loads('"a\\ud800b"'))


def test_nothing_is_added_cut_or_padded() -> None:
    assert TOKENIZER.encode("") == []
    assert TOKENIZER.encode_special("<s>") == [0]
    assert TOKENIZER.decode(TOKENIZER.encode("the cat and the dog " * 50)) == "the cat and the dog " * 50


@given(st.text(min_size=1))
def test_offsets_cover_the_text_in_order(text: str) -> None:
    ids, offsets = TOKENIZER.encode_with_offsets(text)
    assert ids == TOKENIZER.encode(text)
    assert {i for start, end in offsets for i in range(start, end)} == set(range(len(text)))
    assert offsets == sorted(offsets)


def test_tokens_of_one_character_share_its_offsets() -> None:
    _, offsets = TOKENIZER.encode_with_offsets("a𓂀b")
    assert offsets == [(0, 1), (1, 2), (1, 2), (1, 2), (1, 2), (2, 3)]


@given(st.lists(st.integers(0, TOKENIZER.vocab_size - 1)))
def test_any_tokens_decode_as_the_library_decodes_them(ids: list[int]) -> None:
    expected = LibraryTokenizer.from_str(DESCRIPTION).decode(ids, skip_special_tokens=True)
    assert TOKENIZER.decode(ids) == expected


@given(st.lists(st.integers(0, TOKENIZER.vocab_size - 1)))
def test_pieces_join_to_the_whole(ids: list[int]) -> None:
    detokenizer = IncrementalDetokenizer(TOKENIZER)
    assert "".join(map(detokenizer.push, ids)) + detokenizer.flush() == TOKENIZER.decode(ids)
    assert detokenizer.flush() == ""


def test_a_character_comes_with_its_last_byte() -> None:
    detokenizer = IncrementalDetokenizer(TOKENIZER)
    pieces = [detokenizer.push(token) for token in TOKENIZER.encode("a𓂀b")]
    assert pieces == ["a", "", "", "", "𓂀", "b"]
    assert detokenizer.flush() == ""


def test_an_unfinished_character_is_flushed_once() -> None:
    detokenizer = IncrementalDetokenizer(TOKENIZER)
    assert "".join(detokenizer.push(token) for token in TOKENIZER.encode("𓂀")[:-1]) == ""
    assert detokenizer.flush() == "�"
    assert detokenizer.push(TOKENIZER.id("a")) == "a"


def test_time_is_linear_even_for_endless_rubbish() -> None:
    """Continuation bytes never make a character; a decoder that waits for one reads all of them again and again."""
    token = next(i for i in range(TOKENIZER.vocab_size) if TOKENIZER.token_bytes(i) == b"\x80")

    def seconds(count: int) -> float:
        detokenizer = IncrementalDetokenizer(TOKENIZER)
        start = time.perf_counter()
        for _ in range(count):
            detokenizer.push(token)
        return time.perf_counter() - start

    assert min(seconds(40_000) for _ in range(3)) < 12 * min(seconds(10_000) for _ in range(3))


def test_names_and_ids() -> None:
    assert (TOKENIZER.id("<s>"), TOKENIZER.token(0)) == (0, "<s>")
    assert TOKENIZER.special_token_ids == {0, 1, 2, 3}
    assert TOKENIZER.vocab_size == len({TOKENIZER.token(i) for i in range(TOKENIZER.vocab_size)})
    with pytest.raises(ValueError, match="nowhere"):
        TOKENIZER.id("nowhere")
    with pytest.raises(ValueError, match=str(TOKENIZER.vocab_size)):
        TOKENIZER.token(TOKENIZER.vocab_size)


def test_ids_past_the_vocabulary_have_no_text() -> None:
    """A model's output may be padded past its tokenizer."""
    assert TOKENIZER.decode([TOKENIZER.vocab_size + 7, TOKENIZER.id("a")]) == "a"


def test_digest_depends_on_content_and_not_on_spelling() -> None:
    respelt = json.dumps(dict(reversed(json.loads(DESCRIPTION).items())), indent=3, ensure_ascii=True)
    assert Tokenizer(respelt, None, ()).digest == TOKENIZER.digest
    changed = json.loads(DESCRIPTION)
    changed["model"]["merges"].pop()
    assert Tokenizer(json.dumps(changed), None, ()).digest != TOKENIZER.digest


def write(directory: Path, **files: object) -> Path:
    (directory / "tokenizer.json").write_text(DESCRIPTION, encoding="utf-8")
    for name, value in files.items():
        (directory / f"{name}.json").write_text(json.dumps(value))
    return directory


@pytest.mark.parametrize(
    ("files", "bos", "eos"),
    [
        ({"special_tokens": {"bos": 0, "eos": [3, 1]}}, 0, (3, 1)),
        ({"config": {"bos_token_id": 0, "eos_token_id": 1}}, 0, (1,)),
        ({"config": {"eos_token_id": 1}, "generation_config": {"eos_token_id": [1, 3]}}, None, (1, 3)),
        ({"config": {"eos_token_id": 0}, "special_tokens": {"eos": [3]}}, None, (3,)),
        ({"config": {"bos_token_id": None, "eos_token_id": None}}, None, ()),
        ({}, None, ()),
    ],
)
def test_directories_of_both_kinds_are_loaded(
    tmp_path: Path, files: dict[str, object], bos: int | None, eos: tuple[int, ...]
) -> None:
    tokenizer = Tokenizer.load(write(tmp_path, **files))
    assert (tokenizer.bos_token_id, tokenizer.eos_token_ids) == (bos, eos)
    assert tokenizer.digest == TOKENIZER.digest


def test_a_directory_without_tokenizer_says_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"tokenizer\.json.*No such file"):
        Tokenizer.load(tmp_path / "nowhere")


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"model":{"type":"WordPiece"},"decoder":null}'])
def test_other_kinds_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"tokenizer\.json"):
        Tokenizer(text, None, ())
