"""What a request may say: every field with its limit (decoder.proto). Knows no model."""

from __future__ import annotations

import math
from collections.abc import Sequence

from memory3.errors import MalformedRequestError
from memory3.types import GenerationRequest, Mode, ReferenceText

MAX_STOPS = 8
MAX_STOP_CHARACTERS = 64
MAX_TEMPERATURE = 10.0
MAX_DOCUMENT_IDS = 100
MAX_RECALL_DEADLINE_MS = 60_000
MAX_WRITE_REFERENCES = 64


def check_generation(request: GenerationRequest, plan_memories_per_chunk: int) -> None:
    """Raises MalformedRequestError naming the first field that cannot be served, its limit and the remedy."""
    _check_input(request)
    if request.mode is not Mode.NONE and not request.bank:
        _refuse(f"mode {request.mode.name} reads references and no bank is named; name one, or take mode NONE")
    drawn = request.sampling
    if not (math.isfinite(drawn.temperature) and 0 <= drawn.temperature <= MAX_TEMPERATURE):
        _refuse(f"temperature is {drawn.temperature:g}; give 0 (greedy) to {MAX_TEMPERATURE:g}")
    if not 0 <= drawn.top_p <= 1:
        _refuse(f"top_p is {drawn.top_p:g}; give 0 to 1")
    if len(request.stop) > MAX_STOPS:
        _refuse(f"{len(request.stop)} stop sequences; at most {MAX_STOPS}: leave some out")
    for stop in request.stop:
        if not 1 <= len(stop) <= MAX_STOP_CHARACTERS:
            _refuse(f"a stop sequence has {len(stop)} characters; give 1 to {MAX_STOP_CHARACTERS}")
    if len(request.document_ids) > MAX_DOCUMENT_IDS:
        _refuse(f"{len(request.document_ids)} document ids; at most {MAX_DOCUMENT_IDS}: leave some out, or give none")
    if (request.recall_deadline_ms or 0) > MAX_RECALL_DEADLINE_MS:
        _refuse(f"recall_deadline_ms is {request.recall_deadline_ms}; at most {MAX_RECALL_DEADLINE_MS}: lower it")
    if request.memories_per_chunk > plan_memories_per_chunk:
        _refuse(
            f"memories_per_chunk is {request.memories_per_chunk}; this model's plan reads {plan_memories_per_chunk}: "
            "give at most that, or 0 for all"
        )


def check_write(bank: str, references: Sequence[ReferenceText]) -> None:
    """Raises MalformedRequestError, as `check_generation`."""
    if not bank:
        _refuse("no bank is named; name the bank whose store takes the memories")
    if not 1 <= len(references) <= MAX_WRITE_REFERENCES:
        _refuse(f"{len(references)} references in one write; give 1 to {MAX_WRITE_REFERENCES}")


def _check_input(request: GenerationRequest) -> None:
    if request.prompt is not None and request.messages:
        _refuse("both a prompt and messages are given; give one of them")
    if not request.prompt and not request.messages:
        _refuse("neither prompt nor messages are given, or they are empty; give some text")
    if request.messages and not any(message.content.strip() for message in request.messages):
        _refuse("all messages are empty; give some text")


def _refuse(text: str) -> None:
    raise MalformedRequestError(text)
