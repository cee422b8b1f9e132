"""A report as a picture: NLL and closed gap by mode. The only file that knows matplotlib."""

from __future__ import annotations

from pathlib import Path

import matplotlib
from matplotlib.figure import Figure

from services.evaluation.report import Report

matplotlib.use("agg")  # needs no display


def plot(report: Report, path: Path) -> None:
    """Write the picture; the ending of `path` chooses the format. Raises OSError or ValueError if it cannot."""
    modes = list(report.figures)
    has_gap = any(figures.gap_closed is not None for figures in report.figures.values())
    picture = Figure(figsize=(9 if has_gap else 5, 0.45 * len(modes) + 1.8), layout="constrained")
    axes = picture.subplots(1, 2 if has_gap else 1, squeeze=False, sharey=True)[0]
    rows = range(len(modes))
    nll = [figures.nll for figures in report.figures.values()]
    errors = [figures.nll_se or 0.0 for figures in report.figures.values()]
    axes[0].barh(rows, nll, xerr=errors, color="tab:blue", ecolor="black", capsize=3)
    axes[0].set_yticks(rows, [mode.value for mode in modes])
    axes[0].invert_yaxis()
    axes[0].set_xlabel("NLL, nats per answer token (less is better)")
    if has_gap:
        for row, figures in zip(rows, report.figures.values(), strict=True):
            if figures.gap_closed is None:
                continue
            low = figures.gap_closed if figures.gap_closed_low is None else figures.gap_closed_low
            high = figures.gap_closed if figures.gap_closed_high is None else figures.gap_closed_high
            # A resampled interval need not hold the figure itself.
            spread = [[max(0.0, figures.gap_closed - low)], [max(0.0, high - figures.gap_closed)]]
            axes[1].barh(row, figures.gap_closed, xerr=spread, color="tab:green", ecolor="black", capsize=3)
        axes[1].axvline(1.0, color="grey", linewidth=0.8, linestyle="--")
        axes[1].set_xlabel("share of the gap from none to rag that is closed")
    header = report.header
    adapter = f"adapter {header.adapter[:12]}" if header.adapter else "no adapter"
    picture.suptitle(
        f"{header.set}, {header.items} items, seed {header.seed} · {header.model}, {adapter}\n"
        f"{header.plan}, {header.tokens_per_memory} tokens a memory, {header.codec} · {header.date[:10]}",
        fontsize=9,
    )
    picture.savefig(path, dpi=150)
