"""The one wording in which arguments out of their range are refused."""

import math
import subprocess
import sys

import numpy as np
import pytest

from ngrl.checks import check_choice, check_count, check_number, check_optional_count, check_optional_number

ENDS = {
    "[0, 1)": ([0, 0.5, np.float32(0.25)], [-1e-300, 1, math.nan, math.inf], r"x must lie in \[0, 1\), got"),
    "(1, inf]": ([1.5, math.inf], [1, 0, math.nan], r"x must lie in \(1, inf\], got"),
    "(0, inf]": ([1e-300, math.inf], [0, -1, math.nan], "x must be positive, got"),
    "(0, inf)": ([2], [0.0, math.inf, math.nan], "x must be positive and finite, got"),
    "[0, inf]": ([0, math.inf], [-1, math.nan], "x must not be negative, got"),
    "[0, inf)": ([0], [-1, math.inf, math.nan], "x must be finite and not negative, got"),
    "(-inf, inf)": ([-3, 0.0], [math.inf, -math.inf, math.nan], "x must be finite, got"),
}


@pytest.mark.parametrize("interval", ENDS)
def test_a_number_lies_in_its_interval_or_is_refused_by_name(interval):
    good, bad, message = ENDS[interval]
    for value in good:
        assert check_number("x", value, interval) == check_optional_number("x", value, interval) == value
        assert type(check_number("x", value, interval)) is float
    for value in bad:
        with pytest.raises(ValueError, match=f"^{message} {value}$"):
            check_number("x", value, interval)
        with pytest.raises(ValueError, match=f"^{message[:-5]} or None, got {value}$"):
            check_optional_number("x", value, interval)


@pytest.mark.parametrize("value", [True, "1", [1.0], 1j])
def test_what_is_no_real_number_is_refused(value):
    with pytest.raises(ValueError, match=r"^x must be a number, got "):
        check_number("x", value, "[0, 1]")


def test_only_an_optional_number_may_be_none():
    assert check_optional_number("x", None, "(0, inf]") is None
    with pytest.raises(ValueError, match=r"x must be a number, got None"):
        check_number("x", None, "(0, inf]")


def test_counts_are_integers_of_at_least_their_minimum():
    assert [check_count("x", value) for value in (1, np.int64(7))] == [1, 7]
    assert check_count("x", 0, 0) == 0
    for value in (0, -1, 1.0, True, "1", None, math.nan):
        with pytest.raises(ValueError, match="x must be a positive integer, got"):
            check_count("x", value)
    with pytest.raises(ValueError, match="x must be an integer of at least 0, got -1"):
        check_count("x", -1, 0)


def test_only_an_optional_count_may_be_none():
    assert check_optional_count("x", None) is None
    assert check_optional_count("x", np.int64(7)) == 7
    with pytest.raises(ValueError, match="x must be a positive integer, got 0"):
        check_optional_count("x", 0)


def test_checks_need_no_tensorflow():
    code = "import sys, ngrl.checks; sys.exit('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_word_that_is_none_of_the_choices_is_refused_with_them():
    assert check_choice("per", "step", ("episode", "step")) == "step"
    with pytest.raises(ValueError, match="per must be 'episode' or 'step', got 'day'"):
        check_choice("per", "day", ("episode", "step"))
