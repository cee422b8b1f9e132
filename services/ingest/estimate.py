"""What an ingest would do, without doing it: references, bytes and time to expect."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from services.ingest.chunk import Cutter
from services.ingest.documents import BadInput, SourceDocument
from services.ingest.progress import Progress
from services.ingest.summary import Failure

SECONDS_PER_REFERENCE = {"cold": 0.035, "warm": 0.2}
"""Where no run has been timed yet: two busy CPU cores, SmolLM2-135M and all-MiniLM-L6-v2. A GPU is far faster."""


@dataclass
class Estimate:
    """What to expect. `bytes_expected` is None when no decoder could be asked for the size of a memory."""

    documents: int = 0
    documents_finished: int = 0
    references: int = 0
    references_distinct: int = 0
    references_ahead: int = 0
    tokens: int = 0
    bytes_expected: int | None = None
    seconds_expected: float = 0.0
    seconds_per_reference: float = 0.0
    rate_is_measured: bool = False
    failures: list[Failure] = field(default_factory=list)


def estimate(
    inputs: Iterator[SourceDocument | BadInput],
    cutter: Cutter,
    progress: Progress,
    *,
    bank: str,
    stages: set[str],
    kind: str,
    memory_bytes: int | None,
    on_bad: Callable[[Failure], None] = lambda failure: None,
) -> Estimate:
    """Read and cut everything, send nothing. `stages` are those the run would bring each document through."""
    result = Estimate()
    distinct: set[bytes] = set()
    for item in inputs:
        if isinstance(item, BadInput):
            failure = Failure(item.source, item.reason)
            on_bad(failure)
            if not item.harmless:
                result.failures.append(failure)
            continue
        cut = cutter.cut(item)
        result.documents += 1
        result.references += len(cut.references)
        result.tokens += sum(reference.num_tokens for reference in cut.references)
        distinct.update(bytes.fromhex(reference.reference_id) for reference in cut.references)
        if stages <= progress.stages(bank, item.document_id, cut.version):
            result.documents_finished += 1
        else:
            result.references_ahead += len(cut.references)
    result.references_distinct = len(distinct)
    measured = progress.rate(kind)
    result.rate_is_measured = measured is not None
    result.seconds_per_reference = measured if measured is not None else SECONDS_PER_REFERENCE[kind]
    result.seconds_expected = result.references_ahead * result.seconds_per_reference
    result.bytes_expected = None if memory_bytes is None else len(distinct) * memory_bytes
    return result
