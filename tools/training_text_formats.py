"""Formats of prose inside packages, each to paragraphs: HTML, page XML, plain text, dictd, R data, SWORD, Wesnoth.

A reader takes a file and gives (name, text) pairs; a text has one paragraph or heading a line, white space normalised.
Nothing here filters or fetches.
"""

from __future__ import annotations

import gzip
import html
import re
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

from bs4 import BeautifulSoup

DROPPED = (
    "head, script, style, nav, header, footer, pre, info, comment, screen, listing, code[mime], figure, sup,"
    " .navheader, .navfooter, .book-navigation, .page-links, .docnav, #title, .toc, .indexterm, .list-of-figures,"
    " .programlisting, .screen, .literallayout, .highlight, .sphinxsidebar, .related, .headerlink, .footnotes, .footer,"
    " .mediaobject, .refsynopsisdiv, .synopsis, .funcsynopsis, .revhistory, .authorgroup, .copyright, .legalnotice,"
    " .figure, .table, .example, .informaltable, .informalexample, .list-of-tables, .url,"
    " .note h3, .tip h3, .caution h3, .warning h3, .important h3"
)
BLOCKS = "h1, h2, h3, h4, h5, h6, title, dt, p, div.para, li, dd"
LEVELS = {"h1": 1, "h2": 2, "h3": 3, "h4": 4, "h5": 5, "h6": 6, "title": 6, "dt": 7}  # anything else is a paragraph: 0
CITATION = re.compile(r"\s*\[[^\[\]]{0,160}?(\bpp?\. ?[\dxvi]|[Oo]p\. ?[Cc]it|[Ii]bid)[^\[\]]*\]")
MARKUP = re.compile(r"<[^>]*>")
CHAPTER = re.compile(r"(?=^(?:CHAPTER|Chapter) [\dIVXLC]+)", re.MULTILINE)
AUDIENCE = re.compile(r"\s*[\[(](laughter|applause)[^\])]{0,40}[\])]", re.IGNORECASE)
VOLUME_END = re.compile(r"(\n(VOLUME|Volume|FINIS|THE END|END OF|Finis|The End)\b[^\n]{0,30})+$")
DICTD_DIGITS = {digit: i for i, digit in enumerate("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/")}
MIN_ENTRY = 400  # characters of a dictionary entry worth keeping
STR_VECTOR, STR_HEADER = b"\x00\x00\x00\x10", 8  # R's serialisation: a character vector, each string after 8 bytes


def read_maybe_gzip(path: Path) -> str:
    """The text of a file that may be compressed."""
    raw = path.read_bytes()
    return (gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw).decode("utf-8", errors="replace")


def one_line(text: str) -> str:
    """White space normalised, entities and stress marks resolved, no space before a stop; empty without a letter."""
    line = re.sub(r"(?<!\w)_([^_]+)_(?!\w)", r"\1", " ".join(html.unescape(text).split()))
    return re.sub(r" ([.,;:)])(?= |$)", r"\1", line) if any(map(str.isalpha, line)) else ""


def text_paragraphs(text: str) -> list[str]:
    """Plain text: paragraphs are parted by blank lines."""
    return [line for part in re.split(r"\n\s*\n", text) if (line := one_line(part))]


def html_paragraphs(markup: str, layout_tables: bool = False) -> list[str]:
    """Paragraphs and headings of HTML or page XML, without tables, code, navigation and headings that head nothing.

    `layout_tables`: the page stands in a table, so tables are kept and centred lines are furniture.
    """
    soup = BeautifulSoup(re.sub(r"^\s*<\?xml[^>]*>", "", markup), "html.parser")
    for element in soup.select(f'{DROPPED}, p[align="center" i]' if layout_tables else f"{DROPPED}, table"):
        element.decompose()
    found: list[tuple[int, str]] = []  # level (0: paragraph), text; last first
    for element in reversed(soup.select(BLOCKS)):  # inner before outer, so that an outer one keeps what is its own
        level = LEVELS.get(element.name, 0)
        text = one_line(element.get_text().strip("¶# \n"))
        element.decompose()
        heads_nothing = level > 0 and (not found or 0 < found[-1][0] <= level)
        if text and not heads_nothing:
            found.append((level, text))
    return [text for _, text in reversed(found)]


def dictd_entry(entry: str) -> tuple[str, str]:
    """Headword line and body of a dictd entry; cross-references lose their braces."""
    head, _, body = entry.partition("\n\n")
    body = re.sub(r"\{([^{}]*)\}", lambda link: " ".join(link.group(1).split()), body)
    return one_line(head), "\n".join(text_paragraphs(body))


def read_html(path: Path, citations: bool = False, layout_tables: bool = False) -> Iterator[tuple[str, str]]:
    """A page; `citations`: take out references to pages of books in square brackets."""
    raw = path.read_bytes()
    is_latin = b"charset=iso-8859-1" in raw[:2000].lower() or b"charset=windows-1252" in raw[:2000].lower()
    text = "\n".join(html_paragraphs(raw.decode("cp1252" if is_latin else "utf-8", "replace"), layout_tables))
    yield path.stem, CITATION.sub("", text) if citations else text


