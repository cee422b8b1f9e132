"""Composition root of the launcher: `memory3 serve`, or `python -m services.launch`."""

from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path
from typing import Any

import click

from memory3.security import SecurityError
from services.common.config import load
from services.launch.config import LaunchSettings, tier_security
from services.launch.core import LaunchError, running_stack
from services.launch.health_probe import serving


def say(text: str) -> None:
    """One line for the person at the terminal."""
    click.echo(text)
    sys.stdout.flush()


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--data-dir", type=click.Path(path_type=Path, file_okay=False), help="Folder of all data and logs.")
@click.option("--host", help="Address to listen on.  [default: 127.0.0.1]")
@click.option(
    "--port-base",
    type=click.IntRange(0, 65533),
    help="Ports: retrieval, +1 memory, +2 decoder; 0: free ones.  [default: 7301]",
)
@click.option(
    "--backend",
    type=click.Choice(["ray", "local"]),
    help="Decoder workers on Ray Serve, or in one process.  [default: ray]",
)
@click.option("--adapter", help="Folder of an adapter to the model, or none.  [default: the shipped one]")
@click.option("--plan", help="Memory plan: preset or JSON file.  [default: the adapter's, else smollm2-135m]")
@click.option(
    "--dtype",
    type=click.Choice(["auto", "float32", "bfloat16"]),
    help="Number format of the model; auto takes what the processor multiplies natively.  [default: auto]",
)
def main(**given: Any) -> None:
    """Run retrieval, memory and decoder on this machine until ctrl-C.

    All data goes below one folder. Everything else can be set by the tiers' own environment variables, see the
    README of each: MEMORY3_DECODER_NUM_SLOTS=4 memory3 serve.

    \b
    Examples:
      memory3 serve
      memory3 serve --data-dir ./data --port-base 0 --backend local
    """
    settings = load(LaunchSettings).model_copy(
        update={name: value for name, value in given.items() if value is not None}
    )
    try:
        tier_security().check()
        sys.exit(asyncio.run(serve(settings)))
    except (LaunchError, SecurityError) as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(1)


async def serve(settings: LaunchSettings) -> int:
    """Run the tiers until a signal (0), or until one of them ends (LaunchError)."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    say(f"starting retrieval, memory and decoder; data in {settings.data_dir}")
    life = asyncio.create_task(_live(settings))
    stopped = asyncio.create_task(stop.wait())
    await asyncio.wait({life, stopped}, return_when=asyncio.FIRST_COMPLETED)
    if life.done():
        stopped.cancel()
        await life
    say("stopping; ctrl-C again to stop at once")
    loop.remove_signal_handler(signal.SIGINT)
    life.cancel()
    await asyncio.gather(life, return_exceptions=True)
    return 0


async def _live(settings: LaunchSettings) -> None:
    async with running_stack(settings, serving, say) as stack:
        say("ready. In another terminal:")
        if stack.addresses["decoder"] != "127.0.0.1:7303":
            for name, address in stack.addresses.items():
                say(f"  export MEMORY3_{name.upper()}={address}")
        say("  memory3 ingest package:wikipedia-leads --bank wikipedia --memories cold --limit 800")
        say('  memory3 generate "Who painted The Starry Night?" --bank wikipedia --mode memory')
        say("ctrl-C stops all three.")
        await stack.watch()


if __name__ == "__main__":
    main(prog_name="memory3 serve")
