"""How much work may be under way at once."""

from __future__ import annotations

import asyncio


class Room:
    """Bounds documents and references in flight; a document larger than the bound goes alone."""

    def __init__(self, documents: int, references: int) -> None:
        self._documents = documents
        self._references = references
        self._taken_documents = 0
        self._taken_references = 0
        self._freed = asyncio.Event()

    async def take(self, references: int) -> None:
        """Wait until a document of so many references may begin."""
        while self._taken_documents > 0 and (
            self._taken_documents >= self._documents or self._taken_references + references > self._references
        ):
            self._freed.clear()
            await self._freed.wait()
        self._taken_documents += 1
        self._taken_references += references

    def give_back(self, references: int) -> None:
        """A document is done."""
        self._taken_documents -= 1
        self._taken_references -= references
        self._freed.set()
