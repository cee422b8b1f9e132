"""Results as a Markdown page: for each subject its baselines, then one table an axis. Measures nothing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from bench.ablation.results import BASELINES, Cell, Results, Subject, closed
from bench.ablation.variations import TITLES, Value, axes
from model.plan import MemoryPlan

_BASELINE_LABELS = {
    "none": "no references",
    "rag": "references as text",
    "memory-wrong": "memories of another item's references",
}
_INTRODUCTION = """\
# What each choice of the memory plan is worth

One axis at a time is moved away from a default plan, all else stays. Written by `python -m bench.ablation`: do not edit
it.

- **NLL** is the negative log-likelihood of an answer's token, in nats, mean over items ± its standard error; less is
  better. Answers are scored on the path that serves (`model/scoring.py`), memories as written, before the codec.
- **Against default** is the difference to the default plan on the same items, ± the standard error of that difference.
  Below two standard errors it may be chance, and of some fifty comparisons two or three beyond them will be chance too.
- **Gap closed** is the share of the way from no references (0) to the default plan's number of references as text (100)
  that memories go, ± its standard error.
- **Greedy** is the share of items whose answer greedy generation gives to the letter.
- The row in bold is the default plan. All rows of one set are the same items with the same references: those that hold
  the answer, and others. With one memory only, it is one that holds it; with more, others are added. Of a text to go on
  with they are the chunks directly before, the nearest first.
"""


@dataclass(frozen=True)
class Point:
    """One value of one axis on one set."""

    value: Value
    cell: Cell
    closed: tuple[float, float]
    """Share of the gap and its standard error."""


def points(results: Results, subject: Subject, set_name: str, axis: str) -> list[Point]:
    """What is measured of an axis; empty if its baselines are not."""
    none, rag = (results.cell(subject, set_name, key) for key in ("none", "rag"))
    if none is None or rag is None:
        return []
    found = []
    for value in axes(MemoryPlan.from_json(subject.plan), subject.num_layers)[axis]:
        cell = results.cell(subject, set_name, value.variation.key)
        if cell is not None:
            found.append(Point(value, cell, closed(cell, none, rag)))
    return found


def page(results: Results, picture: str) -> str:
    """The page; `picture` is the path of the figure from it."""
    lines = [_INTRODUCTION, f"![Share of the gap closed, axis by axis]({picture})", ""]
    for subject in results.subjects.values():
        lines += [*_subject(results, subject), ""]
    return "\n".join(lines).rstrip() + "\n"


def _subject(results: Results, subject: Subject) -> Iterator[str]:
    plan, sets = MemoryPlan.from_json(subject.plan), results.sets(subject)
    yield f"## {subject.name[0].upper()}{subject.name[1:]}"
    yield ""
    yield f"{subject.heading}. Items of each set: {subject.items}, seed {subject.seed}."
    for name, headings in results.headings(subject).items():
        yield f"Of {name}: {'; '.join(headings)}."
    yield f"Default plan `{plan.name}`: `{subject.plan}`."
    yield ""
    yield "| | " + " | ".join(f"{name}: NLL | greedy" for name in sets) + " |"
    yield "| --- |" + " ---: | ---: |" * len(sets)
    for key in BASELINES:
        cells = [results.cell(subject, name, key) for name in sets]
        if any(cells):
            yield _row(_BASELINE_LABELS[key], (text for cell in cells for text in _figures(cell)))
    for axis, title in TITLES.items():
        found = {name: points(results, subject, name, axis) for name in sets}
        if any(len(measured) > 1 for measured in found.values()):
            yield ""
            yield f"### {title}"
            yield ""
            yield from _axis(found)


def _axis(found: dict[str, list[Point]]) -> Iterator[str]:
    yield "| | " + " | ".join(f"{name}: NLL | greedy | against default | gap closed" for name in found) + " |"
    yield "| --- |" + " ---: | ---: | ---: | ---: |" * len(found)
    values = {point.value.label: point.value for measured in found.values() for point in measured}
    for label, value in values.items():
        texts: list[str] = []
        for measured in found.values():
            default = next((point for point in measured if point.value.is_default), None)
            point = next((point for point in measured if point.value.label == label), None)
            texts += [*_figures(point.cell if point else None), _against(point, default), _closed(point)]
        yield _row(f"**{label}**" if value.is_default else label, texts)


def _figures(cell: Cell | None) -> tuple[str, str]:
    if cell is None:
        return "-", "-"
    return f"{cell.mean:.3f} ± {cell.error:.3f}", f"{sum(cell.greedy) / len(cell.greedy):.0%}"


def _against(point: Point | None, default: Point | None) -> str:
    if point is None or default is None or point is default:
        return "-"
    mean, error = point.cell.beyond(default.cell)
    return f"{mean:+.3f} ± {error:.3f}"


def _closed(point: Point | None) -> str:
    return "-" if point is None else f"{point.closed[0]:.0%} ± {100 * point.closed[1]:.0f}"


def _row(label: str, texts: Iterator[str] | Sequence[str]) -> str:
    return f"| {label} | " + " | ".join(texts) + " |"
