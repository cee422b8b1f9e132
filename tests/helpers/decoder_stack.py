"""Three tiers as real processes with the tiny model, for tests of the decoder: retrieval, memory, decoder."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from memory3.decoder import DecoderClient
from memory3.retrieval import RetrievalClient
from memory3.types import Reference, ReferenceText
from model.identity import reference_id
from tests.helpers.processes import ServiceProcess
from tests.helpers.tiny_model import BOS, tiny_model_directory, tiny_plan

BANK = "facts"
TEXTS = tuple(
    f"The town of {name} lies {number} miles from the sea and is known for its {thing}."
    for number, (name, thing) in enumerate(
        [
            ("Aldmoor", "clocks"),
            ("Brackwater", "eels"),
            ("Corvenna", "blue glass"),
            ("Dunholt", "goats"),
            ("Eastermere", "organ"),
            ("Fallowby", "apples"),
            ("Greywick", "ropes"),
            ("Hollins", "salt"),
        ],
        start=3,
    )
)
"""References of at most 128 byte tokens."""


@dataclass(frozen=True)
class DecoderStack:
    """The started tiers."""

    folder: Path
    retrieval: ServiceProcess
    memory: ServiceProcess
    decoder: ServiceProcess
    decoder_env: Mapping[str, str]
    """What the decoder was started with."""


@contextlib.contextmanager
def decoder_stack(
    folder: Path,
    backend: str,
    *,
    env: Mapping[str, str] | None = None,
    decoder_env: Mapping[str, str] | None = None,
    retrieval_env: Mapping[str, str] | None = None,
    memory_env: Mapping[str, str] | None = None,
    num_layers: int = 4,
) -> Iterator[DecoderStack]:
    """Start all three, empty; stopped and cleaned up at the end. More layers make a slower model."""
    model = tiny_model_directory(folder / "tiny-model", num_layers=num_layers)
    # A random model ends its turn at random; this one goes on until it is told to stop.
    (model / "special_tokens.json").write_text(json.dumps({"bos": BOS, "eos": []}))
    plan = folder / "plan.json"
    plan.write_text(tiny_plan().to_json())
    common = {"OMP_NUM_THREADS": "1", **(env or {})}
    index = {"MEMORY3_RETRIEVAL_INDEX": "local", "MEMORY3_RETRIEVAL_EMBEDDER": "hash"}
    retrieval = ServiceProcess(
        "services.retrieval",
        {**common, "MEMORY3_RETRIEVAL_PORT": "0", **index, **(retrieval_env or {})},
        folder / "retrieval.log",
    )
    memory = ServiceProcess(
        "services.memory",
        {
            **common,
            "MEMORY3_MEMORY_PORT": "0",
            "MEMORY3_MEMORY_STORE_URI": str(folder / "records"),
            **(memory_env or {}),
        },
        folder / "memory.log",
    )
    with contextlib.ExitStack() as stack:
        for process in (retrieval, memory):
            stack.callback(process.stop)
            process.start()
        started_with = {
            **common,
            "MEMORY3_DECODER_PORT": "0",
            "MEMORY3_DECODER_BACKEND": backend,
            "MEMORY3_DECODER_MODEL": str(model),
            "MEMORY3_DECODER_PLAN": str(plan),
            "MEMORY3_DECODER_TORCH_THREADS": "1",
            "MEMORY3_DECODER_DRAIN_SECONDS": "1",
            "MEMORY3_DECODER_RETRIEVAL_ADDRESS": retrieval.address,
            "MEMORY3_DECODER_MEMORY_ADDRESS": memory.address,
            **(decoder_env or {}),
        }
        decoder = ServiceProcess("services.decoder", started_with, folder / "decoder.log")
        stack.callback(decoder.stop)
        decoder.start()
        yield DecoderStack(folder, retrieval, memory, decoder, started_with)


async def index(stack: DecoderStack, texts: tuple[str, ...] = TEXTS, bank: str = BANK) -> list[Reference]:
    """Index the texts as one document each; their memories are not written."""
    found = []
    async with RetrievalClient(stack.retrieval.address) as client:
        for text in texts:
            reference = Reference(reference_id(text), text, f"doc-{reference_id(text)[:8]}", "A title", num_tokens=9)
            await client.upsert(bank, reference.document_id, "1", [reference])
            found.append(reference)
    return found


async def write(stack: DecoderStack, texts: tuple[str, ...] = TEXTS, bank: str = BANK) -> None:
    """Write the memories of the texts."""
    async with DecoderClient(stack.decoder.address) as client:
        result = await client.write(bank, [ReferenceText(reference_id(text), text) for text in texts])
        assert [item.error for item in result.items if item.error] == []
