"""The products of one pass through a model, with tokens as rows and as columns: which way `model.linear` should go.

    python -m bench.linear                      # the default model's shapes, float32, on this processor
    python -m bench.linear --dtype bfloat16

All linear layers and the head of a model with random weights, for as many tokens as a decoding batch may have. The two
ways are interleaved; lower quartile of the repeats, because what else runs on the machine only ever adds. `used` is
what `model.linear` takes here.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor

from bench.machine import heading
from model.linear import numbers_of_columns, weights_left, weights_right
from model.presets import model_config, model_config_names

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
Way = Callable[[Tensor, Tensor, Tensor | None], Tensor]


class Products:
    """Weights of every layer, and the head."""

    def __init__(self, name: str, dtype: torch.dtype) -> None:
        config = model_config(name)
        width, heads = config.hidden_dim, config.num_heads * config.head_dim
        shapes = (
            (config.fused_heads * config.head_dim, width),
            (width, heads),
            (2 * config.mlp_dim, width),
            (width, config.mlp_dim),
        )
        self._dtype, self._width = dtype, width
        self._weights = [torch.randn(*shape, dtype=dtype) for _ in range(config.num_layers) for shape in shapes]
        self._weights.append(torch.randn(config.vocab_size, width, dtype=dtype))

    @torch.inference_mode()
    def seconds(self, way: Way, num_tokens: int) -> float:
        """Of one pass; what goes back into the residual stream is added, as in the model."""
        inputs = {size: torch.randn(num_tokens, size, dtype=self._dtype) for size in {len(w[0]) for w in self._weights}}
        residual = torch.randn(num_tokens, self._width, dtype=self._dtype)
        began = time.perf_counter()
        for weight in self._weights:
            way(inputs[len(weight[0])], weight, residual if len(weight) == self._width else None).contiguous()
        return time.perf_counter() - began


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="smollm2-135m", choices=model_config_names())
    parser.add_argument("--dtype", default="float32", choices=sorted(DTYPES))
    parser.add_argument("--tokens", type=int, nargs="+", default=[1, 2, 4, 8, 12, 16, 24, 32, 48, 64, 128])
    parser.add_argument("--repeats", type=int, default=12)
    given = parser.parse_args()
    dtype = DTYPES[given.dtype]
    products = Products(given.config, dtype)
    columns = numbers_of_columns(torch.cpu.get_capabilities()).get(dtype, range(0))
    print(f"{heading()} · {given.dtype} · {given.config} · {torch.get_num_threads()} threads · n = {given.repeats}\n")
    print("| tokens | as rows, ms | as columns, ms | used |\n| ---: | ---: | ---: | --- |")
    for num_tokens in given.tokens:
        ways: dict[Way, list[float]] = {weights_right: [], weights_left: []}
        for repeat in range(-2, given.repeats):
            for way, seconds in ways.items():
                taken = products.seconds(way, num_tokens)
                if repeat >= 0:
                    seconds.append(taken)
        rows, cols = (1e3 * statistics.quantiles(seconds, n=4)[0] for seconds in ways.values())
        print(
            f"| {num_tokens} | {rows:.1f} | {cols:.1f} | {'columns' if num_tokens in columns else 'rows'} |", flush=True
        )


if __name__ == "__main__":
    main()
