"""Prompts and answers as attributes of spans, in the shape of OpenTelemetry's GenAI conventions.

Whether they may be recorded at all is telemetry.records_content's to say; without it nothing here is called.
"""

from __future__ import annotations

import json

from memory3.types import FinishReason, GenerationRequest


def input_messages(request: GenerationRequest) -> str:
    """What was asked, as JSON; raw text counts as a user's message."""
    asked = [(message.role, message.content) for message in request.messages] or [("user", request.prompt or "")]
    return json.dumps([{"role": role, "parts": [_part(text)]} for role, text in asked], ensure_ascii=False)


def output_messages(text: str, reason: FinishReason) -> str:
    """What was answered, as JSON."""
    answer = {"role": "assistant", "parts": [_part(text)], "finish_reason": reason.name.lower()}
    return json.dumps([answer], ensure_ascii=False)


def _part(text: str) -> dict[str, str]:
    return {"type": "text", "content": text}
