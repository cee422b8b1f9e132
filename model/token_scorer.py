"""What selection "trained" knows of tokens: weights that say of a token, seen without any question, how much more or
less contexts need of it than its reconstruction score tells.

One safetensors file beside an adapter, trained for the adapted weights and memory layers (`bench.token_choice`). A plan
names it by its identity, so memories chosen by another one have another fingerprint. Knows no tokens and no model.

Shape letters: L memory layers, K KV heads, F numbers of a token's fused heads, B references, A fused heads, T tokens,
D head dimension.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from model.identity import ID_HEX_DIGITS

if TYPE_CHECKING:
    from model.config import ModelConfig
    from model.plan import MemoryPlan

TOKEN_SCORER_FILE = "token_scorer.safetensors"
"""Its name beside an adapter."""
_DOMAIN = b"memory3 token scorer v1\0"
_TENSOR = "weight"


class TokenScorerError(ValueError):
    """A token scorer cannot be used: missing, not readable, or not the one that a plan names."""


@dataclass(frozen=True, eq=False)
class TokenScorer:
    """Raises TokenScorerError on construction if the weights are not finite float32 `[L, K, F]`."""

    weight_LKF: Tensor

    def __post_init__(self) -> None:
        weight_LKF = self.weight_LKF
        if weight_LKF.ndim != 3 or not weight_LKF.numel() or weight_LKF.dtype != torch.float32:
            raise TokenScorerError(
                f"token scorer has {weight_LKF.dtype} weights of shape {tuple(weight_LKF.shape)}; they are float32 "
                "(memory layers, KV heads, numbers of a token)"
            )
        if not bool(weight_LKF.isfinite().all()):
            raise TokenScorerError("token scorer has a weight that is not finite; train it again")

    @cached_property
    def identity(self) -> str:
        """32 hex digits over its weights."""
        digest = hashlib.sha256(_DOMAIN + f"{tuple(self.weight_LKF.shape)}\n".encode())
        digest.update(self.weight_LKF.cpu().contiguous().numpy().astype("<f4", copy=False).tobytes())
        return digest.hexdigest()[:ID_HEX_DIGITS]

    def correct(self, memory_layer: int, plain_BATD: Tensor) -> Tensor:
        """float32 `[B, K, T]`: what to add to the logarithm of a token's score; of fused heads before RoPE."""
        features_BTF = plain_BATD.float().transpose(1, 2).flatten(2)
        correction_BTK: Tensor = features_BTF @ self.weight_LKF[memory_layer].to(plain_BATD.device).mT
        return correction_BTK.transpose(1, 2)

    def save(self, path: Path | str) -> None:
        """Write it. Raises OSError."""
        save_file({_TENSOR: self.weight_LKF.cpu().contiguous()}, path)

    @classmethod
    def load(cls, path: Path | str) -> TokenScorer:
        """What `save` wrote. Raises TokenScorerError."""
        try:
            tensors = load_file(path)
            return cls(tensors[_TENSOR])
        except (OSError, SafetensorError, KeyError) as error:
            raise TokenScorerError(
                f"{path} is no token scorer ({error}); fetch it again, or train one (python -m bench.token_choice)"
            ) from error


def find_token_scorer(plan: MemoryPlan, config: ModelConfig, beside: Path | None) -> TokenScorer | None:
    """The scorer in the folder `beside` (an adapter's); None if the plan needs none.

    Raises TokenScorerError if it is missing, not the one that the plan names, or of another model's shape.
    """
    if not plan.token_scorer:
        return None
    if beside is None:
        raise TokenScorerError(
            f"plan {plan.name!r} chooses tokens with the token scorer {plan.token_scorer}, which lies beside the "
            "adapter it was trained for, and no adapter is given; name that adapter, or another selection"
        )
    scorer = TokenScorer.load(beside / TOKEN_SCORER_FILE)
    check_token_scorer(plan, scorer)
    wanted = (len(plan.memory_layers), config.num_kv_heads, config.fused_heads * config.head_dim)
    if scorer.weight_LKF.shape != wanted:
        raise TokenScorerError(
            f"token scorer {scorer.identity} has weights of shape {tuple(scorer.weight_LKF.shape)}, plan "
            f"{plan.name!r} and the model need {wanted}; train one for them (python -m bench.token_choice)"
        )
    return scorer


def check_token_scorer(plan: MemoryPlan, scorer: TokenScorer | None) -> None:
    """Raises TokenScorerError if this is not the one that the plan names."""
    if plan.token_scorer and (scorer is None or scorer.identity != plan.token_scorer):
        found = "none" if scorer is None else scorer.identity
        raise TokenScorerError(
            f"plan {plan.name!r} chooses tokens with the token scorer {plan.token_scorer}, the model has {found}; take "
            "the file that came with the plan, or name another selection"
        )
