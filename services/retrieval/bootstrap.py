"""`python -m services.retrieval.bootstrap [BANK...]`: wait for Milvus, and make the collections of these banks.

Banks that are not named are made when they are first written.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence

from memory3.errors import Memory3Error
from services.common import bootstrap, logs
from services.common.config import load
from services.common.signals import end_at_sigterm
from services.retrieval.__main__ import make_embedder, make_index
from services.retrieval.config import RetrievalSettings
from services.retrieval.limits import check_bank
from services.retrieval.ports import BankIdentity


async def run(settings: RetrievalSettings, banks: Sequence[str]) -> None:
    """Make the banks that are not there. Raises SystemExit (1) for a bank of another embedder."""
    for bank in banks:
        check_bank(bank)
    index = make_index(settings)
    try:
        await bootstrap.wait_for("the vector index", index.check, settings.bootstrap_seconds)
        if not banks:
            return
        embedder = await asyncio.to_thread(make_embedder, settings)
        wanted = BankIdentity(embedder.embedder_id, embedder.dimension)
        for bank in banks:
            found = await index.create(bank, wanted)
            if found != wanted:
                sys.exit(
                    f"bank {bank!r} was made by the embedder {found.embedder_id}, not {wanted.embedder_id}; delete it, "
                    "or give the tier that embedder"
                )
            bootstrap.say(f"bank {bank!r} is there")
    finally:
        await index.close()


def main() -> None:
    """Entry point."""
    end_at_sigterm()
    settings = load(RetrievalSettings)
    logs.start("retrieval-bootstrap", settings.log_level)
    try:
        asyncio.run(run(settings, sys.argv[1:]))
    except (Memory3Error, ValueError) as error:
        raise SystemExit(str(error)) from error


if __name__ == "__main__":
    main()
