"""A forecast as a picture: operations against uses, money against months. The only file that knows matplotlib."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from services.planning.core import Forecast
from services.planning.report import number

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_STYLES = {
    "text_rag": ("text (RAG)", "#b8553a"),
    "explicit_memory": ("explicit memory", "#2f6f8f"),
    "parameters": ("parameters (lower bound)", "#6b6b6b"),
}
_POINTS = 200
ENDINGS = (".png", ".svg", ".pdf")


class MatplotlibChart:
    """The port `Chart`."""

    def draw(self, forecast: Forecast, file: Path) -> None:
        """Write the picture, its kind by the file's ending. Raises ValueError or OSError."""
        if file.suffix.lower() not in ENDINGS:
            raise ValueError(f"cannot draw to {file}; end the file's name with {', '.join(ENDINGS)}")
        try:
            from matplotlib.figure import Figure  # noqa: PLC0415 - slow to load, and in an extra
        except ImportError as error:
            raise ValueError("drawing needs matplotlib; install memory3[planning]") from error
        figure = Figure(figsize=(11, 4.6), layout="constrained")
        left, right = figure.subplots(1, 2)
        _operations(left, forecast)
        _money(right, forecast)
        plan = forecast.plan
        figure.suptitle(
            f"{forecast.config.name}, plan {plan.name}: {plan.tokens_per_memory} of {plan.max_reference_tokens} tokens "
            f"in {len(plan.memory_layers)} layers; {forecast.references:,} references"
        )
        figure.savefig(file, dpi=110)


def _operations(axes: Axes, forecast: Forecast) -> None:
    ends = [end for end in forecast.crossover_uses.values() if end]
    low, high = (min(ends) / 100, max(ends) * 100) if ends else (0.01, 1e6)
    uses = [low * (high / low) ** (step / _POINTS) for step in range(_POINTS + 1)]
    for name, (label, colour) in _STYLES.items():
        total = [(forecast.write_flop[name] + n * forecast.read_flop[name]) / 1e12 for n in uses]
        axes.plot(uses, total, label=label, color=colour)
    for end in ends:
        axes.axvline(end, color="#bbbbbb", linewidth=0.8, linestyle=":")
        axes.annotate(
            f"{number(end)} uses", (end, 0.02), xycoords=("data", "axes fraction"), fontsize=8, rotation=90, ha="right"
        )
    axes.set(xscale="log", yscale="log", xlabel="uses of one reference", ylabel="TFLOP, writing and reading")
    axes.set_title("Operations for one reference")
    axes.legend(frameon=False)


def _money(axes: Axes, forecast: Forecast) -> None:
    months = [forecast.settings.months * step / _POINTS for step in range(_POINTS + 1)]
    for name, (label, colour) in _STYLES.items():
        cost = forecast.money.by_format[name]
        axes.plot(months, [cost.after(month) for month in months], label=label, color=colour)
    pays = forecast.money.pays_off_months
    verdict = "writing never pays" if pays is None else f"writing pays after {number(pays)}"
    axes.set(xlabel=f"months; {verdict}", ylabel="cost, in the currency of the prices")
    axes.set_xlim(0, forecast.settings.months)
    axes.set_ylim(bottom=0)
    axes.set_title(f"Cost at {forecast.settings.requests_per_second:g} requests/s, stored as {forecast.stored_as}")
    axes.legend(frameon=False)
