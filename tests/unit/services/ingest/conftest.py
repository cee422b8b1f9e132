"""A tokenizer for the ingest tests: byte-level BPE with few merges, so that words have several tokens."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import tokenizers

WORDS = "the a of in and to is was The it on for with as by at he she they"


class SmallTokenizer:
    """Byte-level BPE trained on a handful of words."""

    digest = "small"

    def __init__(self) -> None:
        self._tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
        self._tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
        trainer = tokenizers.trainers.BpeTrainer(
            vocab_size=320,
            initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        self._tokenizer.train_from_iterator([WORDS] * 20, trainer)

    def token_ends(self, text: str) -> Sequence[int]:
        return [end for _, end in self._tokenizer.encode(text, add_special_tokens=False).offsets]


@pytest.fixture(scope="session")
def counter() -> SmallTokenizer:
    return SmallTokenizer()
