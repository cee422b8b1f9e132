"""The quality of the shipped checkpoint on every set, beside the model as published: docs/results/ and docs/results.md.

    python -m bench.results                  # runs what docs/results/ lacks, then writes the page
    python -m bench.results --again fiction  # measures these once more
    python -m bench.results --jobs 8         # eight at once, on a large machine

Each run is one call of `memory3 eval`, so every figure of the page can be had alone by the command beside it.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bench.paired import LIMIT, change

FOLDER = Path(__file__).parents[1] / "docs" / "results"
PAGE = FOLDER.parent / "results.md"
ALL = "none,rag,rag-gold,rag-wrong,memory,memory-wrong,rag+memory"
FOUR = "none,rag,memory,memory-wrong"
FIVE = "none,rag,rag-wrong,memory,memory-wrong"
UNTRAINED = ("--adapter", "none")


@dataclass(frozen=True)
class Run:
    """One call of `memory3 eval`."""

    name: str
    set: str
    items: int
    modes: str = FOUR
    options: tuple[str, ...] = ()

    @property
    def command(self) -> list[str]:
        """As one would type it."""
        return [
            "eval",
            "--set",
            self.set,
            "--items",
            str(self.items),
            "--seed",
            "7",
            "--modes",
            self.modes,
            *self.options,
        ]


def _tokens(kept: int) -> tuple[str, ...]:
    return ("--tokens-per-memory", str(kept), "--no-generate")


RUNS = (
    Run("fiction", "fiction", 192, FIVE, _tokens(8)),
    Run("halueval", "halueval", 192, FIVE, _tokens(8)),
    Run("continuation", "continuation", 96, FIVE, _tokens(8)),
    Run("fiction-16", "fiction", 96, FOUR, _tokens(16)),
    Run("halueval-16", "halueval", 96, FOUR, _tokens(16)),
    Run("continuation-16", "continuation", 96, FOUR, _tokens(16)),
    Run("fiction-untrained-8", "fiction", 192, FOUR, (*UNTRAINED, *_tokens(8))),
    Run("halueval-untrained-8", "halueval", 192, FOUR, (*UNTRAINED, *_tokens(8))),
    Run("continuation-untrained-8", "continuation", 96, FOUR, (*UNTRAINED, *_tokens(8))),
    Run("fiction-untrained-16", "fiction", 192, FOUR, (*UNTRAINED, *_tokens(16))),
    Run("halueval-untrained-16", "halueval", 192, FOUR, (*UNTRAINED, *_tokens(16))),
    Run("continuation-untrained-16", "continuation", 96, FOUR, (*UNTRAINED, *_tokens(16))),
    Run("fiction-all-modes", "fiction", 48, ALL),
    Run("halueval-all-modes", "halueval", 48, ALL),
    Run("halueval-choice", "halueval-choice", 48, FOUR, ("--no-generate",)),
    Run("phenotypes", "phenotypes", 32, FOUR, ("--no-generate",)),
    Run("licences", "licences", 64, FOUR, ("--no-generate", "--retrieval", "start")),
    Run("wikipedia", "wikipedia", 48, FOUR, ("--retrieval", "start")),
    Run("wikipedia-near", "wikipedia-near", 96, FOUR),
)


_COST_MODES = ("none", "rag")
COSTS = {
    run.set: (
        Run(f"cost-{run.set}-untrained", run.set, run.items, ",".join(_COST_MODES), (*UNTRAINED, "--no-generate")),
        run,
    )
    for run in RUNS
    if run.name in {"fiction", "halueval", "continuation"}
}
"""Set -> a run without the adapter and one with it, of the same 96 items."""


def main() -> None:
    """Run and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--again", nargs="*", default=[], metavar="NAME", help="measure these though they are there")
    parser.add_argument("--only", nargs="*", default=[], metavar="NAME", help="measure no others")
    parser.add_argument("--jobs", type=int, default=1, help="runs at once (%(default)s)")
    given = parser.parse_args()
    FOLDER.mkdir(exist_ok=True)
    runs = dict.fromkeys((*RUNS, *(run for pair in COSTS.values() for run in pair)))
    wanted = [
        run
        for run in runs
        if (run.name in given.again or not _file(run).exists()) and (not given.only or run.name in given.only)
    ]
    with ThreadPoolExecutor(given.jobs) as pool:
        # A list, so that what a run raised is raised here.
        list(pool.map(_measure, wanted))
    reports = {run.name: json.loads(_file(run).read_text()) for run in runs if _file(run).exists()}
    PAGE.write_text(_page(reports), encoding="utf-8")
    print(f"wrote {PAGE}", file=sys.stderr)


def _file(run: Run) -> Path:
    return FOLDER / f"{run.name}.json"


