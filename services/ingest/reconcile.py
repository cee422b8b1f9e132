"""Asks the tiers whether they still hold what the progress file says is finished, and forgets what they deny.

Banks are deleted, stores are moved and models change without ingest being told. Knows no documents' texts.
"""

from __future__ import annotations

import asyncio
from functools import partial

from memory3.errors import UnknownBankError
from services.ingest.batching import in_parts
from services.ingest.ports import Index, MemoryStore
from services.ingest.progress import INDEXED, Progress, written
from services.ingest.retry import Tier

STAT_IDS = 4096
"""Limit of MemoryService.Stat."""


async def reconcile_index(bank: str, progress: Progress, index: Index, tier: Tier) -> None:
    """Forget documents that the index does not list in the version that was ingested."""
    claimed = await asyncio.to_thread(progress.versions, bank, INDEXED)
    if not claimed:
        return

    async def list_versions() -> dict[str, str]:
        try:
            return {document.document_id: document.version async for document in index.list_documents(bank)}
        except UnknownBankError:
            return {}

    listed = await tier.call(list_versions)
    denied = [document_id for document_id, version in claimed.items() if listed.get(document_id) != version]
    await asyncio.to_thread(progress.forget, bank, INDEXED, denied)


async def reconcile_memories(
    bank: str, model_fingerprint: str, progress: Progress, memories: MemoryStore, tier: Tier, *, timeout_s: float
) -> None:
    """Forget documents of which a memory of this model is missing."""
    stage = written(model_fingerprint)
    holders: dict[str, list[str]] = {}
    for document_id, reference_ids in await asyncio.to_thread(lambda: list(progress.references(bank, stage))):
        for reference_id in reference_ids:
            holders.setdefault(reference_id, []).append(document_id)
    denied: set[str] = set()
    for ids in in_parts(list(holders), STAT_IDS):
        stats = await tier.call(partial(memories.stat, bank, model_fingerprint, ids, timeout=timeout_s))
        for item in stats:
            if not item.exists:
                denied.update(holders[item.reference_id])
    await asyncio.to_thread(progress.forget, bank, stage, denied)
