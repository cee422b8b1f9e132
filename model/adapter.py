"""An adapter as files: PEFT's own form, so that other tools read it, and beside it what it was trained for.

    adapter_config.json         PEFT's settings
    adapter_model.safetensors   PEFT's factors
    memory_plan.json            the memory plan it was trained under
    memory3_adapter.json        which base weights it belongs to
    token_scorer.safetensors    only where the plan names it (`model.token_scorer`)

Serving adds the factors to the weights once: an adapted model is as fast as its base. Knows no training.

Shape letters: I inputs, O outputs, R rank.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from model.checkpoint import CheckpointError, weight_views
from model.plan import MemoryPlan
from model.transformer import Transformer

WEIGHTS_FILE = "adapter_model.safetensors"
CONFIG_FILE = "adapter_config.json"
PLAN_FILE = "memory_plan.json"
BASE_FILE = "memory3_adapter.json"
_NAME = "base_model.model.model.{module}.lora_{factor}.weight"


class AdapterError(CheckpointError):
    """An adapter cannot be used: a file is missing or damaged, it is of another base or of a kind we do not have."""


@dataclass(frozen=True)
class AdapterConfig:
    """What an adapter's files say about it."""

    rank: int
    alpha: float
    targets: tuple[str, ...]
    base_model: str
    """Name, for people."""
    base_digest: str
    """`base_digest` of the weights it was trained on; "" if it does not say."""


def base_digest(transformer: Transformer) -> str:
    """SHA-256, in hex, of the weights as bfloat16: the same in either dtype and from any file they came in."""
    digest = hashlib.sha256()
    for name, view in sorted(weight_views(transformer).items()):
        digest.update(f"{name} {tuple(view.shape)}\n".encode())
        digest.update(view.detach().to("cpu", torch.bfloat16).contiguous().view(torch.int16).numpy().tobytes())
    return digest.hexdigest()


