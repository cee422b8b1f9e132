"""How a run shows itself on a terminal: a line now and then with loss, speed and time left; passes figures on."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from services.training.ports import Recorder

_SMOOTHING = 0.9


class Progress:
    """Implements Recorder in front of another one."""

    def __init__(self, recorder: Recorder, steps: int, say: Callable[[str], None], *, seconds: float) -> None:
        """`seconds`: at least so long between two lines; a measurement is always shown."""
        self._recorder, self._steps, self._say, self._between = recorder, steps, say, seconds
        self._loss: float | None = None
        self._seconds: float | None = None
        self._said = float("-inf")

    def record(self, step: int, values: Mapping[str, float]) -> None:
        """See `services.training.ports.Recorder`."""
        self._recorder.record(step, values)
        measured = {name.removeprefix("eval/"): value for name, value in values.items() if name.startswith("eval/")}
        if "loss" in values:
            self._loss = _mixed(self._loss, values["loss"])
            self._seconds = _mixed(self._seconds, values["seconds"])
            now = time.monotonic()
            if measured or step == self._steps or now - self._said >= self._between:
                self._said = now
                left = duration((self._steps - step) * self._seconds)
                self._say(
                    f"step {step}/{self._steps}  loss {self._loss:.3f}  {values['tokens_per_second']:.0f} tokens/s  "
                    f"{self._seconds:.1f} s/step  {left} left"
                )
        if measured:
            shown = "  ".join(f"{name} {value:.3f}" for name, value in measured.items())
            self._say(f"  held out after {step} steps: {shown}")


def _mixed(mean: float | None, value: float) -> float:
    return value if mean is None else _SMOOTHING * mean + (1 - _SMOOTHING) * value


def duration(seconds: float) -> str:
    """For people: 42 s, 3 min 20 s, 2 h 05 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
