"""One loaded model with all that belongs to it: tokenizer, template, plan, codec, identity. Knows no requests."""

from __future__ import annotations

from dataclasses import dataclass

from memory3.types import DecoderInfo
from model.chat import ChatTemplate
from model.codec.chain import CodecChain
from model.codec.packed_memory import PackedMemory
from model.expansion.expander import Expander
from model.memory.writer import MemoryWriter
from model.plan import MemoryPlan
from model.runner import ModelRunner
from model.tokenizer import Tokenizer


@dataclass(frozen=True)
class ModelBundle:
    """Made by services/decoder/loading.py."""

    runner: ModelRunner
    writer: MemoryWriter
    tokenizer: Tokenizer
    template: ChatTemplate | None
    """None: the model knows no chat."""
    plan: MemoryPlan
    codec: CodecChain
    fingerprint: str
    """What a stored memory must have been written by."""
    expander: Expander
    """Expands unpacked memories on the model's device, in the model's dtype; for the thread that owns the device."""
    info: DecoderInfo

    def unpack(self, record: bytes, reference_id: str) -> PackedMemory:
        """The memory in a record, in the host's RAM. Raises RecordError: damaged, or of another reference or model."""
        return self.codec.unpack(record, reference_id, self.fingerprint)
