"""What a step is scored by: cross entropy with the text, and the distance to a teacher on the same tokens.

Shape letters: J scored tokens, V vocabulary, C model width.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

ROWS_AT_ONCE = 2048
"""Scored tokens whose logits are held at once; the scores over a large vocabulary are the largest tensors of a step."""


def token_losses(logits_JV: Tensor, targets_J: Tensor, teacher_JV: Tensor | None) -> tuple[Tensor, Tensor]:
    """`-log p(target)` and `KL(teacher || student)` of each token, nats; zero without a teacher."""
    log_p_JV = logits_JV.log_softmax(dim=-1)
    cross_entropy_J = -log_p_JV.gather(1, targets_J[:, None])[:, 0]
    if teacher_JV is None:
        return cross_entropy_J, torch.zeros_like(cross_entropy_J)
    log_teacher_JV = teacher_JV.log_softmax(dim=-1)
    kl_J = functional.kl_div(log_p_JV, log_teacher_JV, reduction="none", log_target=True).sum(dim=-1)
    return cross_entropy_J, kl_J


def losses_of_hidden(
    logits: Callable[[Tensor], Tensor],
    hidden_JC: Tensor,
    targets_J: Tensor,
    teacher: tuple[Callable[[Tensor], Tensor], Tensor] | None = None,
) -> tuple[Tensor, Tensor]:
    """`token_losses` from what precedes the output head, `ROWS_AT_ONCE` tokens at a time.

    `teacher`: its output head, and its `hidden_JC` of the same tokens.
    """

    def block(hidden_JC: Tensor, targets_J: Tensor, teacher_JC: Tensor | None) -> tuple[Tensor, Tensor]:
        teacher_JV = None
        if teacher is not None and teacher_JC is not None:
            with torch.no_grad():
                teacher_JV = teacher[0](teacher_JC)
        return token_losses(logits(hidden_JC), targets_J, teacher_JV)

    num_blocks = -(-len(hidden_JC) // ROWS_AT_ONCE)
    if num_blocks <= 1:
        return block(hidden_JC, targets_J, None if teacher is None else teacher[1])
    results = []
    for start in range(0, len(hidden_JC), ROWS_AT_ONCE):
        rows = slice(start, start + ROWS_AT_ONCE)
        teacher_JC = None if teacher is None else teacher[1][rows]
        results.append(checkpoint(block, hidden_JC[rows], targets_J[rows], teacher_JC, use_reentrant=False))
    return torch.cat([ce for ce, _ in results]), torch.cat([kl for _, kl in results])
