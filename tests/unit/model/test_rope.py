"""Rotary tables and positions."""

import pytest
import torch

from model.rope import RotaryTable, context_start, reference_start, rotate
from tests.helpers.tiny_model import tiny_config, tiny_plan

CONFIG = tiny_config(num_heads=2, num_kv_heads=1)


def _rotated(plain_TAD: torch.Tensor, positions: list[int]) -> torch.Tensor:
    table = RotaryTable(CONFIG, torch.float32, torch.device("cpu"))
    return rotate(plain_TAD, *table.at(torch.tensor(positions)))


def test_scores_depend_on_distance_alone():
    q_D, k_D = torch.randn(2, 16, generator=torch.Generator().manual_seed(0))
    fused_AD = torch.stack((q_D, q_D, k_D, k_D))
    rotated_TAD = _rotated(fused_AD.expand(4, -1, -1), [3, 10, 1003, 1010])
    near, far = (rotated_TAD[i, 0] @ rotated_TAD[i + 1, 2] for i in (0, 2))
    torch.testing.assert_close(near, far, atol=1e-3, rtol=0)


def test_values_stay_as_they_are():
    plain_TAD = torch.randn(2, 4, 16)
    rotated_TAD = _rotated(plain_TAD, [5, 900])
    assert torch.equal(rotated_TAD[:, 3], plain_TAD[:, 3])
    assert not torch.equal(rotated_TAD[:, 2], plain_TAD[:, 2])


def test_position_zero_turns_nothing():
    plain_TAD = torch.randn(1, 4, 16)
    assert torch.equal(_rotated(plain_TAD, [0]), plain_TAD)


@pytest.mark.parametrize("num_prefix", [0, 1, 3])
def test_context_stands_behind_the_references_interval(num_prefix: int):
    plan = tiny_plan(max_reference_tokens=128)
    assert reference_start(num_prefix) == num_prefix
    assert context_start(plan, num_prefix, reads_memories=True) == num_prefix + 128
    assert context_start(plan, num_prefix, reads_memories=False) == num_prefix
