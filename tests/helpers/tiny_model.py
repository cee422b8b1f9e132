"""A tiny random model on a tiny plan, in milliseconds: as a runner, or as a model directory with a real tokenizer.

Weights are random, so its text is noise; its mathematics is that of the large ones (grouped heads, several memory
layers, a prefix). The tokenizer is byte-level: one token for each byte, and the special tokens below.
"""

import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import tokenizers
import torch
from tokenizers import decoders, models, pre_tokenizers

from model.checkpoint import save_transformer, weight_views
from model.config import ModelConfig
from model.memory.explicit_memory import ExplicitMemory
from model.memory.writer import MemoryWriter
from model.plan import MemoryPlan
from model.presets import model_config
from model.runner import ModelRunner
from model.token_scorer import TokenScorer
from model.transformer import Transformer

NUM_BYTE_TOKENS = 256
SPECIAL_TOKENS = ("<s>", "</s>", "<|im_start|>", "<|im_end|>")
"""Their ids follow those of the bytes, in this order."""
BOS, EOS = NUM_BYTE_TOKENS, NUM_BYTE_TOKENS + 1
PREFIX_TOKENS = (BOS,)
"""The prefix of `tiny_plan`, encoded."""
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)


def tiny_config(**changes: Any) -> ModelConfig:
    return replace(model_config("tiny"), **changes)


def tiny_plan(**changes: Any) -> MemoryPlan:
    """Layers 1 and 3 of 4 read memories of 6 tokens; chunks, references and memories have the paper's numbers."""
    values: dict[str, Any] = {
        "name": "tiny",
        "memory_layers": (1, 3),
        "tokens_per_memory": 6,
        "selection": "attention",
        "group_combine": "sum",
        "prefix": "<s>",
        "separator": "\n\n",
    }
    return MemoryPlan(**(values | changes))


def tiny_scorer(transformer: Transformer, num_layers: int = 2, seed: int = 0) -> TokenScorer:
    """Random, and strong enough to choose other tokens than their reconstruction scores do."""
    config = transformer.config
    shape = (num_layers, config.num_kv_heads, config.fused_heads * config.head_dim)
    return TokenScorer(torch.randn(shape, generator=torch.Generator().manual_seed(seed)))


@torch.no_grad()
def tiny_transformer(seed: int = 0, dtype: torch.dtype = torch.float32, **config_changes: Any) -> Transformer:
    """Random weights, large enough that attention is far from uniform and logits differ clearly."""
    generator = torch.Generator().manual_seed(seed)
    transformer = Transformer(tiny_config(**config_changes), dtype)
    for name, view in weight_views(transformer).items():
        noise = torch.randn(view.shape, generator=generator)
        view.copy_(
            1 + 0.1 * noise if "norm" in name else noise * (0.25 if "embed" in name else 2 / view.shape[1] ** 0.5)
        )
    return transformer


def tiny_runner(
    seed: int = 0,
    num_slots: int = 4,
    plan: MemoryPlan | None = None,
    *,
    max_context_tokens: int = 512,
    prefix_tokens: tuple[int, ...] = PREFIX_TOKENS,
    dtype: torch.dtype = torch.float32,
    **config_changes: Any,
) -> ModelRunner:
    transformer = tiny_transformer(seed, dtype, **config_changes)
    return ModelRunner(
        transformer,
        plan or tiny_plan(),
        prefix_tokens=prefix_tokens,
        num_slots=num_slots,
        max_context_tokens=max_context_tokens,
    )


def tiny_writer(runner: ModelRunner) -> MemoryWriter:
    return MemoryWriter(runner.transformer, runner.plan, runner.prefix)


def random_tokens(count: int, seed: int = 0) -> list[int]:
    """Byte tokens, no special ones."""
    return random.Random(seed).choices(range(NUM_BYTE_TOKENS), k=count)


def random_memories(
    runner: ModelRunner, count: int, seed: int = 0, num_tokens: int | None = None
) -> list[ExplicitMemory]:
    """Memories of random references of different lengths (or of `num_tokens`), written by the runner's own model."""
    lengths = random.Random(seed).choices(range(8, 40), k=count)
    references = [random_tokens(num_tokens or length, seed * 1000 + i) for i, length in enumerate(lengths)]
    return tiny_writer(runner).write(references, [f"{seed:016x}{i:016x}" for i in range(count)])


def tiny_model_directory(path: Path, seed: int = 0, **config_changes: Any) -> Path:
    """Write config.json, model.safetensors, tokenizer.json, special_tokens.json and chat_template.jinja into `path`."""
    path.mkdir(parents=True, exist_ok=True)
    save_transformer(tiny_transformer(seed, **config_changes), path)
    (path / "tokenizer.json").write_text(_byte_tokenizer().to_str(), encoding="utf-8")
    special = {"bos": BOS, "eos": [EOS, NUM_BYTE_TOKENS + SPECIAL_TOKENS.index("<|im_end|>")]}
    (path / "special_tokens.json").write_text(json.dumps(special), encoding="utf-8")
    (path / "chat_template.jinja").write_text(CHAT_TEMPLATE, encoding="utf-8")
    return path


def _byte_tokenizer() -> tokenizers.Tokenizer:
    vocabulary = {character: index for index, character in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    tokenizer = tokenizers.Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(list(SPECIAL_TOKENS))
    return tokenizer
