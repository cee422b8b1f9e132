"""Records and arrays of a codec read as a worker reads them."""

from __future__ import annotations

import torch

from model.codec.arrays import MemoryArrays
from model.codec.base import Arrays, ArraysToArrays
from model.codec.chain import CodecChain
from model.expansion.expander import Expander
from model.expansion.stages import expansion_of


def read(
    chain: CodecChain, record: bytes | bytearray | memoryview, reference_id: str, model_fingerprint: str
) -> MemoryArrays:
    """The memory in a record, in float32. Raises RecordError."""
    (memory,) = Expander(chain, "cpu").expand([chain.unpack(record, reference_id, model_fingerprint)])
    return memory.to_arrays()


def expanded(stage: ArraysToArrays, arrays: Arrays) -> Arrays:
    """What `stage.encode` was given, within its error."""
    batch = {name: torch.from_numpy(array)[None] for name, array in arrays.items()}
    return {name: tensor[0].numpy() for name, tensor in expansion_of(stage, torch.device("cpu"))(batch).items()}
