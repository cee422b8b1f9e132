"""`memory3 generate`: one generation, streamed, with the references it read and the time of each stage."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass, field
from typing import Any

import click

from memory3 import semconv, telemetry
from memory3.cli.config import TRACE_ID, addresses, trace_url
from memory3.cli.generation_view import ReferenceTable, counts, times
from memory3.cli.output import json_option, jsonable, plain, print_json, print_text, show
from memory3.cli.session import run
from memory3.cli.waterfall import Waterfall
from memory3.client import Client
from memory3.types import (
    FinalEvent,
    GenerationEvent,
    GenerationRequest,
    Message,
    Mode,
    RecallEvent,
    Sampling,
    TokenEvent,
)


@click.command(short_help="Answer a prompt while reading explicit memories.")
@click.argument("prompt")
@click.option("--bank", default="", help="The bank whose references are recalled.")
@click.option(
    "--mode",
    type=click.Choice([mode.name.lower() for mode in reversed(Mode)]),
    default="memory",
    show_default=True,
    help="memory: references as explicit memories; rag: as text in the prompt; none: the model alone.",
)
@click.option("--chat/--raw", default=True, show_default=True, help="Ask as a person would, or continue the raw text.")
@click.option("--system", help="Instructions to the model; with --chat only.")
@click.option("--max-tokens", type=click.IntRange(min=1), default=128, show_default=True, help="Tokens at most.")
@click.option("--temperature", type=click.FloatRange(0, 10), default=0.0, show_default=True, help="0 is greedy.")
@click.option("--top-k", type=click.IntRange(min=0), default=0, help="Draw from the k most likely tokens.")
@click.option("--top-p", type=click.FloatRange(0, 1), default=0.0, help="Draw from the likeliest tokens of this mass.")
@click.option("--seed", type=click.IntRange(0, 2**64 - 1), help="The same seed gives the same answer.")
@click.option("--stop", multiple=True, help="Text that ends the answer; may be given again.")
@click.option("--recall-deadline-ms", type=click.IntRange(min=0), help="How long one recall may hold the answer up.")
@click.option("--document", "document_ids", multiple=True, help="Recall from this document only; may be given again.")
@click.option("--attention", is_flag=True, help="Report the share of attention that each memory got.")
@click.option("--trace", is_flag=True, help="Print the request's waterfall and a link to its trace.")
@trace_url
@addresses("decoder")
@json_option
def generate(prompt: str, as_json: bool, trace: bool, trace_url: str | None, decoder: str, **options: Any) -> None:
    """Generate an answer to PROMPT while reading explicit memories of a bank.

    Prints tokens as they come, then the references that were read, counts, and the time of each stage. With --json one
    JSON object a line: token, recall and final events.

    \b
    Examples:
      memory3 generate "Where is Mount Etna?" --bank handbook
      memory3 generate "Where is Mount Etna?" --bank handbook --mode rag --trace
      memory3 generate "Once upon a time" --raw --mode none --temperature 0.8 --seed 7
    """
    request = _request(prompt, trace, **options)

    async def verb(client: Client) -> None:
        shown = _Shown(as_json, trace_url if trace else None)
        async with contextlib.aclosing(client.decoder.generate(request)) as events:
            async for event in events:
                shown.take(event)
        shown.end(trace)

    attributes = {
        semconv.ATTR_MODE: request.mode.name.lower(),
        semconv.ATTR_BANK: request.bank,
        semconv.ATTR_GENAI_OPERATION: "chat" if request.messages else "text_completion",
    }
    run(verb, {"decoder": decoder}, as_json=as_json, span=semconv.SPAN_GENERATE, attributes=attributes)


def _request(prompt: str, trace: bool, **options: Any) -> GenerationRequest:
    """The request that the options say; raises UsageError where they contradict each other."""
    mode = Mode[options["mode"].upper()]
    if mode is not Mode.NONE and not options["bank"]:
        raise click.UsageError(
            f"--mode {options['mode']} needs --bank NAME (memory3 banks lists them); --mode none needs no bank"
        )
    if options["system"] and not options["chat"]:
        raise click.UsageError("--system goes with --chat; put the instructions into the raw text instead")
    system = [Message("system", options["system"])] if options["system"] else []
    return GenerationRequest(
        mode=mode,
        prompt=None if options["chat"] else prompt,
        messages=[*system, Message("user", prompt)] if options["chat"] else [],
        bank=options["bank"],
        sampling=Sampling(options["temperature"], options["top_k"], options["top_p"], options["seed"]),
        max_tokens=options["max_tokens"],
        stop=options["stop"],
        recall_deadline_ms=options["recall_deadline_ms"],
        document_ids=options["document_ids"],
        report_attention=options["attention"],
        report_timeline=trace,
    )


@dataclass
class _Shown:
    """What has been printed so far, and what is printed at the end."""

    as_json: bool
    trace_url: str | None
    """Template of a link to the trace, if one is wanted."""
    started_ns: int = field(default_factory=time.perf_counter_ns)
    client_ttft_ns: int = 0
    recalls: list[RecallEvent] = field(default_factory=list)
    final: FinalEvent | None = None

    def take(self, event: GenerationEvent) -> None:
        """Print a token event; keep the others for the end."""
        if isinstance(event, TokenEvent) and event.token_ids and not self.client_ttft_ns:
            self.client_ttft_ns = time.perf_counter_ns() - self.started_ns
        match event:
            case TokenEvent():
                self._line("token", event) if self.as_json else print_text(event.text)
            case RecallEvent():
                self.recalls.append(event)
                if self.as_json:
                    self._line("recall", event)
            case FinalEvent():
                self.final = event
                if self.as_json:
                    link = {"trace_url": self._link(event)} if self._link(event) else {}
                    self._line("final", event, client_ttft_ns=self.client_ttft_ns, **link)

    def end(self, trace: bool) -> None:
        """Print references, counts and times below the text."""
        if self.as_json or self.final is None:
            return
        show("\n")
        if any(recall.memories for recall in self.recalls):
            show(ReferenceTable(self.recalls, self.final.spans), "")
        show(*(plain(line) for line in counts(self.final)), times(self.final, self.client_ttft_ns))
        if trace:
            trace_id = _trace_id(self.final)
            show("", Waterfall(self.final.timeline))
            show(f"trace {trace_id}" if trace_id else "no trace id: set OTEL_EXPORTER_OTLP_ENDPOINT to export traces")
            if telemetry.left_out():
                show("the sampler left it out (OTEL_TRACES_SAMPLER): it is not exported")
            if link := self._link(self.final):
                print_text(f"{link}\n")  # whole, however narrow the terminal is: it is there to be clicked

    def _link(self, final: FinalEvent) -> str:
        """Where the trace can be seen; empty if there is none, or no place for it."""
        trace_id = _trace_id(final)
        if not self.trace_url or not trace_id or telemetry.left_out():
            return ""
        return self.trace_url.replace(TRACE_ID, trace_id)

    def _line(self, name: str, event: GenerationEvent, **more: int | str) -> None:
        print_json({"event": name, **jsonable(event), **more})


def _trace_id(final: FinalEvent) -> str:
    """The trace's id as the server said it, or as this process knows it; empty if nobody traces."""
    return final.trace_id or telemetry.current_trace_id()
