"""Which tokens of a reference contexts need: trains the token scorer of selection "trained", and shows what it gives.

    python tools/training_texts.py --out runs/texts         # first: long texts to go on with
    python -m bench.token_choice                            # the shipped adapter: about an hour of one core
    python -m bench.token_choice --scale 0.05 --items 4     # does it run
    python -m bench.token_choice --out-scorer runs/scorer   # and writes token_scorer.safetensors and memory_plan.json

Contexts of training items read memories that keep every token; the gradient at each token's score tells what it was
worth (model/training/token_needs.py), and a linear function of the token learns to tell it beforehand
(token_scorer_fit.py). Three uses count alike: questions of HaluEval, invented facts, texts to go on with. What is
gained is then measured on held-out items of a seed of its own; nothing was fitted to news and to Wikipedia. (Figures to
believe are those of docs/results.md: the share of weights that is kept was chosen on items of this seed.)
"""

from __future__ import annotations

import argparse
import os
import random
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from bench.machine import heading
from bench.page_choice import Row, measured, table
from model.adapter import PLAN_FILE
from model.plan import MemoryPlan
from model.prefix import encode_prefix
from model.token_scorer import TOKEN_SCORER_FILE, TokenScorer
from model.training.token_needs import TokenNeeds, joined, measure_needs
from model.training.token_scorer_fit import KEPT_SHARE, fit_token_scorer
from services.common.config import load as load_settings
from services.datasets import registry
from services.datasets.item import DatasetError, Item
from services.evaluation.config import EvaluationSettings
from services.evaluation.loading import Checkpoint, Choices, check, load
from services.training.examples import ExampleBuilder, batch_of
from services.training.sources import nearest_items, share_references
from services.training.text_items import long_text_items, read_folder

_TOGETHER = 5
"""Items that share their references, each the others' distractors."""
_HALUEVAL, _FACTS, _TEXTS = 800, 450, 110
"""Items."""
_SEED, _TEXT_SEED, _DRAW_SEED = 4242, 77, 5
_LABELS = {"reconstruction": "by reconstruction", "trained": "by the token scorer"}