def _measure(run: Run) -> None:
    print(f"memory3 {' '.join(run.command)}", file=sys.stderr, flush=True)
    command = [sys.executable, "-m", "memory3.cli", *run.command, "--json"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    _file(run).write_text(json.dumps(json.loads(done.stdout), indent=1) + "\n", encoding="utf-8")


def _page(reports: dict[str, dict[str, Any]]) -> str:
    parts = [(FOLDER / "opening.md").read_text(encoding="utf-8").rstrip(), _summary(reports), _costs(reports)]
    parts += [_section(run, reports[run.name]) for run in RUNS if run.name in reports]
    parts.append((FOLDER / "closing.md").read_text(encoding="utf-8").rstrip())
    return "\n\n".join(filter(None, parts)) + "\n"


def _summary(reports: dict[str, dict[str, Any]]) -> str:
    """Share of the gap between nothing and text that memories close, by set, checkpoint and kept tokens."""
    rows = [
        "| set | untrained, 8 tokens | untrained, 16 | trained, 8 tokens | trained, 16 |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for name in ("fiction", "halueval", "continuation"):
        cells = [_gap(reports.get(key)) for key in (f"{name}-untrained-8", f"{name}-untrained-16", name, f"{name}-16")]
        rows.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(["## Share of the none-to-RAG gap that memories close", "", *rows])


def _gap(report: dict[str, Any] | None) -> str:
    figures = report["modes"].get("memory", {}) if report else {}
    if figures.get("gap_closed") is None:
        return "-"
    return f"{figures['gap_closed']:.0%} ({figures['gap_closed_low']:.0%} to {figures['gap_closed_high']:.0%})"


def _costs(reports: dict[str, dict[str, Any]]) -> str:
    """What the adapter takes from the model where no memory is read."""
    rows = []
    for name, (without, with_it) in COSTS.items():
        if without.name not in reports or with_it.name not in reports:
            continue
        for mode in _COST_MODES:
            found = change(reports[without.name], reports[with_it.name], mode)
            rows.append(
                f"| {name} | `{mode}` | {found.items} | {found.before:.3f} | {found.after:.3f} | "
                f"{found.share:+.1%} ± {found.share_se:.1%} | {found.verdict} |"
            )
    if not rows:
        return ""
    lines = [
        "## What the adapter costs where it is not needed",
        "",
        "The same items without and with the adapter, item by item; ± is the standard error of the relative change. "
        f"The limit is {LIMIT:.0%} more NLL: *within* or *beyond* it by the 95 % interval, or *open*.",
        "",
        *(f"    memory3 {' '.join(run.command)}" for pair in COSTS.values() for run in pair),
        "",
        "| set | mode | items | NLL without | NLL with | change | limit |",
        "| --- | --- | ---: | ---: | ---: | ---: | --- |",
        *rows,
    ]
    return "\n".join(lines)


def _section(run: Run, report: dict[str, Any]) -> str:
    header = report["header"]
    measured = replace(run, modes=",".join(report["modes"]))
    adapter = f"adapter {header['adapter'][:12]}" if header["adapter"] else "no adapter"
    spread = "in pages" if "pages_per_head" in header.get("plan_json", "") else "in every head"
    about = (
        f"{adapter}, {header['tokens_per_memory']} tokens {spread}, codec {header['codec']}, {header['dtype']}, "
        f"{header['items']} items; {header['date']} UTC, {header['machine']}, {header['seconds']:.0f} s"
    )
    names = ["nll", "to none", "gap closed", "em", "contains", "choice"]
    rows = [[f"`{mode}`", *_cells(figures)] for mode, figures in report["modes"].items()]
    used = [0, *(column for column in range(1, len(names) + 1) if any(row[column] for row in rows))]
    titles = ["mode", *names]
    lines = [
        "| " + " | ".join(titles[column] for column in used) + " |",
        "|" + "|".join(" ---: " if column else " --- " for column in used) + "|",
        *("| " + " | ".join(row[column] for column in used) + " |" for row in rows),
    ]
    return "\n".join([f"### {run.name}", "", f"    memory3 {' '.join(measured.command)}", "", about, "", *lines])


def _cells(figures: dict[str, Any]) -> list[str]:
    def share(name: str) -> str:
        return "" if figures.get(name) is None else f"{figures[name]:.0%} ± {figures[f'{name}_se']:.0%}"

    difference = figures.get("nll_difference")
    gap = figures.get("gap_closed")
    return [
        f"{figures['nll']:.3f} ± {figures['nll_se']:.3f}",
        "" if difference is None else f"{difference:+.3f} ± {figures['nll_difference_se']:.3f}",
        "" if gap is None else f"{gap:.0%} ({figures['gap_closed_low']:.0%} to {figures['gap_closed_high']:.0%})",
        share("em"),
        share("contains"),
        share("choice_accuracy"),
    ]


if __name__ == "__main__":
    main()
