"""Paths and corpus names -> documents with stable ids, one after the other.

What cannot be read becomes a `BadInput` in the same stream, so that the rest goes on. Knows no tokens and no services.
Memory is bounded: one document at a time, none larger than the limit; JSONL is read line by line.
"""

from __future__ import annotations

import fnmatch
import json
import os
import re
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from services.ingest import corpora, formats
from services.ingest.formats import Extract, UnreadableError

MARKDOWN = frozenset([".md", ".markdown"])
HTML = frozenset([".html", ".htm", ".xhtml"])
JSONL = frozenset([".jsonl", ".ndjson"])
TEXT = frozenset([".txt", ".text", ".rst"])
MAX_ID_BYTES = 1024
"""Longest document id the index takes, in UTF-8."""
MAX_TITLE_CHARACTERS = 200
"""Titles are for people; longer ones are shortened."""
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


@dataclass(frozen=True)
class SourceDocument:
    """One document as it was read. `num_bytes` is its share of the input, for the progress bar."""

    document_id: str
    title: str
    source: str
    text: str
    num_bytes: int = 0


@dataclass(frozen=True)
class BadInput:
    """One input that gave no document. `harmless`: nothing to ingest, and no failure (an empty file)."""

    source: str
    reason: str
    harmless: bool = False
    num_bytes: int = 0


@dataclass(frozen=True)
class Selection:
    """What to read: paths and corpus names, and how."""

    inputs: Sequence[str]
    glob: str | None = None
    id_prefix: str = ""
    limit: int | None = None
    max_document_bytes: int = 16 * 1024 * 1024


def read(selection: Selection) -> Iterator[SourceDocument | BadInput]:
    """Every document of the selection, in a stable order."""
    taken = 0
    for item in _all(selection):
        if isinstance(item, SourceDocument):
            if taken == selection.limit:
                return
            taken += 1
        yield item


def total_bytes(selection: Selection) -> int:
    """Size of all that `read` would read, for the progress bar; unreadable inputs count nothing."""
    total = 0
    for name in selection.inputs:
        if corpora.is_corpus(name):
            try:
                total += sum(len(article.text) for article in corpora.articles(name))
            except corpora.CorpusError:
                continue
            continue
        for path in _files(Path(name), selection.glob):
            try:
                total += path.stat().st_size
            except OSError:
                continue
    return total


def _all(selection: Selection) -> Iterator[SourceDocument | BadInput]:
    visited: set[str] = set()
    for name in selection.inputs:
        if corpora.is_corpus(name):
            yield from _corpus(name, selection)
            continue
        path = Path(name)
        try:
            path.stat()
        except (OSError, ValueError) as error:
            yield BadInput(name, getattr(error, "strerror", None) or str(error))
            continue
        found = False
        for file in _files(path, selection.glob):
            found = True
            real = os.path.realpath(file)
            if real not in visited:
                visited.add(real)
                yield from _file(file, selection)
        if not found:
            yield BadInput(name, "no text, Markdown, HTML or JSONL file in this folder; name files or use --glob")


def _corpus(name: str, selection: Selection) -> Iterator[SourceDocument | BadInput]:
    try:
        for article in corpora.articles(name):
            extract = Extract(article.text, article.title)
            source = f"{name}/{article.key}"
            yield from _checked(selection.id_prefix + article.key, extract, source, num_bytes=len(article.text))
    except corpora.CorpusError as error:
        yield BadInput(name, str(error))


def _files(path: Path, glob: str | None) -> Iterator[Path]:
    """The file itself, or the files of a folder and those below that we can read; hidden ones are left out."""
    if not path.is_dir():
        yield path
        return
    for folder, subfolders, names in os.walk(path):
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        for name in sorted(names):
            file = Path(folder) / name
            inside = file.relative_to(path).as_posix()
            if glob is not None:
                wanted = fnmatch.fnmatch(inside, glob) or fnmatch.fnmatch(name, glob)
            else:
                wanted = file.suffix.lower() in MARKDOWN | HTML | JSONL | TEXT
            if wanted and not name.startswith("."):
                yield file


def _name(path: Path) -> str:
    """The path from the working folder, or the whole path of what lies outside: stable, and short where it can be."""
    whole = Path(os.path.abspath(path))  # noqa: PTH100 - resolve() would follow links and rename what the user named
    here = Path.cwd()
    return (whole.relative_to(here) if whole.is_relative_to(here) else whole).as_posix()


