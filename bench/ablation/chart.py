"""Results as one picture: a panel for each axis, the share of the gap closed, every set and subject in it."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING

from matplotlib.figure import Figure

from bench.ablation.page import Point, points
from bench.ablation.results import Results
from bench.ablation.variations import TITLES

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLOURS = ("#2f6f8f", "#b8553a", "#5b8c5a", "#8a6fa8")
"""Of sets."""
_MARKERS = ("o", "s", "^", "D")
"""Of subjects."""
_ORDERED = ("tokens", "memories", "gap")
"""Axes whose values are joined by a line."""


def draw(results: Results, file: Path) -> None:
    """Write the picture, its kind by the file's ending: a panel for each axis of which more than one value is there."""
    found_by_axis = {axis: _found(results, axis) for axis in TITLES}
    drawn = {axis: found for axis, found in found_by_axis.items() if any(len(one.points) > 1 for one in found)}
    figure = Figure(figsize=(13, 0.5 + 3.6 * max(1, ceil(len(drawn) / 2))), layout="constrained")
    panels = figure.subplots(max(1, ceil(len(drawn) / 2)), 2, squeeze=False).flatten()
    for axes, (axis, found) in zip(panels, drawn.items(), strict=False):
        labels = list(dict.fromkeys(point.value.label for series in found for point in series.points))
        for place, series in enumerate(found):
            _draw(axes, axis, labels, series, 0.12 * (place - (len(found) - 1) / 2))
        _finish(axes, axis, labels)
    for axes in panels[len(drawn) :]:
        axes.set_axis_off()
    handles, names = panels[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside upper center", ncols=4, frameon=False)
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=100)


@dataclass(frozen=True)
class _Series:
    """One set and subject on one axis."""

    label: str
    colour: str
    marker: str
    points: list[Point]


def _found(results: Results, axis: str) -> list[_Series]:
    subjects = list(results.subjects.values())
    sets = list(dict.fromkeys(name for subject in subjects for name in results.sets(subject)))
    return [
        _Series(f"{name}, {subject.name}", colour, marker, points(results, subject, name, axis))
        for subject, marker in zip(subjects, _MARKERS, strict=False)
        for name, colour in zip(sets, _COLOURS, strict=False)
    ]


def _draw(axes: Axes, axis: str, labels: list[str], series: _Series, offset: float) -> None:
    columns = [labels.index(point.value.label) + offset for point in series.points]
    shares = [100 * point.closed[0] for point in series.points]
    errors = [100 * point.closed[1] for point in series.points]
    line, colour, marker = "-" if axis in _ORDERED else "", series.colour, series.marker
    axes.errorbar(
        columns,
        shares,
        errors,
        label=series.label,
        color=colour,
        marker=marker,
        markersize=4,
        linewidth=1,
        linestyle=line,
    )
    for column, share, point in zip(columns, shares, series.points, strict=True):
        if point.value.is_default:
            axes.plot(column, share, marker=marker, markersize=9, markerfacecolor="none", markeredgecolor=colour)


def _finish(axes: Axes, axis: str, labels: list[str]) -> None:
    axes.axhline(0, color="#bbbbbb", linewidth=0.8)
    axes.axhline(100, color="#bbbbbb", linewidth=0.8, linestyle=":")
    axes.set_title(TITLES[axis])
    axes.set_ylabel("gap closed, %")
    is_long = max(map(len, labels), default=0) > 8
    axes.set_xlim(-0.5, len(labels) - 0.5)
    axes.set_xticks(range(len(labels)), labels, rotation=35 if is_long else 0, ha="right" if is_long else "center")
