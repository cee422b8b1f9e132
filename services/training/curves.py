"""A run's figures: a line of JSON for each step, TensorBoard's format beside it, and a plot of both kinds of loss."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from tensorboardX import SummaryWriter

_FILE, _PLOT, _BOARD = "curves.jsonl", "curves.png", "tensorboard"
_SMOOTHED = ("loss", "nll_reading", "kl_plain")
_GAP = "/gap_closed/"


class Curves:
    """Implements Recorder. Every line is on disk before the next step."""

    def __init__(self, folder: Path, first_step: int) -> None:
        """Lines of steps after `first_step` are dropped: they are run again."""
        self._path = folder / _FILE
        kept = [line for line in read_curves(folder) if line["step"] <= first_step] if first_step else []
        fresh = folder / f"{_FILE}.new"
        fresh.write_text("".join(json.dumps(line) + "\n" for line in kept), encoding="utf-8")
        fresh.replace(self._path)
        self._file = self._path.open("a", encoding="utf-8")
        self._board = SummaryWriter(str(folder / _BOARD), purge_step=first_step + 1 if first_step else None)

    def record(self, step: int, values: Mapping[str, float]) -> None:
        """See `services.training.ports.Recorder`."""
        self._file.write(json.dumps({"step": step, **values}) + "\n")
        self._file.flush()
        for name, value in values.items():
            self._board.add_scalar(name, value, step)

    def close(self) -> None:
        """Write what is held back."""
        self._file.close()
        self._board.close()


def read_curves(folder: Path) -> list[dict[str, float]]:
    """The lines of a run's curves; a last one that was cut off is left out."""
    path = folder / _FILE
    if not path.is_file():
        return []
    lines = []
    for text in path.read_text(encoding="utf-8").splitlines():
        try:
            lines.append(json.loads(text))
        except ValueError:
            break
    return lines


def plot_curves(folder: Path) -> Path:
    """Draw the curves into `curves.png`."""
    # Here, and without pyplot: it is slow to import, and a window is never wanted.
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415
    from matplotlib.figure import Figure  # noqa: PLC0415

    lines = read_curves(folder)
    panels = _panels(lines)
    figure = Figure(figsize=(9, 3.2 * len(panels)), layout="constrained")
    FigureCanvasAgg(figure)
    all_axes = figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
    for axes, (title, names) in zip(all_axes, panels.items(), strict=True):
        for name in names:
            points = [(line["step"], line[name]) for line in lines if name in line]
            if name in _SMOOTHED:
                steps, values = zip(*points, strict=True)
                axes.plot(steps, _smooth(values), label=f"{name}, mean of 20 steps")
            else:
                axes.plot(*zip(*points, strict=True), marker="o", label=name.removeprefix("eval/"))
        axes.set_ylabel(title)
        axes.grid(alpha=0.3)
        if axes.get_legend_handles_labels()[0]:
            axes.legend(fontsize="small", loc="upper left", bbox_to_anchor=(1, 1))
    all_axes[-1].set_xlabel("step")
    figure.savefig(folder / _PLOT, dpi=120)
    return folder / _PLOT


def _panels(lines: Sequence[Mapping[str, float]]) -> dict[str, list[str]]:
    """Title -> the values drawn in it: those of training, one panel for each held-out set, one for shares."""
    names = sorted({name for line in lines for name in line})
    panels = {"training, nats per token": [name for name in _SMOOTHED if name in names]}
    for name in (name for name in names if name.startswith("eval/")):
        subject = name.split("/")[1]
        title = "share of the gap closed" if _GAP in name else f"{subject}, held out, nats per token"
        panels.setdefault(title, []).append(name)
    return panels


def _smooth(values: Sequence[float], width: int = 20) -> list[float]:
    """Mean of each value and those before it, `width` at most."""
    return [sum(values[max(0, i + 1 - width) : i + 1]) / min(i + 1, width) for i in range(len(values))]
