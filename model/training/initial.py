"""Random weights for a model that is trained from scratch."""

from __future__ import annotations

import torch

from model.checkpoint import weight_views
from model.config import ModelConfig
from model.transformer import Transformer

_STD = 0.02


@torch.no_grad()
def initial_transformer(
    config: ModelConfig, seed: int, device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32
) -> Transformer:
    """Normal with deviation 0.02, what is added to the residual stream smaller by sqrt(2 x layers); norms are one.

    The paper does not say; these are the values of GPT-2.
    """
    transformer = Transformer(config, dtype, device)
    generator = torch.Generator().manual_seed(seed)
    for name, view in weight_views(transformer).items():
        if "norm" in name:
            view.fill_(1.0)
            continue
        std = _STD / (2 * config.num_layers) ** 0.5 if name.endswith(("o_proj.weight", "down_proj.weight")) else _STD
        view.copy_(torch.randn(view.shape, generator=generator) * std)
    return transformer
