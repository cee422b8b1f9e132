"""Where sentences end."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.common.sentences import sentences


def split(text: str) -> list[str]:
    return [text[start:end] for start, end in sentences(text)]


@pytest.mark.parametrize(
    "parts",
    [
        ["One sentence.", "Another one!", "A third?", "No end"],
        ["Dr. Smith met Mrs. Jones at St. Mary's.", "They talked."],
        ["It costs 3.50 dollars.", "Or 4.00 elsewhere."],
        ["See e.g. Figure 3 and cf. Table 2.", "Done."],
        ["J. R. R. Tolkien wrote it.", "He was a professor."],
        ["The U.S. Navy sailed.", "It came back."],
        ["Opus No. 5 is short.", "I said no.", "Then he left."],
        ['He said "Stop."', "She went on."],
        ["Wait... what?", "Yes."],
        ["So am I.", "We agree."],
        ["これは文です。", "次の文。"],
        ["About 5 km² (ca. 2 sq mi) wide.", "[1] Cited."],
    ],
)
def test_sentences_end_where_a_reader_would_say(parts):
    gap = "" if "。" in parts[0] else " "
    assert split(gap.join(parts)) == parts


def test_a_blank_line_ends_a_sentence_and_a_line_break_does_not():
    assert split("A heading\n\nA line that\nis wrapped. Next") == ["A heading", "A line that\nis wrapped.", "Next"]


def test_lower_case_after_a_full_stop_goes_on():
    assert split("The file foo.txt. is odd. End") == ["The file foo.txt. is odd.", "End"]


def test_nothing_but_white_space_has_no_sentence():
    assert split(" \n\t\n ") == []


@given(st.text(alphabet=st.sampled_from("aB.!? \n\"')1。…\t"), max_size=60) | st.text(max_size=200))
def test_nothing_is_lost_but_white_space(text):
    at = 0
    for start, end in sentences(text):
        assert at <= start < end
        assert not text[at:start].strip()
        assert text[start:end].strip() == text[start:end]
        at = end
    assert not text[at:].strip()


@pytest.mark.parametrize("unit", ["." * 10, "\n ", "a. ", "\n", " ", ".\n", "。", '."', "x"])
def test_time_is_linear(unit):
    """A quadratic rule would take hours for half a megabyte of dots or blank lines."""
    start = time.process_time()
    for _ in sentences(unit * (500_000 // len(unit)) + "x"):
        pass
    assert time.process_time() - start < 10
