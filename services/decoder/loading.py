"""Settings -> a loaded model. Blocking and slow; run it in a thread. Knows no engine and no tiers."""

from __future__ import annotations

import logging
import time
from pathlib import Path

import torch

from memory3.types import DecoderInfo
from model.adapter import PLAN_FILE, adapter_digest, adapter_plan, merge_adapter, read_adapter_config
from model.chat import ChatTemplate
from model.checkpoint import load_transformer, read_config, weights_digest
from model.codec.chain import CodecChain
from model.codec.resolve import codebook_origin, find_codebook, resolve_chain
from model.config import ModelConfig
from model.directory import locate_adapter, locate_model
from model.expansion.expander import Expander
from model.identity import MEMORY_LAYOUT_VERSION, model_fingerprint
from model.memory.writer import MemoryWriter
from model.plan import MemoryPlan
from model.plan_file import read_plan
from model.runner import ModelRunner
from model.token_scorer import find_token_scorer
from model.tokenizer import Tokenizer
from services.decoder.config import DecoderSettings
from services.decoder.model_bundle import ModelBundle

log = logging.getLogger(__name__)

DEFAULT_PLAN = "smollm2-135m"
_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def load_model(settings: DecoderSettings) -> ModelBundle:
    """Raises ValueError (a model directory, a plan or a cache folder that cannot be used, no weights package)."""
    began = time.monotonic()
    if settings.torch_threads:
        torch.set_num_threads(settings.torch_threads)
    directory = model_directory(settings)
    plan = plan_of(settings)
    tokenizer = Tokenizer.load(directory)
    weights, codec = _identity(settings, directory, plan, tokenizer)
    dtype = _DTYPES[settings.dtype]
    transformer = load_transformer(directory, dtype, _device(settings.device))
    # Before anything is encoded: what is computed with the base's weights is not the adapted model's.
    folder = _adapter(settings)
    if folder is not None:
        merge_adapter(transformer, folder)
    transformer.token_scorer = find_token_scorer(plan, transformer.config, folder)
    runner = ModelRunner(
        transformer,
        plan,
        prefix_tokens=tokenizer.encode_special(plan.prefix),
        num_slots=settings.num_slots,
        max_context_tokens=settings.max_context_tokens or None,
    )
    fingerprint = model_fingerprint(
        weights, tokenizer.digest, plan, MEMORY_LAYOUT_VERSION, settings.dtype, codec.describe()
    )
    log.info("model %s loaded in %.1f s, fingerprint %s", directory, time.monotonic() - began, fingerprint)
    return ModelBundle(
        runner=runner,
        writer=MemoryWriter(transformer, plan, runner.prefix, settings.write_batch_size),
        tokenizer=tokenizer,
        template=_template(directory, tokenizer),
        plan=plan,
        codec=codec,
        fingerprint=fingerprint,
        expander=Expander(codec, transformer.device, dtype),
        info=_info(runner, codec, fingerprint, settings.dtype, directory),
    )


def check_model(settings: DecoderSettings) -> None:
    """Raises as `load_model` for what shows without loading; converts the weights package where needed."""
    directory = model_directory(settings)
    adapter = _adapter(settings)
    if adapter is not None:
        read_adapter_config(adapter)
    plan = plan_of(settings)
    config = read_config(directory)
    plan.validate(config)
    find_token_scorer(plan, config, adapter)
    tokenizer = Tokenizer.load(directory)
    if find_codebook(plan, settings.codebook, adapter) is not None:
        _identity(settings, directory, plan, tokenizer)


def plan_of(settings: DecoderSettings) -> MemoryPlan:
    """The plan that is asked for; else the one the adapter was trained under; else the default. Raises ValueError."""
    if settings.plan:
        return read_plan(settings.plan)
    adapter = _adapter(settings)
    if adapter is not None and (adapter / PLAN_FILE).is_file():
        return adapter_plan(adapter)
    return read_plan(DEFAULT_PLAN)


def _identity(
    settings: DecoderSettings, directory: Path, plan: MemoryPlan, tokenizer: Tokenizer
) -> tuple[str, CodecChain]:
    """Digest of the weights, adapter included, and the codec chain. Raises ValueError if its codebook is another's."""
    adapter = _adapter(settings)
    weights = weights_digest(directory) + ("" if adapter is None else f"+{adapter_digest(adapter)}")
    config = read_config(directory)
    num_prefix_tokens = len(tokenizer.encode_special(plan.prefix))
    origin = codebook_origin(plan, config, weights=weights, num_prefix_tokens=num_prefix_tokens)
    return weights, resolve_chain(plan, config, origin, find_codebook(plan, settings.codebook, adapter))


def _adapter(settings: DecoderSettings) -> Path | None:
    return locate_adapter(settings.adapter, settings.model)


def model_directory(settings: DecoderSettings) -> Path:
    """The directory to load; the weights package is converted into the cache once."""
    try:
        return locate_model(settings.model, settings.cache_dir, _log_progress)
    except OSError as error:
        raise ValueError(
            f"the model cannot be converted into {settings.cache_dir.expanduser()}: {error}; make room, make it "
            "writable, or set MEMORY3_DECODER_CACHE_DIR to another folder"
        ) from error


def _log_progress(done: int, total: int) -> None:
    if done == total or done % max(1, total // 10) == 0:
        log.info("converting the model: %d of %d tensors", done, total)


def _device(name: str) -> str:
    if name != "auto":
        return name
    return "cuda" if torch.cuda.is_available() else "cpu"


def _template(directory: Path, tokenizer: Tokenizer) -> ChatTemplate | None:
    try:
        return ChatTemplate.load(directory, tokenizer)
    except ValueError as error:
        log.info("%s", error)
        return None


def _info(runner: ModelRunner, codec: CodecChain, fingerprint: str, dtype: str, directory: Path) -> DecoderInfo:
    config, plan = runner.config, runner.plan
    shape = plan.memory_shape(config)
    name = config.name or directory.name
    return DecoderInfo(
        model=name,
        model_fingerprint=fingerprint,
        tokenizer=name,
        max_context_tokens=runner.max_context_tokens,
        memory_plan_json=plan.to_json(),
        memory_bytes=codec.record_bytes(shape, plan.max_reference_tokens),
        dense_reference_bytes=_dense_bytes(config, plan.max_reference_tokens, _DTYPES[dtype].itemsize),
        max_batch_size=runner.num_slots,
        dtype=dtype,
    )


def _dense_bytes(config: ModelConfig, num_tokens: int, item_bytes: int) -> int:
    """Keys and values of all layers."""
    return 2 * config.num_layers * config.num_kv_heads * num_tokens * config.head_dim * item_bytes
