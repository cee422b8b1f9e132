"""A request -> the context tokens the engine runs. Knows no engine, no recall and no slots."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from memory3.errors import ContextTooLongError, MalformedRequestError
from memory3.types import GenerationRequest, Mode
from model import chat
from model.chat import ChatTemplate, RenderedPrompt
from model.context import ContextOpening, references_as_text
from model.plan import MemoryPlan
from model.tokenizer import Tokenizer

DEFAULT_MAX_TOKENS = 128
"""Tokens to generate where the request does not say."""


@dataclass(frozen=True)
class Prompt:
    """What the engine is given."""

    tokens: tuple[int, ...]
    is_content: tuple[bool, ...]
    max_tokens: int
    num_reference_tokens: int
    """Tokens that references added as text (mode rag)."""


class PromptBuilder:
    """Prompts of one model. Thread-safe."""

    def __init__(
        self, tokenizer: Tokenizer, template: ChatTemplate | None, plan: MemoryPlan, max_context_tokens: int
    ) -> None:
        """`template` None: the model knows no chat, messages are refused."""
        self._tokenizer = tokenizer
        self._template = template
        self._max_context_tokens = max_context_tokens
        self._opening = ContextOpening(tokenizer, plan)

    def build(self, request: GenerationRequest, references: Sequence[str] = ()) -> Prompt:
        """Tokens of a checked request; `references` are texts to put before the prompt (mode rag).

        Raises ContextTooLongError, or MalformedRequestError if the model's template refuses the messages or the prompt
        has no tokens.
        """
        rendered = self._render(_with_references(request, references))
        if not rendered.tokens:
            raise MalformedRequestError("the prompt has no tokens in this model's vocabulary; give some text")
        num_reference_tokens = len(rendered.tokens) - len(self._render(request).tokens) if references else 0
        opening = self._opening.tokens(reads_memories=request.mode is Mode.MEMORY)
        tokens = (*opening, *rendered.tokens)
        is_content = (*[False] * len(opening), *rendered.is_content)
        max_tokens = self._fit(len(tokens), request.max_tokens, num_reference_tokens)
        return Prompt(tokens, is_content, max_tokens, num_reference_tokens)

    def _render(self, request: GenerationRequest) -> RenderedPrompt:
        if request.prompt is not None:
            return chat.plain_prompt(request.prompt, self._tokenizer)
        if self._template is None:
            raise MalformedRequestError("this model has no chat template; send a prompt in place of messages")
        try:
            return self._template.render([chat.Message(m.role, m.content) for m in request.messages])
        except ValueError as error:
            raise MalformedRequestError(str(error)) from error

    def _fit(self, num_tokens: int, max_tokens: int, num_reference_tokens: int) -> int:
        """Tokens to generate: as asked, or by default what fits."""
        room = self._max_context_tokens - num_tokens
        wanted = max_tokens or min(DEFAULT_MAX_TOKENS, max(room, 1))
        if wanted > room:
            of_references = f" ({num_reference_tokens} of them references)" if num_reference_tokens else ""
            raise ContextTooLongError(
                f"the prompt has {num_tokens} tokens{of_references} and {wanted} more are to be generated; the context "
                f"holds {self._max_context_tokens}: shorten the prompt or lower max_tokens"
            )
        return wanted


def content_text(request: GenerationRequest) -> str:
    """What the request says, as one query for references: the prompt, or the messages that are no instruction."""
    if request.prompt is not None:
        return request.prompt
    said = [message.content for message in request.messages if message.role != "system"]
    return "\n".join(said or [message.content for message in request.messages])


def _with_references(request: GenerationRequest, references: Sequence[str]) -> GenerationRequest:
    """The references, one a line, before the prompt, or before what the last message says."""
    if not references:
        return request
    text = references_as_text(references)
    if request.prompt is not None:
        return replace(request, prompt=text + request.prompt)
    *before, last = request.messages
    return replace(request, messages=[*before, replace(last, content=text + last.content)])
