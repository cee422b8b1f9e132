"""One training step's forward: a batch in, its loss out. A module, so that torch can distribute it.

Shape letters: J scored tokens of all contexts, C model width.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace

import torch
from torch import Tensor, nn

from model.plan import MemoryPlan
from model.prefix import PrefixState, prefix_with_gradient
from model.training.batch import Batch, Context
from model.training.lora import adapter_off, factors_held
from model.training.losses import losses_of_hidden
from model.training.memory_pass import scored_hidden, write_memories
from model.transformer import Transformer


class TrainingStep(nn.Module):
    """A transformer in training under a plan, and its own base as teacher."""

    def __init__(
        self, transformer: Transformer, plan: MemoryPlan, prefix_tokens: Sequence[int], *, teacher_is_base: bool = True
    ) -> None:
        """`teacher_is_base`: the teacher is the model without its adapter; else the model as it is now, without
        gradient. Raises ValueError if the plan does not fit the model."""
        super().__init__()
        plan.validate(transformer.config)
        self.transformer, self._plan, self._prefix_tokens = transformer, plan, tuple(prefix_tokens)
        self._teacher_is_base = teacher_is_base

    def forward(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """The sum of the contexts' losses, and by scored token cross entropy and KL, without gradient.

        A context's loss is the weighted mean over its scored tokens: a short answer counts as much as a long text.
        """
        with factors_held(self.transformer):
            return self._forward(batch)

    def _forward(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        transformer, contexts = self.transformer, batch.contexts
        plan = replace(self._plan, tokens_per_memory=batch.tokens_per_memory)
        prefix = prefix_with_gradient(transformer, self._prefix_tokens)
        memory_kv_U2LKSD = write_memories(transformer, plan, prefix, batch.references, batch.preceding)
        lengths = [len(tokens) for tokens in batch.references]
        hidden_JC = scored_hidden(transformer, plan, prefix, memory_kv_U2LKSD, lengths, contexts)
        # Taught tokens first: one block of rows has a teacher, the other has none.
        taught = [index for index, context in enumerate(contexts) if context.distillation]
        is_taught_J = self._by_token(contexts, [float(bool(context.distillation)) for context in contexts]).bool()
        targets_J = self._tensor([token for context in contexts for token in context.targets])
        cross_entropy_J = torch.zeros(len(targets_J), device=hidden_JC.device)
        kl_J = torch.zeros_like(cross_entropy_J)
        if taught:
            teacher_JC = self._teacher_hidden(plan, [contexts[index] for index in taught])
            ce, kl = losses_of_hidden(
                transformer.logits, hidden_JC[is_taught_J], targets_J[is_taught_J], (transformer.logits, teacher_JC)
            )
            cross_entropy_J = cross_entropy_J.masked_scatter(is_taught_J, ce)
            kl_J = kl_J.masked_scatter(is_taught_J, kl)
        if len(taught) < len(contexts):
            ce, _ = losses_of_hidden(transformer.logits, hidden_JC[~is_taught_J], targets_J[~is_taught_J])
            cross_entropy_J = cross_entropy_J.masked_scatter(~is_taught_J, ce)
        weight_J = self._by_token(contexts, [context.cross_entropy / context.num_scored for context in contexts])
        kl_weight_J = self._by_token(contexts, [context.distillation / context.num_scored for context in contexts])
        loss = (weight_J * cross_entropy_J + kl_weight_J * kl_J).sum()
        return loss, cross_entropy_J.detach(), kl_J.detach()

    @torch.no_grad()
    def _teacher_hidden(self, plan: MemoryPlan, contexts: Sequence[Context]) -> Tensor:
        transformer = self.transformer
        with adapter_off(transformer) if self._teacher_is_base else nullcontext():
            prefix: PrefixState = prefix_with_gradient(transformer, self._prefix_tokens)
            taught = [Context(context.teacher_tokens or (), context.num_scored) for context in contexts]
            return scored_hidden(transformer, plan, prefix, None, (), taught)

    def _by_token(self, contexts: Sequence[Context], values: Sequence[float]) -> Tensor:
        rows = [value for context, value in zip(contexts, values, strict=True) for _ in range(context.num_scored)]
        return torch.tensor(rows, device=self.transformer.device)

    def _tensor(self, values: Sequence[int]) -> Tensor:
        return torch.tensor(values, dtype=torch.long, device=self.transformer.device)
