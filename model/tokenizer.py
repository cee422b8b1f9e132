"""Text to token ids and back, for byte-level BPE tokenizers kept as a `tokenizer.json` in a model directory.

Two readings of a text are kept apart: `encode` for text that somebody gave (whatever it says, no special token comes
out) and `encode_special` for text we wrote ourselves (templates, a plan's prefix). Knows no chat, no model, no torch.
"""

from __future__ import annotations

import codecs
import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import tokenizers

from model.identity import canonical_json


class Tokenizer:
    """The tokenizer of one model directory. Immutable, and safe to use from several threads."""

    def __init__(self, tokenizer_json: str, bos_token_id: int | None, eos_token_ids: tuple[int, ...]) -> None:
        """`tokenizer_json` is the text of a tokenizer.json. Raises ValueError unless it is a byte-level BPE."""
        description = _parse_description(tokenizer_json)
        self.bos_token_id = bos_token_id
        self.eos_token_ids = eos_token_ids
        """Tokens that end an answer; the first is the one a chat template writes."""
        self.digest = hashlib.sha256(canonical_json(description).encode("ascii")).hexdigest()
        """SHA-256, in hex, of the description; any spelling of the same JSON has the same digest."""
        self._special = _from_description(tokenizer_json)
        self._plain = _from_description(tokenizer_json)
        self._plain.encode_special_tokens = True  # the library's words for "treat special tokens as any other text"
        self.vocab_size: int = self._special.get_vocab_size(with_added_tokens=True)
        """Number of token ids, special tokens included."""
        self.special_token_ids = frozenset(t["id"] for t in description.get("added_tokens", []) if t["special"])
        added = {token["id"]: token["content"].encode() for token in description.get("added_tokens", [])}
        added.update(dict.fromkeys(self.special_token_ids, b""))
        self._bytes = _bytes_of_tokens(self._special.get_vocab(with_added_tokens=True), added)

    @classmethod
    def load(cls, directory: Path | str) -> Tokenizer:
        """The tokenizer of a model directory: ours (special_tokens.json) or one in Hugging Face's form.

        Raises ValueError if the directory has no tokenizer.json, or one that is not a byte-level BPE.
        """
        directory = Path(directory)
        try:
            text = (directory / "tokenizer.json").read_text(encoding="utf-8")
        except OSError as error:
            raise ValueError(
                f"model directory {directory} has no readable tokenizer.json ({error.strerror}); give a directory with "
                "config.json, model.safetensors and tokenizer.json"
            ) from error
        bos, eos = _read_special_tokens(directory)
        return cls(text, bos, eos)

    def encode(self, text: str) -> list[int]:
        """The tokens of a text. Nothing is added, and special tokens spelt out in it are ordinary text.

        Characters that the vocabulary has no bytes for are left out (for SmolLM2: a few control characters). Raises
        ValueError if the text is not valid Unicode (a lone surrogate).
        """
        return list(_encode(self._plain, text).ids)

    def encode_special(self, text: str) -> list[int]:
        """The tokens of a text of our own: special tokens spelt out in it become those tokens. Never for user text."""
        return list(_encode(self._special, text).ids)

    def encode_with_offsets(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        """`encode`, and for each token the characters [start, end) of `text` it stands for.

        Tokens that share one character (an emoji of four bytes) all have that character's offsets.
        """
        encoding = _encode(self._plain, text)
        return list(encoding.ids), list(encoding.offsets)

    def decode(self, ids: Iterable[int]) -> str:
        """The text of tokens; special tokens have none, bytes that are not UTF-8 become U+FFFD."""
        return b"".join(map(self.token_bytes, ids)).decode("utf-8", errors="replace")

    def token_bytes(self, token_id: int) -> bytes:
        """The UTF-8 bytes, not always whole characters, that a token stands for.

        Empty for special tokens, and for the ids past the vocabulary with which some models pad their output.
        """
        return self._bytes[token_id] if token_id < len(self._bytes) else b""

    def token(self, token_id: int) -> str:
        """The written form of a token, as `id` takes it. Raises ValueError if the vocabulary has no such id."""
        token = self._special.id_to_token(token_id)
        if token is None:
            raise ValueError(
                f"token id {token_id} is not in a vocabulary of {self.vocab_size}; check special_tokens.json"
            )
        return str(token)

    def id(self, token: str) -> int:
        """The id of a token in its written form. Raises ValueError if the vocabulary has no such token."""
        token_id = self._special.token_to_id(token)
        if token_id is None:
            raise ValueError(
                f"token {token!r} is not among the {self.vocab_size} of this vocabulary; check its spelling"
            )
        return int(token_id)


class IncrementalDetokenizer:
    """Turns tokens into text as they come; the pieces joined equal `Tokenizer.decode` of all tokens.

    Time is linear in the bytes: no token is ever decoded twice.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def push(self, token_id: int) -> str:
        """The text that is complete with this token; bytes of an unfinished character are held back."""
        return self._decoder.decode(self._tokenizer.token_bytes(token_id))

    def flush(self) -> str:
        """What is held back at the end, as U+FFFD; afterwards the detokenizer is as new."""
        text = self._decoder.decode(b"", final=True)
        self._decoder.reset()
        return text


def _parse_description(tokenizer_json: str) -> dict[str, Any]:
    try:
        description = json.loads(tokenizer_json)
        model, decoder = description["model"]["type"], description["decoder"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"tokenizer.json cannot be read: {error!r}; fetch the model again") from error
    # Token by token decoding rests on this: every token is a run of bytes, whatever stands beside it.
    if model != "BPE" or not isinstance(decoder, dict) or decoder.get("type") != "ByteLevel":
        raise ValueError(
            f"tokenizer.json describes model {model!r} with decoder {decoder!r}; only byte-level BPE is supported "
            "(SmolLM2, Llama 3 and most models since 2023)"
        )
    assert isinstance(description, dict)
    return description


def _encode(tokenizer: tokenizers.Tokenizer, text: str) -> tokenizers.Encoding:
    try:
        return tokenizer.encode(text, add_special_tokens=False)
    except TypeError as error:  # the library takes only what UTF-8 can spell
        raise ValueError(
            "text holds a lone surrogate, which is no character; decode its source with errors='replace'"
        ) from error


def _from_description(tokenizer_json: str) -> tokenizers.Tokenizer:
    tokenizer = tokenizers.Tokenizer.from_str(tokenizer_json)
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _read_special_tokens(directory: Path) -> tuple[int | None, tuple[int, ...]]:
    """(bos, eos ids) from our own file, else from Hugging Face's: what generation uses wins over what training used."""
    bos: int | None = None
    eos: int | list[int] | None = None
    for name, bos_key, eos_key in (
        ("special_tokens.json", "bos", "eos"),
        ("generation_config.json", "bos_token_id", "eos_token_id"),
        ("config.json", "bos_token_id", "eos_token_id"),
    ):
        path = directory / name
        if path.is_file():
            values = json.loads(path.read_text(encoding="utf-8"))
            bos = values.get(bos_key) if bos is None else bos
            eos = values.get(eos_key) if eos is None else eos
    if eos is None:
        return bos, ()
    return bos, (eos,) if isinstance(eos, int) else tuple(eos)


def _bytes_of_tokens(vocabulary: dict[str, int], added: dict[int, bytes]) -> list[bytes]:
    table = _byte_of_character()
    size = max(vocabulary.values(), default=-1) + 1
    bytes_of_tokens = [b""] * size
    for token, token_id in vocabulary.items():
        if token_id in added:
            bytes_of_tokens[token_id] = added[token_id]
        elif table.keys() >= set(token):
            bytes_of_tokens[token_id] = bytes(table[char] for char in token)
        else:  # no byte-level spelling: the library, too, takes such a token for plain text
            bytes_of_tokens[token_id] = token.encode()
    return bytes_of_tokens


def _byte_of_character() -> dict[str, int]:
    """GPT-2's spelling of bytes: printable Latin-1 stands for itself, all others for U+0100 and following, in order."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(0x100) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(0x100 + i): byte for i, byte in enumerate(others)}
