"""What makes two memories interchangeable: the id of a reference and the fingerprint of the model that wrote it.

One function each, used everywhere a key, a header or a request names a memory. This file hashes what it is given; it
does not know where weights, tokenizers or memories are kept.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from model.plan import MemoryPlan

MEMORY_LAYOUT_VERSION = 1
"""What a memory's arrays mean: keys rotated at the positions of docs/memory-format.md, prefix dropped, kept tokens in
ascending order. Raise it when the same text, weights and plan would give other arrays; old memories then count as
missing and are written again."""

ID_HEX_DIGITS = 32
"""Ids are the first 128 bits of a SHA-256: no collision in any bank that fits on a disk."""

_REFERENCE_DOMAIN = b"memory3 reference v1\0"
_PRECEDED_DOMAIN = b"memory3 preceded reference v1\0"
_MODEL_DOMAIN = b"memory3 model v1\0"


def canonical_json(value: Any) -> str:
    """`value` as JSON with one spelling only: sorted keys, no spaces, ASCII, no NaN. Equal values give equal text."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def reference_id(text: str, preceding: str = "") -> str:
    """The id of a reference, 32 hex digits, from its text and the text directly before it in its document.

    The same text behind the same text, or behind none, is the same reference in any document. Raises ValueError if
    either is not valid Unicode (a lone surrogate).
    """
    if not preceding:
        return _short_digest(_REFERENCE_DOMAIN + _utf8(text))
    # NUL bytes may stand in texts: the length keeps two texts apart.
    return _short_digest(_PRECEDED_DOMAIN + len(_utf8(text)).to_bytes(8, "big") + _utf8(text) + _utf8(preceding))


def _utf8(text: str) -> bytes:
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise ValueError(
            f"reference text holds a lone surrogate at character {error.start}; decode the source with errors='replace'"
        ) from error


def model_fingerprint(
    weights_digest: str,
    tokenizer_digest: str,
    plan: MemoryPlan,
    layout_version: int,
    dtype: str,
    codec_description: list[dict[str, Any]],
) -> str:
    """The fingerprint, 32 hex digits, of all that must agree between the writer and the reader of a memory.

    Of the plan only what decides the written bytes takes part (`MemoryPlan.written`): to read more memories per chunk,
    or to change the separator, must not make a bank unreadable. `dtype` is the dtype the writer computes in, and
    `codec_description` is `CodecChain.describe()`.
    """
    identity = {
        "weights": weights_digest,
        "tokenizer": tokenizer_digest,
        "plan": plan.written(),
        "layout_version": layout_version,
        "dtype": dtype,
        "codec": codec_description,
    }
    return _short_digest(_MODEL_DOMAIN + canonical_json(identity).encode("ascii"))


def _short_digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:ID_HEX_DIGITS]