def _file(path: Path, selection: Selection) -> Iterator[SourceDocument | BadInput]:
    name = _name(path)
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        yield BadInput(repr(name), "its name is not UTF-8; rename it")
        return
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            yield BadInput(name, "not a regular file")
            return
        with path.open("rb") as file:
            if path.suffix.lower() in JSONL:
                yield from _json_lines(file, name, selection)
                return
            data = file.read(selection.max_document_bytes + 1)
    except OSError as error:
        yield BadInput(name, error.strerror or str(error))
        return
    if len(data) > selection.max_document_bytes:
        yield BadInput(name, _too_large(status.st_size, selection), num_bytes=status.st_size)
        return
    try:
        extract = _extract(path, data)
    except UnreadableError as error:
        yield BadInput(name, str(error), num_bytes=len(data))
        return
    yield from _checked(selection.id_prefix + name, extract, name, num_bytes=len(data))


def _too_large(size: int, selection: Selection) -> str:
    return (
        f"{size} bytes, more than the limit of {selection.max_document_bytes} bytes for one document; "
        "split it or raise MEMORY3_INGEST_MAX_DOCUMENT_BYTES"
    )


def _extract(path: Path, data: bytes) -> Extract:
    text = formats.decode(data)
    suffix = path.suffix.lower()
    found = Extract(text, "")
    if suffix in HTML:
        found = formats.html(text)
    elif suffix in MARKDOWN:
        found = formats.markdown(text)
    return Extract(found.text, found.title or path.stem)


def _checked(
    document_id: str, extract: Extract, source: str, *, num_bytes: int, place: str | None = None
) -> Iterator[SourceDocument | BadInput]:
    """The document, unless it says nothing or cannot be named."""
    place = place or source
    size = len(document_id.encode("utf-8"))
    if not extract.text.strip():
        yield BadInput(place, "empty: nothing to ingest", harmless=True, num_bytes=num_bytes)
    elif size > MAX_ID_BYTES:
        yield BadInput(
            place, f"its document id has {size} bytes, more than {MAX_ID_BYTES}; shorten it", num_bytes=num_bytes
        )
    elif _CONTROL.search(document_id):
        yield BadInput(repr(place), "its document id has control characters; rename it", num_bytes=num_bytes)
    else:
        title = " ".join(extract.title.split())[:MAX_TITLE_CHARACTERS]
        yield SourceDocument(document_id, title, source[:MAX_ID_BYTES], extract.text, num_bytes)


def _json_lines(file: BinaryIO, name: str, selection: Selection) -> Iterator[SourceDocument | BadInput]:
    number = 0
    anything = False
    while line := file.readline(selection.max_document_bytes + 1):
        number += 1
        place = f"{name}:{number}"
        size = len(line)
        if size > selection.max_document_bytes:
            while line and not line.endswith(b"\n"):
                line = file.readline(selection.max_document_bytes)
                size += len(line)
            yield BadInput(place, "line of " + _too_large(size, selection), num_bytes=size)
            continue
        if number == 1 and b"\0" in line:
            yield BadInput(name, f"binary file: byte 0x00 at offset {line.find(0)}; only text is ingested")
            return
        if line.strip():
            anything = True
            yield from _json_line(line, name, place, selection)
    if not anything and number == 0:
        yield BadInput(name, "empty: nothing to ingest", harmless=True)


def _json_line(line: bytes, name: str, place: str, selection: Selection) -> Iterator[SourceDocument | BadInput]:
    try:
        value = json.loads(formats.decode(line))
        if not isinstance(value, dict):
            raise UnreadableError(f'a JSON {type(value).__name__}; each line is an object such as {{"text": "..."}}')
        fields = {key: _text_field(value, key) for key in ("text", "id", "title", "source")}
    except UnreadableError as error:
        yield BadInput(place, str(error), num_bytes=len(line))
        return
    except (ValueError, RecursionError) as error:
        yield BadInput(place, f"not JSON: {error}", num_bytes=len(line))
        return
    if fields["text"] is None:
        yield BadInput(place, 'no "text"; each line is an object such as {"text": "..."}', num_bytes=len(line))
        return
    document_id = selection.id_prefix + (fields["id"] or fields["source"] or place)
    extract = Extract(fields["text"], fields["title"] or "")
    yield from _checked(document_id, extract, fields["source"] or name, num_bytes=len(line), place=place)


def _text_field(value: dict[str, object], key: str) -> str | None:
    """A string (a number for `id`) or None. Raises UnreadableError for another type or a lone surrogate."""
    found = value.get(key)
    if key == "id" and isinstance(found, int) and not isinstance(found, bool):
        found = str(found)
    if found is None:
        return None
    if not isinstance(found, str):
        raise UnreadableError(f'"{key}" is a {type(found).__name__}; give text')
    try:
        found.encode("utf-8")
    except UnicodeEncodeError as error:
        raise UnreadableError(f'"{key}" holds a lone surrogate at character {error.start}; no valid Unicode') from error
    return found
