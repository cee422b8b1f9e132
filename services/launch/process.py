"""One tier as a child process: started, watched, stopped, and its log read."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import sys
from pathlib import Path

from services.launch.config import TierSpec

_TAIL_BYTES = 16 * 1024
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


class TierProcess:
    """A started tier. Its output goes to `log`; the log of the run before is kept beside it."""

    def __init__(self, spec: TierSpec, host: str, log: Path) -> None:
        self.spec = spec
        self.address = f"{host}:{spec.port}"
        self.log = log
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Start it; returns at once."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            self.log.replace(self.log.with_suffix(".previous.log"))
        with self.log.open("wb") as output:
            # A session of its own: ctrl-C on the terminal reaches the launcher alone, which stops the tiers in order.
            self._process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "services.launch.child", str(os.getpid()), self.spec.module,
                env=self.spec.env, stdin=asyncio.subprocess.DEVNULL, stdout=output, stderr=asyncio.subprocess.STDOUT,
                start_new_session=True,
            )  # fmt: skip

    async def ended(self) -> int:
        """Wait for its end; returns its exit code (negative: the signal)."""
        assert self._process is not None
        return await self._process.wait()

    @property
    def running(self) -> bool:
        """Whether it was started and has not ended."""
        return self._process is not None and self._process.returncode is None

    async def stop(self, within_s: float) -> None:
        """SIGTERM; after `within_s` seconds SIGKILL to it and all it started."""
        if self._process is None:
            return
        if self.running:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(signal.SIGTERM)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._process.wait(), within_s)
        # What the tier itself started is in its process group and goes too.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        await self._process.wait()

    def tail(self, lines: int) -> list[str]:
        """The last lines of its log; the message alone where a line is a JSON record."""
        try:
            with self.log.open("rb") as file:
                file.seek(max(0, self.log.stat().st_size - _TAIL_BYTES))
                text = file.read().decode("utf-8", errors="replace")
        except OSError:
            return []
        return [_message(line) for line in text.splitlines() if line.strip()][-lines:]


def _message(line: str) -> str:
    """What a log line says, without the wrapping of our JSON logs and of Ray's coloured prefixes."""
    line = _COLOUR.sub("", line).rstrip()
    start = line.find('{"time"')
    try:
        record = json.loads(line[start:] if start >= 0 else "")
        text = f"{record['level']}: {record['message']}"
    except (ValueError, KeyError, TypeError):
        return line
    return text + ("\n" + str(record["exception"]) if "exception" in record else "")