def read_adapter_config(directory: Path | str) -> AdapterConfig:
    """Settings of an adapter. Raises AdapterError if they are missing, damaged, or not of plain LoRA."""
    directory = Path(directory)
    values = _read_json(directory / CONFIG_FILE)
    kind = values.get("peft_type")
    if kind != "LORA":
        raise AdapterError(f"{directory / CONFIG_FILE} has peft_type {kind!r}; only 'LORA' is supported")
    accepted: dict[str, tuple[Any, ...]] = {
        "bias": ("none",), "use_dora": (False,), "use_rslora": (False,), "fan_in_fan_out": (False,),
        "rank_pattern": ({}, None), "alpha_pattern": ({}, None), "modules_to_save": (None, []),
    }  # fmt: skip
    for key, choices in accepted.items():
        if values.get(key, choices[0]) not in choices:
            raise AdapterError(f"{directory / CONFIG_FILE} has {key} {values[key]!r}; only {choices[0]!r} is supported")
    base = _read_json(directory / BASE_FILE) if (directory / BASE_FILE).is_file() else {}
    try:
        return AdapterConfig(
            rank=int(values["r"]),
            alpha=float(values["lora_alpha"]),
            targets=tuple(sorted(values["target_modules"])),
            base_model=str(values.get("base_model_name_or_path") or ""),
            base_digest=str(base.get("base_weights_sha256", "")),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise AdapterError(f"{directory / CONFIG_FILE} cannot be read ({error!r}); fetch the adapter again") from error


def adapter_plan(directory: Path | str) -> MemoryPlan:
    """The memory plan an adapter was trained under. Raises AdapterError."""
    path = Path(directory) / PLAN_FILE
    try:
        return MemoryPlan.from_json(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise AdapterError(f"{path} cannot be read ({error.strerror}); name a memory plan") from error
    except ValueError as error:
        raise AdapterError(f"{path}: {error}") from error


def adapter_digest(directory: Path | str) -> str:
    """SHA-256, in hex, of all that decides what the adapter does to the weights. Raises AdapterError."""
    directory = Path(directory)
    config = read_adapter_config(directory)
    digest = hashlib.sha256(f"{config.rank} {config.alpha!r}\n".encode())
    try:
        digest.update((directory / WEIGHTS_FILE).read_bytes())
    except OSError as error:
        raise AdapterError(f"{directory / WEIGHTS_FILE} cannot be read ({error.strerror}); fetch it again") from error
    return digest.hexdigest()


def check_base(transformer: Transformer, directory: Path | str) -> AdapterConfig:
    """The adapter's settings. Raises AdapterError if it was trained on other weights than these."""
    config = read_adapter_config(directory)
    if config.base_digest and config.base_digest != base_digest(transformer):
        raise AdapterError(
            f"adapter {directory} was trained on other weights ({config.base_model or 'unnamed'}, "
            f"{config.base_digest[:12]}…) than {transformer.config.name or 'this model'} has; load the base it names, "
            "or leave the adapter out"
        )
    return config


@torch.no_grad()
def merge_adapter(transformer: Transformer, directory: Path | str) -> str:
    """Add an adapter to the weights; gives its digest. Raises AdapterError before a weight is changed.

    An adapter of PEFT without our own file is taken on trust if its shapes fit.
    """
    directory = Path(directory)
    digest = adapter_digest(directory)
    config = check_base(transformer, directory)
    views = weight_views(transformer)
    factors = read_factors(directory)
    for module, (down_RI, up_OR) in factors.items():
        weight_OI = views.get(f"model.{module}.weight")
        if weight_OI is None or weight_OI.shape != (len(up_OR), down_RI.shape[1]) or len(down_RI) != up_OR.shape[1]:
            raise AdapterError(
                f"{directory / WEIGHTS_FILE}: {module} has factors {tuple(down_RI.shape)} and {tuple(up_OR.shape)}, "
                f"the model has {None if weight_OI is None else tuple(weight_OI.shape)}; it is of another model"
            )
    for module, (down_RI, up_OR) in factors.items():
        weight_OI = views[f"model.{module}.weight"]
        update_OI = up_OR.float() @ down_RI.float() * (config.alpha / config.rank)
        weight_OI.copy_(weight_OI.float() + update_OI.to(weight_OI.device))
    return digest


def read_factors(directory: Path | str) -> dict[str, tuple[Tensor, Tensor]]:
    """`layers.0.self_attn.q_proj` and so on -> its factors `down_RI` and `up_OR`. Raises AdapterError."""
    path = Path(directory) / WEIGHTS_FILE
    try:
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        raise AdapterError(f"{path} cannot be read as safetensors ({error}); fetch the adapter again") from error
    found = re.compile(re.escape(_NAME).replace(r"\{module\}", "(.+)").replace(r"\{factor\}", "A"))
    factors = {}
    for match in filter(None, map(found.fullmatch, list(tensors))):
        up_name = _NAME.format(module=match[1], factor="B")
        if up_name not in tensors:
            raise AdapterError(f"{path} lacks {up_name}; fetch the adapter again")
        factors[match[1]] = (tensors.pop(match[0]), tensors.pop(up_name))
    if tensors or not factors:
        left = min(tensors) if tensors else "nothing at all"
        raise AdapterError(f"{path} has {left} beside pairs of LoRA factors; only plain LoRA is supported")
    return factors


def save_adapter(
    directory: Path | str,
    factors: Mapping[str, tuple[Tensor, Tensor]],
    config: AdapterConfig,
    plan: MemoryPlan,
    dtype: torch.dtype = torch.float32,
) -> None:
    """Write an adapter's files; the directory must exist. `factors` as `read_factors` gives them."""
    directory = Path(directory)
    peft = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": config.base_model,
        "r": config.rank,
        "lora_alpha": config.alpha,
        "lora_dropout": 0.0,
        "target_modules": sorted(config.targets),
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
    }
    _write(directory / CONFIG_FILE, json.dumps(peft, indent=1) + "\n")
    _write(directory / PLAN_FILE, plan.to_json() + "\n")
    _write(directory / BASE_FILE, json.dumps({"format": 1, "base_weights_sha256": config.base_digest}, indent=1) + "\n")
    tensors = {}
    for module, (down_RI, up_OR) in sorted(factors.items()):
        for factor, tensor in (("A", down_RI), ("B", up_OR)):
            tensors[_NAME.format(module=module, factor=factor)] = tensor.detach().to("cpu", dtype).contiguous()
    save_file(tensors, directory / WEIGHTS_FILE, metadata={"format": "pt"})


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


def _read_json(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise AdapterError(f"{path} cannot be read ({error.strerror}); give the folder of a PEFT adapter") from error
    except ValueError as error:
        raise AdapterError(f"{path} is not JSON ({error}); fetch the adapter again") from error
    if not isinstance(values, dict):
        raise AdapterError(f"{path} is not a JSON object; fetch the adapter again")
    return values
