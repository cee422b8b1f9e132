"""Passages -> explicit memories as a reader gets them: written, through the codec and back, each passage once.

Knows no items and no services.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable

import torch

from model.codec.chain import CodecChain
from model.expansion.expander import Expander
from model.identity import reference_id
from model.memory.explicit_memory import ExplicitMemory
from model.memory.writer import MemoryWriter
from model.tokenizer import Tokenizer
from services.datasets.item import Passage


class MemoryBook:
    """Memories of one model, plan and codec; keeps the ones used last."""

    def __init__(
        self,
        writer: MemoryWriter,
        codec: CodecChain,
        tokenizer: Tokenizer,
        *,
        fingerprint: str,
        dtype: torch.dtype,
        device: torch.device,
        max_bytes: int,
    ) -> None:
        """`max_bytes`: kept for later; what one call needs is held whatever its size."""
        self._writer, self._codec, self._tokenizer = writer, codec, tokenizer
        self._fingerprint, self._max_bytes = fingerprint, max_bytes
        self._expander = Expander(codec, device, dtype)
        self._kept: OrderedDict[Passage, ExplicitMemory] = OrderedDict()
        self._num_bytes = 0
        self.num_written = 0
        self.record_bytes = 0
        """Of all records written."""

    def memories(self, passages: Iterable[Passage]) -> dict[Passage, ExplicitMemory]:
        """The memory of each distinct passage."""
        wanted = list(dict.fromkeys(passages))
        encode = self._tokenizer.encode
        missing = [(encode(one.text), encode(one.preceding), one) for one in wanted if one not in self._kept]
        # Of like length side by side: a batch is padded to its longest.
        missing.sort(key=lambda row: len(row[0]))
        written = self._writer.write(
            [tokens for tokens, _, _ in missing],
            [reference_id(*one) for _, _, one in missing],
            [preceding for _, preceding, _ in missing],
        )
        fresh = {one: self._stored(memory) for (_, _, one), memory in zip(missing, written, strict=True)}
        given = {one: fresh[one] if one in fresh else self._kept[one] for one in wanted}
        self._keep(given)
        return given

    def _stored(self, memory: ExplicitMemory) -> ExplicitMemory:
        record = self._codec.encode(memory.to_arrays(), memory.reference_id, self._fingerprint)
        self.num_written += 1
        self.record_bytes += len(record)
        # Alone, so that its tensors can go when it goes.
        (read,) = self._expander.expand([self._codec.unpack(record, memory.reference_id, self._fingerprint)])
        return read

    def _keep(self, memories: dict[Passage, ExplicitMemory]) -> None:
        for passage, memory in memories.items():
            if passage not in self._kept:
                self._num_bytes += _num_bytes(memory)
            self._kept[passage] = memory
            self._kept.move_to_end(passage)
        while self._num_bytes > self._max_bytes and self._kept:
            _, dropped = self._kept.popitem(last=False)
            self._num_bytes -= _num_bytes(dropped)


def _num_bytes(memory: ExplicitMemory) -> int:
    return memory.k_LKSD.nbytes + memory.v_LKSD.nbytes
