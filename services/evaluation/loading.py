"""Settings and choices -> a loaded model with its identity; what cannot fit is refused before anything is loaded."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from model.adapter import PLAN_FILE, adapter_digest, adapter_plan, merge_adapter, read_adapter_config
from model.chat import ChatTemplate, Message
from model.checkpoint import load_transformer, read_config, weights_digest
from model.codec.chain import CodecChain
from model.codec.codebook import Codebook
from model.codec.resolve import codebook_origin, find_codebook, resolve_chain
from model.config import ModelConfig
from model.directory import locate_adapter, locate_model
from model.identity import MEMORY_LAYOUT_VERSION, model_fingerprint
from model.plan import MemoryPlan
from model.plan_file import read_plan
from model.token_scorer import find_token_scorer
from model.tokenizer import Tokenizer
from model.transformer import Transformer
from services.common.processor import cpu_model, native_dtype
from services.datasets.item import Item
from services.evaluation.config import EvaluationSettings
from services.evaluation.measured_model import MeasuredModel

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
_MARGIN_TOKENS = 8
"""A text beside another may have a few tokens more than both alone."""


@dataclass(frozen=True)
class Choices:
    """What the command line says of plan and codec, each over what settings or adapter say; None leaves it."""

    plan: str | None = None
    codec: Sequence[str] | None = None
    tokens_per_memory: int | None = None
    references: int | None = None


@dataclass(frozen=True)
class Checked:
    """A model, adapter and plan that fit each other; nothing is loaded yet."""

    directory: Path
    config: ModelConfig
    adapter: Path | None
    plan: MemoryPlan
    codebook: Codebook | None
    codec: CodecChain
    dtype: str
    device: str

    @property
    def machine(self) -> str:
        """What computes, for people."""
        if torch.device(self.device).type == "cuda":
            return torch.cuda.get_device_name(self.device)
        return f"{cpu_model()}, {os.cpu_count()} cores"


@dataclass(frozen=True)
class Checkpoint:
    """Loaded weights, adapter merged."""

    checked: Checked
    transformer: Transformer
    tokenizer: Tokenizer
    template: ChatTemplate | None
    weights_digest: str
    adapter_digest: str | None

    @property
    def fingerprint(self) -> str:
        """Of the memories it writes."""
        adapter = f"+{self.adapter_digest}" if self.adapter_digest else ""
        return model_fingerprint(
            self.weights_digest + adapter,
            self.tokenizer.digest,
            self.checked.plan,
            MEMORY_LAYOUT_VERSION,
            self.checked.dtype,
            self.checked.codec.describe(),
        )

    def under(self, plan: MemoryPlan) -> Checkpoint:
        """The same weights under another plan. Raises ValueError if it does not fit them."""
        plan.validate(self.checked.config)
        return replace(
            self, checked=replace(self.checked, plan=plan, codec=CodecChain.from_plan(plan, self.checked.codebook))
        )

    def measured(self, settings: EvaluationSettings, items: Sequence[Item], generated_tokens: int) -> MeasuredModel:
        """The model with room for the longest context these items can have. Raises ValueError if one is too long."""
        return MeasuredModel(
            self.transformer,
            self.tokenizer,
            self.checked.plan,
            template=self.template,
            codec=self.checked.codec,
            fingerprint=self.fingerprint,
            num_slots=settings.num_slots,
            max_context_tokens=self._longest(items, generated_tokens),
            tokens_per_step=settings.tokens_per_step,
            memory_bytes=settings.memory_bytes,
        )

    def _longest(self, items: Sequence[Item], generated_tokens: int) -> int:
        plan, count = self.checked.plan, self._count
        opening = len(self.tokenizer.encode_special(plan.context_bos)) + count(plan.separator)
        longest = 0
        for item in items:
            references = max(map(self._length_as_text, (item.references, item.wrong_references)))
            answer = max(generated_tokens, *(count(text) for text in item.choices or (item.answer,)))
            longest = max(longest, references + max(count(item.prompt), self._length_in_chat(item)) + answer)
        return opening + longest + _MARGIN_TOKENS

    def _length_in_chat(self, item: Item) -> int:
        if self.template is None or not item.question:
            return 0
        return len(self.template.render([Message("user", item.question)]).tokens)

    def _length_as_text(self, references: Sequence[str]) -> int:
        """Tokens of references in a prompt, at most; none are given: what retrieval can find."""
        longest = self.checked.plan.max_reference_tokens
        lengths = [min(self._count(text), longest) + 1 for text in references]
        return sum(lengths) if lengths else self.checked.plan.memories_per_chunk * (longest + 1)

    def _count(self, text: str) -> int:
        return len(self.tokenizer.encode(text))


def check(settings: EvaluationSettings, choices: Choices) -> Checked:
    """Raises ValueError or OSError for what shows without loading: model, adapter, plan and codec, and their fit."""
    directory = locate_model(settings.model, settings.cache_dir)
    config = read_config(directory)
    adapter = locate_adapter(settings.adapter, settings.model)
    if adapter is not None:
        read_adapter_config(adapter)
    plan = _plan(settings, choices, adapter)
    if choices.tokens_per_memory is not None:
        plan = replace(plan, tokens_per_memory=choices.tokens_per_memory)
    if choices.references is not None:
        plan = replace(plan, memories_per_chunk=choices.references)
    if choices.codec is not None:
        plan = replace(plan, codec=tuple(choices.codec))
    plan.validate(config)
    find_token_scorer(plan, config, adapter)
    weights = weights_digest(directory) + ("" if adapter is None else f"+{adapter_digest(adapter)}")
    num_prefix_tokens = len(Tokenizer.load(directory).encode_special(plan.prefix))
    origin = codebook_origin(plan, config, weights=weights, num_prefix_tokens=num_prefix_tokens)
    codebook = find_codebook(plan, settings.codebook, adapter)
    codec = resolve_chain(plan, config, origin, codebook)
    dtype = native_dtype() if settings.dtype == "auto" else settings.dtype
    device = settings.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    return Checked(directory, config, adapter, plan, codebook, codec, dtype, device)


def load(settings: EvaluationSettings, checked: Checked) -> Checkpoint:
    """Raises ValueError if weights, tokenizer or adapter cannot be read."""
    if settings.torch_threads:
        torch.set_num_threads(settings.torch_threads)
    tokenizer = Tokenizer.load(checked.directory)
    transformer = load_transformer(checked.directory, _DTYPES[checked.dtype], checked.device)
    adapter_digest = None if checked.adapter is None else merge_adapter(transformer, checked.adapter)
    transformer.token_scorer = find_token_scorer(checked.plan, transformer.config, checked.adapter)
    template = _template(checked.directory, tokenizer)
    return Checkpoint(checked, transformer, tokenizer, template, weights_digest(checked.directory), adapter_digest)


def _template(directory: Path, tokenizer: Tokenizer) -> ChatTemplate | None:
    """None for a base model, which has none."""
    try:
        return ChatTemplate.load(directory, tokenizer)
    except ValueError:
        return None


def _plan(settings: EvaluationSettings, choices: Choices, adapter: Path | None) -> MemoryPlan:
    """The one that is asked for; else the one the adapter was trained under, if it brings one; else the default."""
    if choices.plan is not None:
        return read_plan(choices.plan)
    if adapter is not None and (adapter / PLAN_FILE).is_file():
        return adapter_plan(adapter)
    return read_plan(settings.plan)
