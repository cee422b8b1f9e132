"""Text of one sequence: stop sequences across tokens, and no half characters.

Knows no tokenizer beyond the incremental detokenizer handed in, which holds back incomplete UTF-8.
"""

from collections.abc import Sequence

from model.engine.ports import Detokenizer


class StopMatcher:
    """Finds stop sequences in text that arrives in pieces; how it is cut into pieces makes no difference.

    The stop sequence that is complete first counts; of several that end at the same character, the longest.
    """

    def __init__(self, stop: Sequence[str]) -> None:
        self._stop = tuple(stop)
        self._held = ""
        self.is_stopped = False

    def push(self, text: str) -> str:
        """Text that is certainly not part of a stop sequence; after a stop, nothing more."""
        if self.is_stopped:
            return ""
        text = self._held + text
        matches = [(start + len(stop), start) for stop in self._stop if (start := text.find(stop)) >= 0]
        if matches:
            self.is_stopped, self._held = True, ""
            return text[: min(matches)[1]]
        num_held = max((_overlap(text, stop) for stop in self._stop), default=0)
        self._held = text[len(text) - num_held :]
        return text[: len(text) - num_held]

    def flush(self) -> str:
        """The possible beginning of a stop sequence that never came."""
        held, self._held = self._held, ""
        return held


class TextStream:
    """Tokens in, releasable text out."""

    def __init__(self, detokenizer: Detokenizer, stop: Sequence[str]) -> None:
        self._detokenizer = detokenizer
        self._matcher = StopMatcher(stop)

    @property
    def is_stopped(self) -> bool:
        """Whether a stop sequence has appeared."""
        return self._matcher.is_stopped

    def push(self, token_id: int) -> str:
        """Text that can be shown after this token; may be empty."""
        return self._matcher.push(self._detokenizer.push(token_id))

    def flush(self) -> str:
        """The rest, when no token follows."""
        return self._matcher.push(self._detokenizer.flush()) + self._matcher.flush()


def _overlap(text: str, stop: str) -> int:
    """Length of the longest proper beginning of `stop` that `text` ends with."""
    for length in range(min(len(stop) - 1, len(text)), 0, -1):
        if text.endswith(stop[:length]):
            return length
    return 0
