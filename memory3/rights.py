"""Which right each call needs: the one table of the contracts' doors. A test holds it total over all of them.

Rights do not include each other: a token has each one it was given, by name.
"""

from __future__ import annotations

import enum


class Right(enum.Enum):
    """What a token may do."""

    READ = "read"
    """Retrieve, fetch, generate, describe; memories that a generation writes by itself (cold start) are no writing."""
    WRITE = "write"
    """Index documents, put and write memories."""
    ADMIN = "admin"
    """Delete."""


_RETRIEVAL = "/memory3.api.retrieval.v1.RetrievalService/"
_EMBEDDING = "/memory3.api.retrieval.v1.EmbeddingService/"
_MEMORY = "/memory3.api.memory.v1.MemoryService/"
_DECODER = "/memory3.api.decoder.v1.DecoderService/"
_WRITER = "/memory3.api.decoder.v1.MemoryWriterService/"

RIGHTS: dict[str, Right] = {
    _EMBEDDING + "Embed": Right.READ,
    _RETRIEVAL + "Retrieve": Right.READ,
    _RETRIEVAL + "GetReferences": Right.READ,
    _RETRIEVAL + "ListDocuments": Right.READ,
    _RETRIEVAL + "ListBanks": Right.READ,
    _RETRIEVAL + "DescribeBank": Right.READ,
    _RETRIEVAL + "Upsert": Right.WRITE,
    _RETRIEVAL + "Delete": Right.ADMIN,
    _MEMORY + "BatchGet": Right.READ,
    _MEMORY + "Stat": Right.READ,
    _MEMORY + "List": Right.READ,
    _MEMORY + "Put": Right.WRITE,
    _MEMORY + "Delete": Right.ADMIN,
    _DECODER + "Generate": Right.READ,
    _DECODER + "GenerateOnce": Right.READ,
    _DECODER + "Info": Right.READ,
    _WRITER + "Write": Right.WRITE,
}
"""Full method name -> the right that its caller's token must have. What stands in neither table is refused."""

OPEN_METHODS = ("/grpc.health.", "/grpc.reflection.")
"""Beginnings of the methods that need no token: probes have none, and reflection tells what protos/ tells."""
