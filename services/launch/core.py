"""Starts the tiers, waits until all serve, watches them, stops them. Knows no tier's inside and no wire."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path
from typing import NoReturn

from services.launch.config import LaunchSettings, TierSpec, tier_specs
from services.launch.ports import Probe
from services.launch.process import TierProcess

POLL_S = 0.2
NEWS_EVERY_S = 5.0
KILL_AFTER_S = 5.0
"""Beyond the drain time: a tier that has not ended by then is killed."""
TAIL_LINES = 20
HINT_CHARACTERS = 100


class LaunchError(Exception):
    """The tiers cannot run; the message says which, why, and what to do."""


class Stack:
    """Three running tiers."""

    def __init__(self, processes: Sequence[TierProcess]) -> None:
        self._processes = processes
        self.addresses = {process.spec.name: process.address for process in processes}

    async def watch(self) -> NoReturn:
        """Wait until a tier ends, which none should: raises LaunchError with what it said last."""
        waits = {asyncio.create_task(process.ended()): process for process in self._processes}
        try:
            done, _ = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
        first = done.pop()
        raise _died(waits[first], first.result())


@contextlib.asynccontextmanager
async def running_stack(settings: LaunchSettings, probe: Probe, say: Callable[[str], None]) -> AsyncIterator[Stack]:
    """The three tiers, all serving, inside the block; stopped at its end.

    Raises LaunchError if the data folder or a port is taken, or a tier does not get ready.
    """
    with _locked(settings.data_dir):
        specs = tier_specs(settings, choose_ports(settings.host, settings.port_base))
        async with running_processes(settings, specs, probe, say) as stack:
            yield stack


@contextlib.asynccontextmanager
async def running_processes(
    settings: LaunchSettings, specs: Sequence[TierSpec], probe: Probe, say: Callable[[str], None]
) -> AsyncIterator[Stack]:
    """The given tiers, as running_stack."""
    logs = settings.data_dir / "logs"
    processes = [TierProcess(spec, settings.host, logs / f"{spec.name}.log") for spec in specs]
    try:
        for process in processes:
            await process.start()
        await _all_ready(processes, probe, say, settings.start_seconds)
        yield Stack(processes)
    finally:
        await asyncio.shield(_stop(processes, settings.drain_seconds))


def choose_ports(host: str, base: int) -> tuple[int, int, int]:
    """`base` and the next two, or three free ports for base 0. Raises LaunchError naming a port that is taken."""
    with contextlib.ExitStack() as stack:
        chosen = []
        for offset in range(3):
            wanted = base + offset if base else 0
            held = stack.enter_context(socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET))
            held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                held.bind((host, wanted))
            except OSError as error:
                if error.errno == errno.EADDRINUSE:
                    raise LaunchError(
                        f"port {wanted} on {host} is in use: is memory3 serve running already? "
                        "Take others with --port-base (0 takes free ones)"
                    ) from error
                raise LaunchError(
                    f"cannot listen on {host}:{wanted}: {error.strerror}; choose another --host"
                ) from error
            chosen.append(int(held.getsockname()[1]))
    return chosen[0], chosen[1], chosen[2]


@contextlib.contextmanager
def _locked(data_dir: Path) -> Iterator[None]:
    """Keep a second launcher away from the same files."""
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        lock = (data_dir / "serve.lock").open("w")
    except OSError as error:
        raise LaunchError(f"cannot write to {data_dir}: {error.strerror}; choose another --data-dir") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise LaunchError(
                f"{data_dir} is in use by another memory3 serve; stop it or choose another --data-dir"
            ) from error
        yield


async def _all_ready(
    processes: Sequence[TierProcess], probe: Probe, say: Callable[[str], None], start_seconds: float
) -> None:
    start = time.monotonic()
    try:
        async with asyncio.timeout(start_seconds), asyncio.TaskGroup() as group:
            for process in processes:
                group.create_task(_ready(process, probe, say, start))
    except* LaunchError as failed:
        raise _first(failed) from None
    except* TimeoutError:
        late = [process for process in processes if not await probe(process.address)] or list(processes)
        raise LaunchError(
            f"{', '.join(process.spec.name for process in late)} not ready after {start_seconds:.0f} s "
            f"(MEMORY3_SERVE_START_SECONDS); last said:\n{_quoted(late[0])}"
        ) from None


async def _ready(process: TierProcess, probe: Probe, say: Callable[[str], None], start: float) -> None:
    """Return when the tier serves; tell now and then what it is waited for."""
    name = process.spec.name
    last_news = start
    while not await probe(process.address):
        if not process.running:
            raise _died(process, await process.ended())
        now = time.monotonic()
        if now - last_news >= NEWS_EVERY_S:
            last_news = now
            said = process.tail(1)
            hint = f" ({said[0].splitlines()[0][:HINT_CHARACTERS]})" if said else ""
            say(f"  {name}: waiting, {now - start:.0f} s{hint}")
        await asyncio.sleep(POLL_S)
    say(f"  {name}: ready at {process.address} after {time.monotonic() - start:.1f} s")


async def _stop(processes: Sequence[TierProcess], drain_seconds: float) -> None:
    """The last tier, the decoder, first: while it drains, it still finds the others."""
    *others, decoder = processes
    await decoder.stop(drain_seconds + KILL_AFTER_S)
    await asyncio.gather(*(process.stop(drain_seconds + KILL_AFTER_S) for process in others))


def _died(process: TierProcess, code: int) -> LaunchError:
    how = f"signal {-code}" if code < 0 else f"exit code {code}"
    return LaunchError(
        f"{process.spec.name} ended with {how}; its last lines (all of them: {process.log}):\n{_quoted(process)}"
    )


def _quoted(process: TierProcess) -> str:
    text = "\n".join(process.tail(TAIL_LINES)) or "nothing"
    return "\n".join(f"  | {line}" for line in text.splitlines())


def _first(group: BaseExceptionGroup[LaunchError]) -> BaseException:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
