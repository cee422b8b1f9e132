"""Composition root of an ingest run: `memory3 ingest`, or `python -m services.ingest`."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import re
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import click

from memory3 import semconv, telemetry
from memory3.decoder import DecoderClient
from memory3.errors import Memory3Error
from memory3.memory_pool import open_memory
from memory3.retrieval import RetrievalClient
from memory3.security import ChannelSecurity, SecurityError
from memory3.types import DecoderInfo
from services.common.config import load as load_settings
from services.ingest import documents, report, tokenizer
from services.ingest.batching import BatchWriter
from services.ingest.chunk import Cutter
from services.ingest.config import IngestSettings, tier_security
from services.ingest.core import Bounds, Pipeline, Warm
from services.ingest.estimate import estimate
from services.ingest.progress import INDEXED, Progress, ProgressError, written
from services.ingest.retry import RunStoppedError, Tier

T = TypeVar("T")

MAX_REFERENCE_TOKENS = 128
"""Where no decoder can be asked for its plan."""
MIN_TIMED_REFERENCES = 50
"""A shorter run says little about speed."""
_BANK = re.compile(r"[a-z][a-z0-9_-]{0,62}")


@dataclass(frozen=True)
class Options:
    """What the command line said, and the settings."""

    settings: IngestSettings
    security: ChannelSecurity
    selection: documents.Selection
    bank: str
    memories: str
    as_json: bool


def _bank_name(_: click.Context, __: click.Parameter, value: str) -> str:
    if not _BANK.fullmatch(value):
        raise click.BadParameter(
            f"{value!r}: a bank's name has 1 to 63 characters of a-z, 0-9, '-' and '_' and starts with a letter"
        )
    return value


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("paths", nargs=-1, required=True, metavar="PATH...")
@click.option("--bank", required=True, callback=_bank_name, help="The bank that takes the references; made if new.")
@click.option(
    "--memories",
    type=click.Choice(["warm", "cold"]),
    default="warm",
    show_default=True,
    help="warm: write every memory now. cold: only index; a memory is written when it is first recalled.",
)
@click.option("--glob", help="Which files of folders to take, for example '*.txt'; otherwise by their endings.")
@click.option("--id-prefix", default="", help="Put before every document id, for example 'handbook/'.")
@click.option("--limit", type=click.IntRange(min=1), help="Stop after this many documents.")
@click.option("--dry-run", is_flag=True, help="Say references, bytes and time to expect; send nothing.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout at the end, nothing else.")
@click.option("--retrieval", help="host:port of the retrieval tier [env MEMORY3_RETRIEVAL].")
@click.option("--memory", help="host:port of the memory tier [env MEMORY3_MEMORY].")
@click.option("--decoder", help="host:port of the decoder [env MEMORY3_DECODER].")
@click.option("--token-file", help="File with the token for the tiers [env MEMORY3_TOKEN_FILE; MEMORY3_TOKEN itself].")
def main(
    *,
    paths: tuple[str, ...],
    bank: str,
    memories: str,
    glob: str | None,
    id_prefix: str,
    limit: int | None,
    dry_run: bool,
    as_json: bool,
    retrieval: str | None,
    memory: str | None,
    decoder: str | None,
    token_file: str | None,
) -> None:
    """Turn documents into references, write their memories and index them.

    PATH is a text, Markdown, HTML or JSONL file ({"id", "title", "text", "source"} a line), a folder of them, or a
    corpus: package:wikipedia-leads. Killed and started again, it goes on where it was.

    \b
    Examples:
      memory3 ingest docs/ notes.md --bank handbook
      memory3 ingest package:wikipedia-leads --bank wikipedia --memories cold --limit 800
      memory3 ingest big.jsonl --bank news --dry-run
    """
    settings = load_settings(IngestSettings)
    given = {"retrieval": retrieval, "memory": memory, "decoder": decoder}
    settings = settings.model_copy(update={name: value for name, value in given.items() if value is not None})
    selection = documents.Selection(paths, glob, id_prefix, limit, settings.max_document_bytes)
    try:
        security = tier_security(token_file)
        security.check()
        for target in (settings.retrieval, settings.memory, settings.decoder):
            security.check_target(target)
    except SecurityError as error:
        raise click.ClickException(str(error)) from error
    options = Options(settings, security, selection, bank, memories, as_json)
    screen = report.Report(as_json=as_json, limit=limit)
    stop_telemetry = telemetry.start(semconv.SERVICE_INGEST)
    try:
        counter = tokenizer.load(settings.tokenizer, settings.data_dir)
        progress = Progress(settings.data_dir / "progress.sqlite")
        run = _dry_run if dry_run else _ingest
        code = asyncio.run(run(options, counter, progress, screen))
    except (tokenizer.TokenizerError, ProgressError, RunStoppedError) as error:
        if as_json:
            report.print_json({"error": str(error)})
        click.echo(f"error: {error}", err=True)
        code = 1
    except KeyboardInterrupt:
        code = 130
    finally:
        stop_telemetry()
    sys.exit(code)


async def _ingest(
    options: Options, counter: tokenizer.ModelTokenizer, progress: Progress, screen: report.Report
) -> int:
    settings = options.settings
    async with (
        RetrievalClient(settings.retrieval, security=options.security) as index,
        open_memory(settings.memory, security=options.security) as store,
        DecoderClient(settings.decoder, security=options.security) as writer,
    ):
        await _reach("retrieval", settings.retrieval, settings.connect_seconds, partial(index.list_banks, timeout=5.0))
        warm: Warm | None = None
        info: DecoderInfo | None
        if options.memories == "warm":
            ask = partial(writer.info, timeout=5.0)
            info = await _reach("decoder", settings.decoder, settings.connect_seconds, ask)
            batch_writer = BatchWriter(
                options.bank,
                writer,
                Tier("decoder", settings.decoder, settings.patience_seconds, on_wait=screen.say),
                batch_references=settings.write_batch_references,
                parallelism=settings.write_parallelism,
                timeout_s=settings.call_timeout_seconds,
            )
            warm = Warm(batch_writer, info.model_fingerprint)
        else:
            info = await _ask(writer)
        pipeline = Pipeline(
            options.bank,
            _cutter(counter, info),
            progress,
            index=(index, Tier("retrieval", settings.retrieval, settings.patience_seconds, on_wait=screen.say)),
            memories=(store, Tier("memory", settings.memory, settings.patience_seconds, on_wait=screen.say)),
            warm=warm,
            bounds=Bounds(
                settings.max_references_in_flight,
                settings.max_documents_in_flight,
                settings.index_parallelism,
                settings.max_failures_in_a_row,
                settings.call_timeout_seconds,
            ),
            on_input=screen.note,
        )
        summary = pipeline.summary
        screen.start(await asyncio.to_thread(documents.total_bytes, options.selection))
        try:
            await pipeline.run(documents.read(options.selection))
        except asyncio.CancelledError:
            summary.stopped = "interrupted; run the same command again to go on"
            raise
        finally:
            screen.stop()
            report.print_summary(options.bank, options.memories, summary, as_json=options.as_json)
    timed = summary.references - summary.references_unchanged
    if timed >= MIN_TIMED_REFERENCES:
        progress.set_rate(options.memories, summary.seconds / timed)
    return 1 if summary.failures or summary.stopped else 0


async def _dry_run(
    options: Options, counter: tokenizer.ModelTokenizer, progress: Progress, screen: report.Report
) -> int:
    async with DecoderClient(options.settings.decoder, retry=False, security=options.security) as writer:
        info = await _ask(writer)
    stages = {INDEXED}
    if options.memories == "warm" and info is not None:
        stages.add(written(info.model_fingerprint))
    result = await asyncio.to_thread(
        partial(
            estimate,
            documents.read(options.selection),
            _cutter(counter, info),
            progress,
            bank=options.bank,
            stages=stages,
            kind=options.memories,
            memory_bytes=info.memory_bytes if info is not None else None,
            on_bad=screen.note_failure,
        )
    )
    if options.as_json:
        report.print_json({"bank": options.bank, "memories": options.memories, **dataclasses.asdict(result)})
    else:
        report.print_estimate(options.bank, options.memories, result)
    return 1 if result.failures else 0


def _cutter(counter: tokenizer.ModelTokenizer, info: DecoderInfo | None) -> Cutter:
    longest = MAX_REFERENCE_TOKENS
    if info is not None and info.memory_plan_json:
        longest = int(json.loads(info.memory_plan_json)["max_reference_tokens"])
    return Cutter(counter, counter.digest, longest)


async def _ask(decoder: DecoderClient) -> DecoderInfo | None:
    """The decoder's description if it is there; a cold run and a dry run do without."""
    try:
        return await decoder.info(timeout=5.0)
    except Memory3Error:
        return None


async def _reach(name: str, target: str, patience_s: float, call: Callable[[], Awaitable[T]]) -> T:
    """The first answer of a tier. Raises RunStoppedError with the remedy if there is none."""
    try:
        return await Tier(name, target, patience_s).call(call)
    except RunStoppedError as error:
        raise RunStoppedError(
            f"{name} at {target} does not answer. Start the services with `memory3 serve`, "
            f"or say where they are: MEMORY3_{name.upper()}=host:port. ({error.__cause__})"
        ) from error


if __name__ == "__main__":
    main(prog_name="memory3 ingest")
