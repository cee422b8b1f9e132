"""Waiting, before anything is served, for what a tier needs: a job's half of readiness. Knows no service."""

from __future__ import annotations

import asyncio
import sys
import time

from memory3.errors import Memory3Error
from services.common.health import Check

_PAUSE_S = 2.0


def say(text: str) -> None:
    """One line of the job's log."""
    print(text, flush=True)  # noqa: T201 - a job's output


async def wait_for(what: str, check: Check, patience_s: float) -> None:
    """Return when `check` does; say each new reason why it does not.

    Raises SystemExit (1) with the last reason after `patience_s` seconds.
    """
    until = time.monotonic() + patience_s
    said = ""
    while True:
        try:
            await check()
        except Memory3Error as error:
            problem = str(error)
        else:
            say(f"{what} can be used")
            return
        if time.monotonic() + _PAUSE_S > until:
            sys.exit(f"gave up on {what} after {patience_s:g} s: {problem}")
        if problem != said:
            said = problem
            say(f"waiting for {what}: {problem}")
        await asyncio.sleep(_PAUSE_S)
