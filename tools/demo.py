"""The demo: a real knowledge base, questions in three modes, and the bulk write behind. Started by `make demo`.

Every step is a command that you can type yourself; it is shown before it runs.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import shlex
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from memory3.decoder import DecoderClient
from memory3.memory import MemoryClient
from memory3.security import ChannelSecurity
from services.common.config import load
from services.launch.config import LaunchSettings
from services.launch.core import LaunchError, Stack, running_stack
from services.launch.health_probe import serving

BANK = "wikipedia"
CORPUS = "package:wikipedia-leads"
QUESTIONS = (
    "Who painted The Starry Night?",
    "Who wrote the novel Don Quixote?",
    "Who wrote Robinson Crusoe?",
)
EARLY_QUESTION = "Who wrote Candide?"
"""Answered by one of the first articles of the corpus, so that the bulk write soon has its memories."""
MODES = ("none", "rag", "memory")
INTERRUPT_WITHIN_S = 30.0


class Demo:
    """One run of the demo on a running stack."""

    def __init__(self, stack: Stack, data_dir: Path, arguments: argparse.Namespace) -> None:
        self._arguments = arguments
        self._data_dir = data_dir
        self._stack = stack
        self._start = time.monotonic()
        self._env = {
            **os.environ,
            **{f"MEMORY3_{name.upper()}": address for name, address in stack.addresses.items()},
            "MEMORY3_INGEST_DATA_DIR": str(data_dir / "ingest"),
        }

    async def run(self) -> None:
        """All steps."""
        say(f"1. A knowledge base: the first {self._arguments.slice} of 10,033 Wikipedia lead texts, indexed only.")
        say("   Their memories are written on first recall (cold start), so questions can be asked at once.")
        await self._command(
            "ingest", CORPUS, "--bank", BANK, "--memories", "cold", "--limit", str(self._arguments.slice)
        )
        say("2. Three questions, each in three modes: the model alone, references as text, references as memories.")
        first = True
        for question in QUESTIONS[: self._arguments.questions]:
            for mode in MODES:
                more = ["--trace"] if mode == "memory" and question == QUESTIONS[0] else []
                await self._command("generate", question, "--bank", BANK, "--mode", mode, "--max-tokens", "48", *more)
                if first:
                    say(f"   (first answer {time.monotonic() - self._start:.0f} s after the services were ready)")
                    first = False
        await self._count_memories("after the questions")
        if self._arguments.bulk_seconds > 0:
            await self._bulk()
        self._how_to_go_on()

    async def _bulk(self) -> None:
        say(f"3. The bulk write: every memory of the whole base, for {self._arguments.bulk_seconds:.0f} s of it.")
        say("   It can be cut short at any moment, as it is here, and goes on where it was when run again.")
        process = await self._spawn("ingest", CORPUS, "--bank", BANK)
        try:
            await asyncio.wait_for(process.wait(), self._arguments.bulk_seconds)
        except TimeoutError:
            process.send_signal(signal.SIGINT)
            await asyncio.wait_for(process.wait(), INTERRUPT_WITHIN_S)
        await self._count_memories("after the bulk write")
        say("   A question about an article written just now: its memory is fetched (tier object or ram, not cold).")
        # The writer still works on what it had taken up when the bulk write was cut short: give the recall time.
        patient = ["--recall-deadline-ms", "10000"]
        await self._command(
            "generate", EARLY_QUESTION, "--bank", BANK, "--mode", "memory", "--max-tokens", "48", *patient
        )

    async def _count_memories(self, when: str) -> None:
        security = ChannelSecurity.from_environment(os.environ)
        async with (
            DecoderClient(self._stack.addresses["decoder"], security=security) as decoder,
            MemoryClient(self._stack.addresses["memory"], security=security) as memory,
        ):
            fingerprint = (await decoder.info()).model_fingerprint
            sizes = [entry.size_bytes async for entry in memory.list(BANK, fingerprint)]
        say(f"   {len(sizes)} memories are stored {when}, {sum(sizes) / 2**20:.1f} MiB.")

    def _how_to_go_on(self) -> None:
        data_dir = shlex.quote(os.path.relpath(self._data_dir))
        memory3 = shlex.quote(os.path.relpath(Path(sys.executable).parent / "memory3"))
        say("Go on:")
        say(f"  {memory3} serve --data-dir {data_dir}                  # the same knowledge base, in one terminal")
        say("  and in another:")
        say(f"  export MEMORY3_INGEST_DATA_DIR={data_dir}/ingest")
        say(f"  {memory3} ingest {CORPUS} --bank {BANK}     # write the rest (15 to 90 minutes on two cores)")
        say(f'  {memory3} generate "What is a haiku?" --bank {BANK} --trace')
        say(f"  {memory3} ingest YOUR/FOLDER --bank mine; {memory3} --help")

    async def _command(self, *arguments: str) -> None:
        process = await self._spawn(*arguments)
        code = await process.wait()
        if code != 0:
            raise LaunchError(f"memory3 {arguments[0]} ended with exit code {code}; the demo stops here")

    async def _spawn(self, *arguments: str) -> asyncio.subprocess.Process:
        print(f"\n$ memory3 {shlex.join(arguments)}", flush=True)
        return await asyncio.create_subprocess_exec(sys.executable, "-m", "memory3.cli", *arguments, env=self._env)


def say(text: str) -> None:
    """One line of narration."""
    print(text if text.startswith(" ") else f"\n{text}", flush=True)


async def run(arguments: argparse.Namespace) -> None:
    """Start the services, run the demo, stop the services."""
    settings = load(LaunchSettings).model_copy(
        update={"data_dir": arguments.data_dir.absolute(), "port_base": 0, "backend": arguments.backend}
    )
    say(f"Starting the three services; data and logs below {arguments.data_dir}.")
    async with running_stack(settings, serving, say) as stack:
        watch = asyncio.create_task(stack.watch())
        demo = asyncio.create_task(Demo(stack, settings.data_dir, arguments).run())
        try:
            await asyncio.wait({watch, demo}, return_when=asyncio.FIRST_COMPLETED)
            await (demo if demo.done() else watch)
        finally:
            for task in (watch, demo):
                task.cancel()
            await asyncio.gather(watch, demo, return_exceptions=True)
            say("Stopping the services.")


def main(given: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, default=Path(".data/demo"), help="kept between runs")
    parser.add_argument("--slice", type=int, default=800, help="documents indexed before the first question")
    parser.add_argument("--questions", type=int, default=len(QUESTIONS), help="how many of the questions are asked")
    parser.add_argument("--bulk-seconds", type=float, default=60.0, help="how long the bulk write goes on; 0 skips it")
    parser.add_argument("--backend", choices=["ray", "local"], default="ray", help="where decoder workers run")
    try:
        asyncio.run(run(parser.parse_args(given)))
    except LaunchError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\ninterrupted; `make demo` goes on where it was")
        return 130
    return 0


if __name__ == "__main__":
    with contextlib.suppress(BrokenPipeError):
        sys.exit(main())
