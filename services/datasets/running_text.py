"""General running text for training: documents as lists of neighbouring chunks."""

from __future__ import annotations

from services.datasets import halueval, wikipedia
from services.datasets.draw import Draw
from services.datasets.item import Split
from services.datasets.lengths import REFERENCE_TOKENS, chunks


def text_chunks(split: Split, seed: int, *, tokens: int = REFERENCE_TOKENS) -> list[list[str]]:
    """Every document of the split in an order drawn by seed, each in chunks of whole sentences of at most `tokens`.

    Wikipedia leads and HaluEval's passages. Raises DatasetError if their packages are missing or damaged.
    """
    texts = [document.text for document in wikipedia.leads() if wikipedia.split_of_lead(document) == split]
    texts += halueval.passages(split)
    cut = (chunks(text, tokens) for text in Draw("text", split, seed).shuffled(texts))
    return [pieces for pieces in cut if pieces]
