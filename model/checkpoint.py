"""Weights of a model directory: Hugging Face names and safetensors files to our fused parameters, and their digest.

Knows no tokenizer and no memory plan. Nothing is unpickled.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from model.config import ModelConfig
from model.transformer import Layer, Transformer

WEIGHTS_FILE = "model.safetensors"
_INDEX_FILE = "model.safetensors.index.json"
_DTYPES = (torch.float32, torch.bfloat16)


class CheckpointError(ValueError):
    """A model directory cannot be used: a file is missing or damaged, a tensor is missing, misshapen or unknown."""


def read_config(directory: Path | str) -> ModelConfig:
    """The config of a model directory. Raises CheckpointError."""
    path = Path(directory) / "config.json"
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        return ModelConfig.from_hf_json(values, name=Path(directory).name)
    except OSError as error:
        raise CheckpointError(
            f"model directory {directory} has no readable config.json ({error.strerror}); give a directory with "
            f"config.json, {WEIGHTS_FILE} and tokenizer.json"
        ) from error
    except ValueError as error:
        raise CheckpointError(f"{path}: {error}") from error


@torch.no_grad()
def load_transformer(
    directory: Path | str, dtype: torch.dtype = torch.float32, device: str | torch.device = "cpu"
) -> Transformer:
    """The model of a Llama-family directory, weights in one file or in shards. Raises CheckpointError."""
    if dtype not in _DTYPES:
        raise CheckpointError(f"dtype is {dtype}; choose one of {', '.join(map(str, _DTYPES))}")
    transformer = Transformer(read_config(directory), dtype, device)
    views = weight_views(transformer)
    missing = set(views)
    for path in _weight_files(Path(directory)):
        try:
            for name, tensor in _tensors(path):
                if name not in views:
                    _refuse_unless_idle(name, path, transformer.config)
                    continue
                if tensor.shape != views[name].shape:
                    raise CheckpointError(
                        f"{path}: tensor {name} has shape {tuple(tensor.shape)}, the config asks for "
                        f"{tuple(views[name].shape)}; config.json and weights are of different models"
                    )
                views[name].copy_(tensor)
                missing.discard(name)
        except (OSError, SafetensorError) as error:
            raise CheckpointError(f"{path} cannot be read as safetensors ({error}); fetch the model again") from error
    if missing:
        raise CheckpointError(
            f"model directory {directory} lacks {len(missing)} tensors, first {min(missing)}; fetch the model "
            "again, or check num_hidden_layers and tie_word_embeddings in config.json"
        )
    return transformer


def save_transformer(transformer: Transformer, directory: Path | str) -> None:
    """Write config.json and the weights in Hugging Face's form; the directory must exist."""
    directory = Path(directory)
    (directory / "config.json").write_text(json.dumps(transformer.config.to_hf_json(), indent=1), encoding="utf-8")
    tensors = {name: view.contiguous().cpu() for name, view in weight_views(transformer).items()}
    save_file(tensors, directory / WEIGHTS_FILE, metadata={"format": "pt"})


def weights_digest(directory: Path | str) -> str:
    """SHA-256, in hex, over the weights as stored; of several shards, over their digests in order of file name.

    Raises CheckpointError. Takes about a second for each gigabyte.
    """
    digests = []
    for path in _weight_files(Path(directory)):
        try:
            with path.open("rb") as file:
                digests.append(hashlib.file_digest(file, "sha256").hexdigest())
        except OSError as error:
            raise CheckpointError(f"{path} cannot be read ({error.strerror}); fetch the model again") from error
    return digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()


def weight_views(transformer: Transformer) -> dict[str, Tensor]:
    """Hugging Face name to the view of our parameters that holds it; a tied head has no name of its own."""
    views = {
        "model.embed_tokens.weight": transformer.embedding_VC.data,
        "model.norm.weight": transformer.final_norm_C.data,
    }
    if not transformer.config.tied_embeddings:
        views["lm_head.weight"] = transformer.head_VC.data
    for index, layer in enumerate(transformer.layers):
        assert isinstance(layer, Layer)
        views |= {
            f"model.layers.{index}.{name}": view for name, view in _layer_views(layer, transformer.config).items()
        }
    return views


def _layer_views(layer: Layer, config: ModelConfig) -> dict[str, Tensor]:
    sizes = [config.num_heads * config.head_dim, *[config.num_kv_heads * config.head_dim] * 2]
    query, key, value = layer.qkv_AC.data.split(sizes)
    gate, up = layer.gate_up_FC.data.chunk(2)
    return {
        "input_layernorm.weight": layer.attention_norm_C.data,
        "self_attn.q_proj.weight": query,
        "self_attn.k_proj.weight": key,
        "self_attn.v_proj.weight": value,
        "self_attn.o_proj.weight": layer.out_CE.data,
        "post_attention_layernorm.weight": layer.mlp_norm_C.data,
        "mlp.gate_proj.weight": gate,
        "mlp.up_proj.weight": up,
        "mlp.down_proj.weight": layer.down_CW.data,
    }


def _weight_files(directory: Path) -> list[Path]:
    if (directory / WEIGHTS_FILE).is_file():
        return [directory / WEIGHTS_FILE]
    index = directory / _INDEX_FILE
    if not index.is_file():
        raise CheckpointError(
            f"model directory {directory} has neither {WEIGHTS_FILE} nor {_INDEX_FILE}; give a directory with "
            "safetensors weights (a GGUF file is converted first)"
        )
    try:
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise CheckpointError(f"{index} cannot be read ({error!r}); fetch the model again") from error
    if any(Path(name).name != name for name in names):
        raise CheckpointError(f"{index} names files outside its directory; fetch the model from a source you trust")
    absent = [name for name in names if not (directory / name).is_file()]
    if absent:
        raise CheckpointError(f"model directory {directory} lacks shard {absent[0]}; fetch the model again")
    return [directory / name for name in names]


def _tensors(path: Path) -> Iterator[tuple[str, Tensor]]:
    with safe_open(path, framework="pt") as file:
        for name in file.keys():  # noqa: SIM118 - not a mapping
            yield name, file.get_tensor(name)


def _refuse_unless_idle(name: str, path: Path, config: ModelConfig) -> None:
    """A tensor we do not read must be one that changes nothing."""
    is_tied_head = name == "lm_head.weight" and config.tied_embeddings
    if not is_tied_head and not name.endswith("rotary_emb.inv_freq"):
        raise CheckpointError(f"{path} has tensor {name}, which a plain Llama model does not have; use another model")
