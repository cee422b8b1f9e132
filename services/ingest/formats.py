"""Bytes of a file -> text and title. Knows plain text, Markdown and HTML, and no folders."""

from __future__ import annotations

import re
from dataclasses import dataclass

from bs4 import BeautifulSoup
from bs4.element import NavigableString, PageElement, Tag
from markdown_it import MarkdownIt

_DROPPED = ("script", "style", "noscript", "template", "svg", "nav", "head", "title", "iframe", "form")
_BLOCK_NAMES = (
    "address article aside blockquote dd details div dl dt figcaption figure footer h1 h2 h3 h4 h5 h6 header hr li "
    "main ol p pre section summary table tbody thead tr ul"
)
_BLOCKS = frozenset(_BLOCK_NAMES.split())
_FRONT_MATTER = re.compile(r"\A---\n.*?\n(?:---|\.\.\.)\n", re.DOTALL)
_BINARY_PROBE_BYTES = 8192


class UnreadableError(Exception):
    """The bytes are no text of ours; the message says what they are, where, and what to do."""


@dataclass(frozen=True)
class Extract:
    """What a file says."""

    text: str
    title: str


def decode(data: bytes) -> str:
    """UTF-8 with or without a byte order mark, newlines as "\\n". Raises UnreadableError naming the bad byte."""
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise UnreadableError("UTF-16 text; convert it to UTF-8 (iconv -f UTF-16 -t UTF-8)")
    zero = data.find(b"\0", 0, _BINARY_PROBE_BYTES)
    if zero >= 0:
        raise UnreadableError(f"binary file: byte 0x00 at offset {zero}; only text is ingested")
    mark = 3 if data.startswith(b"\xef\xbb\xbf") else 0
    try:
        text = data[mark:].decode("utf-8")
    except UnicodeDecodeError as error:
        offset = error.start + mark
        raise UnreadableError(
            f"not UTF-8: byte 0x{data[offset]:02x} at offset {offset}; convert it (iconv -f LATIN1 -t UTF-8)"
        ) from error
    return text.replace("\r\n", "\n").replace("\r", "\n")


def html(source: str) -> Extract:
    """The visible text of an HTML page, blocks set apart by blank lines."""
    # Text without any tag is taken for a mistaken file name by the library, which warns.
    soup = BeautifulSoup(source if "<" in source else f"<p>{source}</p>", "html.parser")
    title = soup.title.get_text(" ", strip=True) if soup.title else ""
    for tag in soup(list(_DROPPED)):
        tag.decompose()
    heading = soup.find(["h1", "h2"])
    if not title and heading is not None:
        title = heading.get_text(" ", strip=True)
    pieces: list[str] = []
    _collect(soup, pieces)
    return Extract(_tidy("".join(pieces)), title)


def markdown(source: str) -> Extract:
    """The visible text of a Markdown page; front matter is dropped."""
    return html(MarkdownIt("commonmark").enable("table").render(_FRONT_MATTER.sub("", source)))


def _collect(root: Tag, pieces: list[str]) -> None:
    # A stack in place of recursion: hostile pages nest deeper than Python's call stack.
    stack: list[tuple[PageElement | str, bool]] = [(root, False)]
    while stack:
        node, verbatim = stack.pop()
        if isinstance(node, Tag):
            if node.name == "br":
                pieces.append("\n")
                continue
            around = "\n\n" if node.name in _BLOCKS else " " if node.name in ("td", "th") else ""
            inside = verbatim or node.name == "pre"
            stack.append((str(around), verbatim))
            stack.extend((child, inside) for child in reversed(node.contents))
            stack.append((str(around), verbatim))
        elif type(node) is str:
            pieces.append(node)
        elif type(node) is NavigableString:  # comments, doctypes and the like are its subclasses
            pieces.append(str(node) if verbatim else re.sub(r"\s+", " ", node))


def _tidy(text: str) -> str:
    lines = [re.sub(r"[ \t]+", " ", line).strip() for line in text.split("\n")]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip()
