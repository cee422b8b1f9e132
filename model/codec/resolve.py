"""A plan's codec chain with the codebook it needs: found, loaded, and checked against model and plan."""

from __future__ import annotations

from pathlib import Path

from model.codec.chain import CodecChain
from model.codec.codebook import CODEBOOK_FILE, Codebook, CodebookError, CodebookOrigin
from model.codec.trellis import Trellis
from model.config import ModelConfig
from model.plan import MemoryPlan


def codebook_origin(plan: MemoryPlan, config: ModelConfig, *, weights: str, num_prefix_tokens: int) -> CodebookOrigin:
    """What a codebook for this model and plan is trained for; `weights` as in the model fingerprint."""
    return CodebookOrigin(weights, plan.memory_layers, config.rope_theta, num_prefix_tokens, plan.pages_per_head)


def codebook_shape(plan: MemoryPlan, config: ModelConfig) -> tuple[int, int, int]:
    """(L, K, D) of a codebook for this model and plan."""
    num_layers, num_pages, _, head_dim = plan.memory_shape(config)
    return num_layers, num_pages, head_dim


def find_codebook(plan: MemoryPlan, given: str, beside: Path | None) -> Codebook | None:
    """The codebook at the path `given`, or the one in the folder `beside` if none is given; None if none is needed.

    Raises CodebookError if it is missing or unreadable, or given to a plan that has no use for it.
    """
    if Trellis.name not in plan.codec:
        if given:
            raise CodebookError(
                f"codebook {given} is given, but plan {plan.name!r} stores memories as {', '.join(plan.codec)}; name "
                f"the codec {Trellis.name!r} in the plan, or give no codebook"
            )
        return None
    if not given and beside is None:
        raise CodebookError(
            f"plan {plan.name!r} stores memories as {Trellis.name!r} and no codebook is given; train one for the model "
            "and plan (memory3 quantise) and name its file"
        )
    return Codebook.load(Path(given).expanduser() if given else Path(beside or ".") / CODEBOOK_FILE)


def resolve_chain(
    plan: MemoryPlan, config: ModelConfig, origin: CodebookOrigin, codebook: Codebook | None
) -> CodecChain:
    """The chain of `plan.codec`. `origin`: what a codebook must have been trained for.

    Raises ValueError: an unknown stage; CodebookError: a codebook of another model, plan or shape.
    """
    if codebook is not None:
        codebook.check(origin, codebook_shape(plan, config))
    return CodecChain.from_plan(plan, codebook)