def questions(count: int) -> list[list[Item]]:
    """Of HaluEval: each with four whose references are most like its own."""
    items = registry.load("halueval", split="train", items=7313, seed=_SEED)
    near, draw = nearest_items(items), random.Random(_DRAW_SEED)
    firsts = draw.sample(range(len(items)), max(1, count // _TOGETHER))
    groups = [[items[first], *(items[p] for p in draw.sample(list(near[first]), _TOGETHER - 1))] for first in firsts]
    return [share_references(group, _TOGETHER, draw) for group in groups]


def facts(count: int) -> list[list[Item]]:
    """Invented, of one kind each."""
    kinds: dict[str, list[Item]] = {}
    for item in registry.load("fiction", split="train", items=count, seed=_SEED):
        kinds.setdefault(item.kind, []).append(item)
    groups = [
        of_kind[start : start + _TOGETHER]
        for of_kind in kinds.values()
        for start in range(0, len(of_kind) - _TOGETHER + 1, _TOGETHER)
    ]
    draw = random.Random(_DRAW_SEED)
    draw.shuffle(groups)
    return [share_references(group, _TOGETHER, draw) for group in groups]


def texts(count: int, folder: Path) -> list[list[Item]]:
    """Each with its neighbours."""
    return [[item] for item in long_text_items(read_folder(folder), count, seed=_TEXT_SEED, references=_TOGETHER)]


def seen(checkpoint: Checkpoint, use: str, groups: Sequence[Sequence[Item]]) -> TokenNeeds:
    """What the contexts of all groups need."""
    plan, transformer, tokenizer = checkpoint.checked.plan, checkpoint.transformer, checkpoint.tokenizer
    transformer.requires_grad_(False)
    prefix = encode_prefix(transformer, tokenizer.encode_special(plan.prefix))
    builder = ExampleBuilder(tokenizer, plan)

    def parts() -> Iterator[TokenNeeds]:
        for place, group in enumerate(groups):
            batch = batch_of([builder.build(item, "memory") for item in group], plan.tokens_per_memory)
            yield measure_needs(transformer, plan, prefix, batch)
            if place % 10 == 9:
                print(f"{use}: {place + 1} of {len(groups)}", file=sys.stderr, flush=True)

    return joined(list(parts()))


def trained(checkpoint: Checkpoint, arguments: argparse.Namespace) -> tuple[TokenScorer, dict[str, TokenNeeds]]:
    """The scorer, and what it was fitted to."""
    scale: float = arguments.scale
    groups = {
        "questions": questions(round(scale * _HALUEVAL)),
        "facts": facts(round(scale * _FACTS)),
        "texts": texts(max(1, round(scale * _TEXTS)), arguments.texts),
    }
    needs = {use: seen(checkpoint, use, of_use) for use, of_use in groups.items()}
    scorer = fit_token_scorer(
        list(needs.values()),
        lambda done, total: print(f"layers fitted: {done} of {total}", file=sys.stderr, flush=True),
    )
    return scorer, needs


def page(rows: Sequence[Row], needs: dict[str, TokenNeeds], arguments: argparse.Namespace, scorer: TokenScorer) -> str:
    """The page, in Markdown."""
    told = ", ".join(f"{len(one.lengths)} references of {use}" for use, one in needs.items())
    lines = [
        "# Which tokens a memory keeps",
        "",
        f"`python -m bench.token_choice`, {heading()}. Adapter: {arguments.adapter}; token scorer {scorer.identity}, "
        f"fitted to {told} ({sum(sum(one.lengths) for one in needs.values())} tokens), {KEPT_SHARE:.0%} of its weights "
        f"kept; figures of {arguments.items} held-out items, seed {arguments.seed}. Written by the script: do not edit "
        "it.",
        "",
        "Memories below have the same pages and size, and differ in the tokens that are kept. *Gap closed* is the "
        "share of the way from no references to five as text; beside it the change of NLL against the choice by "
        "reconstruction, ± the standard error of the paired difference.",
        "",
        *table("tokens chosen", rows, arguments.sets),
    ]
    return "\n".join(lines) + "\n"


def main(given: Sequence[str] | None = None) -> None:
    """Train, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", default="fiction,halueval,continuation,wikipedia-near", help="(%(default)s)")
    parser.add_argument("--items", type=int, default=48, help="measured of each set (%(default)s)")
    parser.add_argument("--seed", type=int, default=101, help="of the measured items (%(default)s)")
    parser.add_argument("--not-seed", type=int, default=7, help="whose items are left out (%(default)s)")
    parser.add_argument("--scale", type=float, default=1.0, help="share of the training items (%(default)s)")
    parser.add_argument("--texts", type=Path, default=Path("runs/texts"), help="folder of long texts (%(default)s)")
    parser.add_argument("--adapter", default="auto", help="folder of an adapter, or auto (%(default)s)")
    parser.add_argument("--threads", type=int, default=1, help="of torch (%(default)s)")
    parser.add_argument("--out-scorer", type=Path, help="folder for the scorer and the plan that names it")
    parser.add_argument("--out", type=Path, default=Path("docs"), help="folder of the page (%(default)s)")
    arguments = parser.parse_args(given)
    arguments.sets = [name.strip() for name in arguments.sets.split(",")]
    try:
        settings = load_settings(EvaluationSettings).model_copy(
            update={"adapter": arguments.adapter, "torch_threads": arguments.threads, "dtype": "float32"}
        )
        checkpoint = load(settings, check(settings, Choices()))
        plan = checkpoint.checked.plan
        by_reconstruction = replace(plan, selection="reconstruction", token_scorer="")
        checkpoint = checkpoint.under(by_reconstruction)
        scorer, needs = trained(checkpoint, arguments)
        by_scorer = replace(plan, selection="trained", token_scorer=scorer.identity)
        if arguments.out_scorer is not None:
            _write(arguments.out_scorer, scorer, by_scorer)
        checkpoint.transformer.token_scorer = scorer
        plans = {_LABELS[one.selection]: one for one in (by_reconstruction, by_scorer)}
        rows = measured(checkpoint, settings, plans, arguments)
    except (ValueError, DatasetError, OSError) as error:
        sys.exit(f"error: {error}")
    (arguments.out / "token-choice.md").write_text(page(rows, needs, arguments, scorer), encoding="utf-8")
    print(f"written: {arguments.out / 'token-choice.md'}")


def _write(folder: Path, scorer: TokenScorer, plan: MemoryPlan) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    scorer.save(folder / TOKEN_SCORER_FILE)
    (folder / PLAN_FILE).write_text(plan.to_json() + "\n", encoding="utf-8")


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
