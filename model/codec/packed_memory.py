"""One explicit memory as its record packs it: codes, not yet numbers. What a reader keeps and sends to its device."""

from __future__ import annotations

from dataclasses import dataclass

from model.codec.base import Specs


@dataclass(frozen=True, eq=False)
class PackedMemory:
    """Made by `CodecChain.unpack`; `model.expansion` makes keys and values of it."""

    payload: bytes
    """The packed arrays, one after the other."""
    specs: Specs
    """What they are; as many bytes as `payload` has."""
    shape: tuple[int, int, int, int]
    """(L, K, S, D) of keys and values."""
    num_reference_tokens: int
    """Tokens of the reference, prefix not counted."""
    reference_id: str
