"""Shows items of a set, or writes its knowledge base: `python -m services.datasets --set fiction --items 3`."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path

import click

from services.datasets import registry
from services.datasets.item import SPLITS, DatasetError, Item, Split


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--set", "name", required=True, type=click.Choice(registry.names()), help="Which set.")
@click.option("--split", type=click.Choice(SPLITS), default="held-out", show_default=True)
@click.option("--items", type=click.IntRange(min=1), default=3, show_default=True, help="How many to show.")
@click.option("--seed", type=int, default=0, show_default=True, help="Another seed gives other items.")
@click.option("--references", type=click.IntRange(min=1), default=5, show_default=True, help="References of an item.")
@click.option("--cache", type=click.Path(file_okay=False, path_type=Path), help="Folder for what takes long to make.")
@click.option("--knowledge-base", "base", is_flag=True, help="Write the set's knowledge base instead, as JSONL.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
def main(
    *,
    name: str,
    split: Split,
    items: int,
    seed: int,
    references: int,
    cache: Path | None,
    base: bool,
    as_json: bool,
) -> None:
    """Show items of a question set, as evaluation and training get them.

    \b
    Examples:
      python -m services.datasets --set fiction --items 3
      python -m services.datasets --set halueval --split train --seed 5 --json
      python -m services.datasets --set licences --knowledge-base > licences.jsonl
      memory3 ingest licences.jsonl --bank licences --memories cold
    """
    try:
        if base:
            for document in registry.knowledge_base(name).documents:
                entry = {"id": document.document_id, "title": document.title, "text": document.text}
                click.echo(json.dumps(entry, ensure_ascii=False))
            return
        found = registry.load(name, split=split, items=items, seed=seed, references=references, cache_dir=cache)
    except DatasetError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(1)
    for item in found:
        click.echo(json.dumps(dataclasses.asdict(item), ensure_ascii=False) if as_json else _shown(item))


def _shown(item: Item) -> str:
    lines = [f"{item.item_id} ({item.kind})"]
    for place, reference in enumerate(item.references):
        lines.append(f"  {'gold' if place in item.gold else '    '} [{place}] {reference}")
    lines += [f"  prompt  {item.prompt!r}", f"  answer  {item.answer!r}"]
    if item.choices:
        lines.append(f"  choices {' | '.join(map(repr, item.choices))}")
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    main(prog_name="python -m services.datasets")