def read_text(path: Path) -> Iterator[tuple[str, str]]:
    """A plain text, one document, without the audience."""
    yield path.stem, "\n".join(text_paragraphs(AUDIENCE.sub("", path.read_text(encoding="utf-8"))))


def read_dictd(path: Path) -> Iterator[tuple[str, str]]:
    """The long entries of a dictionary (`path`: its index), one document for each initial."""
    data = gzip.decompress(path.with_suffix(".dict.dz").read_bytes())
    entries = [line.split("\t") for line in path.read_text(encoding="utf-8").splitlines()]
    places = {tuple(map(dictd_number, numbers[:2])) for word, *numbers in entries if not word.startswith("00")}
    for offset, size in sorted(places):
        head, body = dictd_entry(data[offset : offset + size].decode("utf-8", errors="replace"))
        if len(body) >= MIN_ENTRY and head[:1].isalpha():
            yield head[0].lower(), f"{head}\n{body}"


def dictd_number(digits: str) -> int:
    """A number of a dictd index, to base 64."""
    number = 0
    for digit in digits:
        number = number * 64 + DICTD_DIGITS[digit]
    return number


def read_r_data(path: Path) -> Iterator[tuple[str, str]]:
    """Books kept as character vectors of lines in R's lazy-load data, one document for each chapter."""
    data = path.read_bytes()
    while data:
        unpacker = zlib.decompressobj()
        vector = unpacker.decompress(data[4:])
        data = unpacker.unused_data
        lines = r_strings(vector)
        title = next((line for line in lines if line.strip()), "")
        for number, chapter in enumerate(CHAPTER.split("\n".join(lines))[1:], 1):
            yield f"{title} {number:02}", VOLUME_END.sub("", "\n".join(text_paragraphs(chapter)))


def r_strings(vector: bytes) -> list[str]:
    """The first character vector of an object in R's binary serialisation."""
    at = vector.find(STR_VECTOR)
    if at < 0:
        return []
    (num_strings,) = struct.unpack_from(">i", vector, at + 4)
    at += 8
    strings = []
    for _ in range(num_strings):
        (size,) = struct.unpack_from(">i", vector, at + 4)
        at += STR_HEADER
        strings.append(vector[at : at + max(size, 0)].decode("utf-8", errors="replace"))
        at += max(size, 0)
    return strings


def osis_paragraphs(markup: str) -> list[str]:
    """Paragraphs of OSIS markup, without notes and editors' marks."""
    markup = re.sub(
        r"<note\b.*?</note>|<milestone\b[^>]*>|(?<=</title>)\s*<title\b[^>]*>", " ", markup, flags=re.DOTALL
    )
    markup = re.sub(r"</title>(?= *[^<\s])", " ", markup)
    markup = re.sub(r'<div [^>]*type="x-p"[^>]*>|<(/?title|chapter|/?lg)\b[^>]*>', "\n\n", markup)
    return text_paragraphs(MARKUP.sub("", re.sub(r"<(l|/l|verse)\b[^>]*>", " ", markup)))


def read_sword(path: Path) -> Iterator[tuple[str, str]]:
    """The books of a SWORD module compressed book by book (`path`: the .bzz file of one testament)."""
    data, blocks = path.read_bytes(), path.with_suffix(".bzs").read_bytes()
    for number, (offset, size, _) in enumerate(struct.iter_unpack("<III", blocks)):
        text = zlib.decompress(data[offset : offset + size]).decode("utf-8", errors="replace")
        yield f"{path.stem} {number:02}", "\n".join(osis_paragraphs(text))


def read_wesnoth(path: Path) -> Iterator[tuple[str, str]]:
    """The story and the dialogue of a scenario, in order, each speech after its speaker's name; no variables."""
    fields = re.finditer(
        r'^\s*(speaker|role|id)=(?P<who>[^\n"{$]+)$|\b(story|message)\s*=\s*_\s*"(?P<said>(?:[^"$]|"")*)"'
        r'|^\s*name\s*=\s*_\s*"(?P<title>[^"\n]+)"|(?P<end>\[/?message\])',
        path.read_text(encoding="utf-8"), re.MULTILINE,
    )  # fmt: skip
    speaker = ""
    lines: list[str] = []
    for field in fields:
        if field["end"]:
            speaker = ""
        elif field["who"]:
            speaker = field["who"].strip()
        elif field["title"] and not lines:
            lines.append(one_line(field["title"].split("^")[-1]))
        elif field["said"] and (said := one_line(MARKUP.sub("", field["said"].split("^")[-1].replace('""', '"')))):
            lines.append(f"{speaker}: {said}" if field[3] == "message" and speaker[:1].isupper() else said)
    yield f"{path.parts[-3]} {path.stem}", "\n".join(dict.fromkeys(lines))
