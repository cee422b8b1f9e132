"""ReferenceSource on a running retrieval tier."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from memory3.retrieval import RetrievalClient
from memory3.security import ChannelSecurity
from services.datasets.item import Passage
from services.evaluation.ports import References

_QUERIES_PER_CALL = 32


class RetrievedReferences:
    """References of one bank, asked for as serving asks. A context manager; not thread-safe.

    An evaluation is one sequence of steps: this drives the asynchronous client and waits.
    """

    def __init__(self, address: str, bank: str, top_k: int, *, timeout_s: float, security: ChannelSecurity) -> None:
        self._address, self._bank, self._top_k = address, bank, top_k
        self._timeout_s, self._security = timeout_s, security
        self._runner = asyncio.Runner()
        self._client: RetrievalClient | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if self._client is not None:
            self._runner.run(self._client.close())
        self._runner.close()

    def find(self, queries: Sequence[str]) -> list[References]:
        """See `ports.ReferenceSource`. Raises memory3.errors. Blank queries find nothing."""
        asked = [query for query in queries if query.strip()]
        found: dict[str, References] = {}
        for start in range(0, len(asked), _QUERIES_PER_CALL):
            part = asked[start : start + _QUERIES_PER_CALL]
            found |= zip(part, self._runner.run(self._retrieve(part)), strict=True)
        return [found.get(query, ()) for query in queries]

    async def _retrieve(self, queries: Sequence[str]) -> list[References]:
        if self._client is None:
            self._client = RetrievalClient(self._address, security=self._security)
        result = await self._client.retrieve(self._bank, queries, self._top_k, timeout=self._timeout_s)
        return [tuple(Passage(hit.reference.text, hit.reference.preceding) for hit in hits) for hits in result.results]
