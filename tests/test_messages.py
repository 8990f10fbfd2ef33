"""Errors in a line: what is left of several, and of none."""

import pytest

from ngrl.messages import reason


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ValueError("no such thing"), "no such thing"),
        (ValueError("\n  first  \nsecond"), "first"),
        (ValueError("both of these:\n  are needed\nthis is not"), "both of these: are needed"),
        (NotImplementedError(), "NotImplementedError"),
        (OSError(28, "No space left", "x"), "[Errno 28] No space left: 'x'"),
    ],
)
def test_reason_is_a_line_and_never_empty(error, expected):
    assert reason(error) == expected
