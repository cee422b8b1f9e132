"""How a memory's tokens are best spread over its heads, at equal size: docs/page-choice.md, and a plan to serve with.

    python -m bench.page_choice                            # the shipped adapter: some 40 minutes of one core
    python -m bench.page_choice --items 4 --sets fiction   # does it run
    python -m bench.page_choice --plan runs/plan.json      # and writes the plan with a page each and one by share

Of training references every token has a score in every head, by which a plan chooses. Counted is which heads the best
tokens of a memory belong to, if heads may keep what they like. Pages are given out by these shares alone, or every
head has some and the rest goes by shares. Each table is then measured on held-out items of a seed of its own, beside
one page for each head: which is better shows there, so figures to believe are those of other items (docs/results.md).
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from bench.machine import heading
from model.memory.writer import encode_references
from model.plan import MemoryPlan
from model.prefix import encode_prefix
from services.common.config import load as load_settings
from services.datasets import registry
from services.datasets.item import DatasetError, Item, Passage
from services.evaluation.config import EvaluationSettings
from services.evaluation.loading import Checkpoint, Choices, check, load
from services.evaluation.measure import Task, measure
from services.evaluation.modes import Mode

_REFERENCES_AT_ONCE = 20
_TABLES = {"all by share": (0, 1), "1 each, 3 by share": (1, 3), "1 each, 1 by share": (1, 1)}
_CHOSEN = "1 each, 1 by share"


@dataclass(frozen=True)
class Row:
    """A table of pages on one set."""

    name: str
    pages: tuple[tuple[int, ...], ...]
    closed: dict[str, str]
    change: dict[str, str]
    """NLL against one page each, ± standard error of the paired difference."""


@torch.inference_mode()
def shares(checkpoint: Checkpoint, passages: Sequence[Passage]) -> NDArray[np.float64]:
    """`[L, K]`, sum 1: which heads the best L*K*S tokens of a memory belong to, in the mean over references."""
    plan, transformer, tokenizer = checkpoint.checked.plan, checkpoint.transformer, checkpoint.tokenizer
    prefix = encode_prefix(transformer, tokenizer.encode_special(plan.prefix))
    references = [tokenizer.encode(one.text)[: plan.max_reference_tokens] for one in passages]
    preceding = [tokenizer.encode(one.preceding) for one in passages]
    counted = []
    for start in range(0, len(references), _REFERENCES_AT_ONCE):
        places = slice(start, start + _REFERENCES_AT_ONCE)
        batch = references[places]
        scores_BLKR = encode_references(transformer, plan, prefix, batch, preceding[places]).scores_BLKR
        assert scores_BLKR is not None
        for scores_LKR, tokens in zip(scores_BLKR, batch, strict=True):
            scores_LKT = scores_LKR[..., : len(tokens)]
            kept = min(plan.tokens_per_memory, len(tokens)) * scores_LKT[..., 0].numel()
            best = scores_LKT.flatten().topk(kept).indices
            of_head = torch.bincount(best // len(tokens), minlength=scores_LKT[..., 0].numel())
            counted.append((of_head.double() / kept).view(scores_LKT.shape[:2]).cpu().numpy())
    return np.mean(counted, axis=0)


def pages_by(shares_LK: NDArray[np.float64], each: int = 0, by_share: int = 1) -> tuple[tuple[int, ...], ...]:
    """`each` pages for every head, and `by_share` times as many pages as heads one after the other to whom most of a
    share is still owed (Sainte-Laguë)."""
    given_LK = np.zeros(shares_LK.shape, dtype=int)
    for _ in range(by_share * shares_LK.size):
        owed_LK = shares_LK / (given_LK + 0.5)
        given_LK.flat[owed_LK.argmax()] += 1
    return tuple(tuple(int(count) + each for count in given_K) for given_K in given_LK)


def measured(
    checkpoint: Checkpoint, settings: EvaluationSettings, plans: dict[str, MemoryPlan], arguments: argparse.Namespace
) -> list[Row]:
    """Every plan on every set; the first is what others are compared with."""
    closed: dict[str, dict[str, str]] = {name: {} for name in plans}
    change: dict[str, dict[str, str]] = {name: {} for name in plans}
    for set_name in arguments.sets:
        items = _others(set_name, arguments.items, arguments.seed, arguments.not_seed)
        modes = (Mode.NONE, Mode.RAG)
        task = Task(set_name, "held-out", items, arguments.seed, modes)
        both = measure(checkpoint, settings, task).results
        none, rag = (np.array([one.nll for one in both[mode]]) for mode in modes)
        first: NDArray[np.float64] | None = None
        for name, plan in plans.items():
            report = measure(checkpoint.under(plan), settings, replace(task, modes=(Mode.MEMORY,)))
            nll = np.array([one.nll for one in report.results[Mode.MEMORY]])
            first = nll if first is None else first
            difference = nll - first
            error = difference.std(ddof=1) / len(nll) ** 0.5
            closed[name][set_name] = f"{(none - nll).mean() / (none - rag).mean():.0%}"
            change[name][set_name] = f"{difference.mean():+.3f} ± {error:.3f}"
            print(
                f"{set_name}, {name}: {closed[name][set_name]}, {change[name][set_name]}", file=sys.stderr, flush=True
            )
    return [Row(name, plan.pages_per_head, closed[name], change[name]) for name, plan in plans.items()]


def _others(name: str, count: int, seed: int, not_seed: int) -> list[Item]:
    """Items that are not among those that the results are of."""
    taken = {item.prompt for item in registry.load(name, split="held-out", items=192, seed=not_seed)}
    drawn = registry.load(name, split="held-out", items=2 * count + 64, seed=seed)
    return [item for item in drawn if item.prompt not in taken][:count]


def table(what: str, rows: Sequence[Row], sets: Sequence[str]) -> list[str]:
    """A line for each row, in Markdown; `what` heads their names."""
    return [
        f"| {what} | {' | '.join(f'{name}: gap closed | NLL' for name in sets)} |",
        f"| --- | {' | '.join('---: | ---:' for _ in sets)} |",
        *(
            f"| {row.name} | {' | '.join(f'{row.closed[name]} | {row.change[name]}' for name in sets)} |"
            for row in rows
        ),
    ]


def page(rows: Sequence[Row], shares_LK: NDArray[np.float64], plan: MemoryPlan, arguments: argparse.Namespace) -> str:
    """The page, in Markdown."""
    sets = arguments.sets
    lines = [
        "# How many tokens each head keeps",
        "",
        f"`python -m bench.page_choice`, {heading()}. Adapter: {arguments.adapter}; {plan.tokens_per_memory} tokens "
        f"per KV head in the mean; shares over the references of {arguments.items} training items of each set; figures "
        f"of {arguments.items} held-out items, seed {arguments.seed}. Written by the script: do not edit it.",
        "",
        "Every memory below has the same size. *Gap closed* is the share of the way from no references to five as "
        "text; beside it the change of NLL against one page for each head, ± the standard error of the paired "
        "difference. *1 each, 1 by share*: every head has one page of half as many tokens, as many pages again go by "
        "share.",
        "",
        *table("pages", rows, sets),
        "",
        "Where the best tokens of a memory lie, in percent, and the pages that each table gives, head by head:",
        "",
        f"| layer | share | {' | '.join(row.name for row in rows[1:])} |",
        f"| ---: | --- | {' | '.join('---' for _ in rows[1:])} |",
    ]
    for place, layer in enumerate(plan.memory_layers):
        cells = [", ".join(f"{100 * share:.1f}" for share in shares_LK[place])]
        cells += [", ".join(map(str, row.pages[place])) for row in rows[1:]]
        lines.append(f"| {layer} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main(given: Sequence[str] | None = None) -> None:
    """Count, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", default="fiction,halueval,continuation", help="with given references (%(default)s)")
    parser.add_argument("--items", type=int, default=48, help="of each set and split (%(default)s)")
    parser.add_argument("--seed", type=int, default=101, help="of the samples (%(default)s)")
    parser.add_argument("--not-seed", type=int, default=7, help="whose items are left out (%(default)s)")
    parser.add_argument("--adapter", default="auto", help="folder of an adapter, none, or auto (%(default)s)")
    parser.add_argument("--tokens", type=int, default=8, help="per KV head in the mean (%(default)s)")
    parser.add_argument("--threads", type=int, default=1, help="of torch (%(default)s)")
    parser.add_argument("--plan", type=Path, help=f"also write the plan `{_CHOSEN}` to this file")
    parser.add_argument("--out", type=Path, default=Path("docs"), help="folder of the page (%(default)s)")
    arguments = parser.parse_args(given)
    arguments.sets = [name.strip() for name in arguments.sets.split(",")]
    try:
        settings = load_settings(EvaluationSettings).model_copy(
            update={"adapter": arguments.adapter, "torch_threads": arguments.threads, "dtype": "float32"}
        )
        checkpoint = load(settings, check(settings, Choices(tokens_per_memory=arguments.tokens)))
        one_each = checkpoint.checked.plan.unfitted()
        checkpoint = checkpoint.under(one_each)
        passages = [
            passage
            for name in arguments.sets
            for item in registry.load(name, split="train", items=arguments.items, seed=arguments.seed)
            for passage in item.passages
        ]
        shares_LK = shares(checkpoint, list(dict.fromkeys(passages)))
        plans: dict[str, MemoryPlan] = {"1 each": one_each} | {
            name: replace(one_each, pages_per_head=pages_by(shares_LK, each, by_share))
            for name, (each, by_share) in _TABLES.items()
        }
        if arguments.plan is not None:
            arguments.plan.write_text(plans[_CHOSEN].to_json() + "\n", encoding="utf-8")
        rows = measured(checkpoint, settings, plans, arguments)
    except (ValueError, DatasetError, OSError) as error:
        sys.exit(f"error: {error}")
    (arguments.out / "page-choice.md").write_text(page(rows, shares_LK, one_each, arguments), encoding="utf-8")
    print(f"written: {arguments.out / 'page-choice.md'}")


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
