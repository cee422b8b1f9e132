"""Stop sequences across tokens, and no half characters."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.engine.stop import StopMatcher, TextStream
from tests.helpers.mock_runner import ByteDetokenizer


def _stream(text: str, stop: list[str], cuts: list[int] | None = None) -> tuple[str, bool]:
    """Text that comes out, and whether it stopped, when it goes in cut at these places."""
    places = [0, *sorted(min(cut, len(text)) for cut in cuts or []), len(text)]
    matcher = StopMatcher(stop)
    out = "".join(matcher.push(text[begin:end]) for begin, end in pairwise(places))
    return out + matcher.flush(), matcher.is_stopped


def test_text_before_a_stop_sequence_comes_out_and_nothing_after() -> None:
    matcher = StopMatcher(["END"])
    assert matcher.push("one END two") == "one "
    assert matcher.is_stopped
    assert matcher.push("three") == ""
    assert matcher.flush() == ""


def test_the_possible_beginning_of_a_stop_sequence_is_held_back() -> None:
    matcher = StopMatcher(["END"])
    assert matcher.push("one E") == "one "
    assert matcher.push("N") == ""
    assert matcher.push("ough") == "ENough"


def test_what_is_held_back_comes_out_at_the_end() -> None:
    matcher = StopMatcher(["END"])
    assert matcher.push("EN") == ""
    assert matcher.flush() == "EN"


def test_a_stop_sequence_that_overlaps_itself_is_found() -> None:
    assert _stream("aaab", ["aab"], [1, 2, 3]) == ("a", True)


@pytest.mark.parametrize(
    ("stop", "text"),
    [(["b", "abc"], "xa"), (["abc", "bc"], "x"), (["zz", "c"], "xab"), (["xabcd", "abcde"], "")],
)
def test_the_stop_sequence_that_is_complete_first_counts(stop: list[str], text: str) -> None:
    assert _stream("xabcde", stop) == (text, True)


_texts = st.text(alphabet="ab\n", max_size=24)


@given(_texts, st.lists(st.text(alphabet="ab\n", min_size=1, max_size=4), max_size=3), st.lists(st.integers(0, 24)))
def test_how_the_text_is_cut_makes_no_difference(text: str, stop: list[str], cuts: list[int]) -> None:
    out, stopped = _stream(text, stop, cuts)
    assert (out, stopped) == _stream(text, stop)
    assert stopped == any(sequence in text for sequence in stop)
    assert text.startswith(out)
    assert not any(sequence in out for sequence in stop)
    if not stopped:
        assert out == text


def test_a_character_of_several_tokens_comes_out_whole() -> None:
    stream = TextStream(ByteDetokenizer(), [])
    assert [stream.push(byte) for byte in "é中🦊".encode()] == ["", "é", "", "", "中", "", "", "", "🦊"]


def test_an_incomplete_character_at_the_end_is_replaced() -> None:
    stream = TextStream(ByteDetokenizer(), ["ab"])
    assert [stream.push(byte) for byte in b"a\xe4\xb8"] == ["", "", ""]
    assert stream.flush() == "a\ufffd"
    assert not stream.is_stopped


def test_a_stop_sequence_of_several_byte_characters_is_found_across_tokens() -> None:
    stream = TextStream(ByteDetokenizer(), ["中。"])
    assert "".join(stream.push(byte) for byte in "一中一中。一".encode()) == "一中一"
    assert stream.is_stopped
