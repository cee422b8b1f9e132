"""Chat messages to the tokens of a prompt, through the model's own template.

The template sees a placeholder for each message's text. What it writes around the placeholders is parsed for special
tokens; the messages' own text never is, so nobody can close a turn or open another by writing its markers. Knows no
engine and no memories.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import jinja2
import jinja2.ext
import jinja2.sandbox

from model.tokenizer import Tokenizer

ROLES = ("system", "user", "assistant")

# Private-use characters around a message's number, and on both sides a separator that str.strip() takes for white
# space: where a template trims a text, the separators are gone, and the text is trimmed in its place.
_GUARD = "\x1f"
_PLACEHOLDER = re.compile(f"({_GUARD}?)\ue000(\\d+)\ue001({_GUARD}?)")


@dataclass(frozen=True)
class Message:
    """One turn of a chat. Raises ValueError on a role that does not exist."""

    role: str
    """"system", "user" or "assistant"."""
    content: str
    """What was said, taken as plain text whatever it contains."""

    def __post_init__(self) -> None:
        if self.role not in ROLES:
            raise ValueError(f"message role is {self.role!r}; choose one of {', '.join(ROLES)}")


@dataclass(frozen=True)
class RenderedPrompt:
    """A prompt's tokens, and which of them are what the conversation says."""

    tokens: list[int]
    """Context tokens, without the memory plan's prefix."""
    is_content: list[bool]
    """True for tokens of user and assistant messages, False for the template's own and for system messages: an
    instruction how to answer would only blur the query for memories. In a chat of nothing else it counts."""


class ChatTemplate:
    """A model's chat template, run in a sandbox."""

    def __init__(self, source: str, tokenizer: Tokenizer) -> None:
        """`source` is Jinja. Raises ValueError if it does not parse."""
        self._tokenizer = tokenizer
        self._eos_token = tokenizer.token(tokenizer.eos_token_ids[0]) if tokenizer.eos_token_ids else ""
        environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=[jinja2.ext.loopcontrols]
        )
        environment.globals["raise_exception"] = _refuse
        try:
            self._template = environment.from_string(source)
        except jinja2.TemplateError as error:
            raise ValueError(f"chat template does not parse: {error}; check chat_template.jinja") from error

    @classmethod
    def load(cls, directory: Path | str, tokenizer: Tokenizer) -> ChatTemplate:
        """The template of a model directory, from chat_template.jinja or Hugging Face's tokenizer_config.json.

        Raises ValueError if there is none, as in a base model.
        """
        directory = Path(directory)
        if (directory / "chat_template.jinja").is_file():
            return cls((directory / "chat_template.jinja").read_text(encoding="utf-8"), tokenizer)
        config = directory / "tokenizer_config.json"
        source = json.loads(config.read_text(encoding="utf-8")).get("chat_template") if config.is_file() else None
        if not isinstance(source, str):
            raise ValueError(f"model directory {directory} has no chat template; send a prompt in place of messages")
        return cls(source, tokenizer)

    def render(self, messages: Sequence[Message]) -> RenderedPrompt:
        """The prompt that asks for the assistant's next message.

        The template's `bos_token` is empty: the memory plan's prefix opens every context, and a second sink costs
        quality. Raises ValueError on no messages, or if the template refuses them (its own words are in the message).
        """
        if not messages:
            raise ValueError("no messages to answer; give at least one")
        try:
            text = self._template.render(
                messages=[{"role": m.role, "content": _placeholder(i, m.content)} for i, m in enumerate(messages)],
                add_generation_prompt=True,
                bos_token="",
                eos_token=self._eos_token,
            )
        except Exception as error:  # a template is a foreign program: it may fail in any way Python can
            raise ValueError(f"chat template refuses these messages: {error}; check their roles and order") from error
        return self._tokenise(text, messages)

    def _tokenise(self, text: str, messages: Sequence[Message]) -> RenderedPrompt:
        tokens: list[int] = []
        is_content: list[bool] = []

        def append(piece: list[int], content: bool) -> None:
            tokens.extend(piece)
            is_content.extend([content] * len(piece))

        instructions = {"system"} if any(message.role != "system" for message in messages) else set()
        end = 0
        for match in _PLACEHOLDER.finditer(text):
            append(self._tokenizer.encode_special(text[end : match.start()]), content=False)
            message = messages[int(match[2])]
            said = message.content if match[1] else message.content.lstrip()
            said = said if match[3] else said.rstrip()
            append(self._tokenizer.encode(said), content=message.role not in instructions)
            end = match.end()
        append(self._tokenizer.encode_special(text[end:]), content=False)
        return RenderedPrompt(tokens, is_content)


def plain_prompt(text: str, tokenizer: Tokenizer) -> RenderedPrompt:
    """A prompt without a template: all of it is content."""
    tokens = tokenizer.encode(text)
    return RenderedPrompt(tokens, [True] * len(tokens))


def _placeholder(index: int, content: str) -> str:
    # Templates ask whether a message is empty; an empty one must look so.
    return f"{_GUARD}\ue000{index}\ue001{_GUARD}" if content else ""


def _refuse(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)
