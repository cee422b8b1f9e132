"""The shape of a Llama-family decoder, read from the `config.json` of a model directory. Knows no tensors, no plan."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_REQUIRED_KEYS = (
    "num_hidden_layers",
    "num_attention_heads",
    "hidden_size",
    "intermediate_size",
    "vocab_size",
    "max_position_embeddings",
)


@dataclass(frozen=True)
class ModelConfig:
    """Sizes of one decoder. Raises ValueError on construction, naming value, limit and remedy, if they do not fit."""

    num_layers: int
    num_heads: int
    """H: query heads."""
    num_kv_heads: int
    """K: KV heads; each serves num_heads / num_kv_heads query heads."""
    head_dim: int
    """D; even, because RoPE turns pairs of numbers."""
    hidden_dim: int
    """C: width of the residual stream."""
    mlp_dim: int
    """Width of the gated MLP."""
    vocab_size: int
    """V: rows of the embedding, padding included."""
    rope_theta: float
    rms_norm_eps: float
    tied_embeddings: bool
    """The output head is the embedding."""
    max_context_tokens: int
    """Positions the model was trained for: prefix, reference interval and context together."""
    name: str = ""
    """For people and logs."""

    def __post_init__(self) -> None:
        for field in ("num_layers", "num_heads", "num_kv_heads", "head_dim", "hidden_dim", "mlp_dim", "vocab_size"):
            if getattr(self, field) < 1:
                raise ValueError(f"model {field} is {getattr(self, field)}; give a whole number of at least 1")
        if self.max_context_tokens < 1:
            raise ValueError(f"model max_context_tokens is {self.max_context_tokens}; give at least 1")
        if self.num_heads % self.num_kv_heads:
            raise ValueError(
                f"model num_heads is {self.num_heads}, no multiple of num_kv_heads {self.num_kv_heads}; "
                "every KV head must serve the same number of query heads"
            )
        if self.head_dim % 2:
            raise ValueError(f"model head_dim is {self.head_dim}; RoPE needs an even number")

    @property
    def heads_per_kv_head(self) -> int:
        """G: query heads that share one KV head."""
        return self.num_heads // self.num_kv_heads

    @property
    def fused_heads(self) -> int:
        """A = H + 2K: query, key and value heads that one fused projection gives."""
        return self.num_heads + 2 * self.num_kv_heads

    @property
    def sizes(self) -> tuple[int, ...]:
        """Everything that decides how many numbers the model has; models of equal sizes cost the same."""
        return (
            self.num_layers,
            self.num_heads,
            self.num_kv_heads,
            self.head_dim,
            self.hidden_dim,
            self.mlp_dim,
            self.vocab_size,
        )

    @classmethod
    def from_hf_json(cls, values: Mapping[str, Any], name: str = "") -> ModelConfig:
        """The config in a Hugging Face `config.json`. ValueError if a key is missing or asks for what we lack."""
        missing = [key for key in _REQUIRED_KEYS if key not in values]
        if missing:
            raise ValueError(f"config.json lacks {', '.join(missing)}; give the config of a Llama-family model")
        _refuse_unsupported(values)
        num_heads = int(values["num_attention_heads"])
        hidden_dim = int(values["hidden_size"])
        return cls(
            num_layers=int(values["num_hidden_layers"]),
            num_heads=num_heads,
            num_kv_heads=int(values.get("num_key_value_heads") or num_heads),
            head_dim=int(values.get("head_dim") or hidden_dim // num_heads),
            hidden_dim=hidden_dim,
            mlp_dim=int(values["intermediate_size"]),
            vocab_size=int(values["vocab_size"]),
            rope_theta=_rope_theta(values),
            rms_norm_eps=float(values.get("rms_norm_eps", 1e-6)),
            tied_embeddings=bool(values.get("tie_word_embeddings", False)),
            max_context_tokens=int(values["max_position_embeddings"]),
            name=name or str(values.get("_name_or_path") or ""),
        )

    def to_hf_json(self) -> dict[str, Any]:
        """The keys of a Hugging Face `config.json` that `from_hf_json` and transformers read back to this config."""
        return {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "hidden_act": "silu",
            "num_hidden_layers": self.num_layers,
            "num_attention_heads": self.num_heads,
            "num_key_value_heads": self.num_kv_heads,
            "head_dim": self.head_dim,
            "hidden_size": self.hidden_dim,
            "intermediate_size": self.mlp_dim,
            "vocab_size": self.vocab_size,
            "rope_theta": self.rope_theta,
            "rms_norm_eps": self.rms_norm_eps,
            "tie_word_embeddings": self.tied_embeddings,
            "max_position_embeddings": self.max_context_tokens,
            "attention_bias": False,
            "mlp_bias": False,
            "_name_or_path": self.name,
        }


def _rope_parameters(values: Mapping[str, Any]) -> Mapping[str, Any]:
    """Older files say `rope_scaling` and `rope_theta`, newer ones put both into `rope_parameters`."""
    return values.get("rope_parameters") or values.get("rope_scaling") or {}


def _rope_theta(values: Mapping[str, Any]) -> float:
    return float(values.get("rope_theta") or _rope_parameters(values).get("rope_theta") or 10_000.0)


def _refuse_unsupported(values: Mapping[str, Any]) -> None:
    parameters = _rope_parameters(values)
    rope_type = parameters.get("rope_type", parameters.get("type", "default"))
    if rope_type != "default":
        raise ValueError(f"config.json asks for RoPE scaling {rope_type!r}; only plain RoPE is supported")
    accepted: dict[str, tuple[Any, ...]] = {
        "model_type": ("llama",),
        "hidden_act": ("silu",),
        "attention_bias": (False, None),
        "mlp_bias": (False, None),
        "sliding_window": (None,),
    }
    for key, choices in accepted.items():
        value = values.get(key, choices[0])
        if value not in choices:
            raise ValueError(f"config.json has {key} {value!r}; only {choices[0]!r} is supported")
