"""Refusing arguments that are out of their range, in one wording. No TensorFlow is imported here."""

import numbers
from collections.abc import Iterable
from typing import Any

_WORDS = {
    "(-inf, inf)": "be finite",
    "(0, inf]": "be positive",
    "(0, inf)": "be positive and finite",
    "[0, inf]": "not be negative",
    "[0, inf)": "be finite and not negative",
    "[1, inf)": "be finite and at least 1",
}


def check_number(name: str, value: Any, interval: str) -> float:
    """`value` as a float.

    Args:
      name: What the message calls it.
      value: Any real number but a bool, NumPy's included.
      interval: Where it must lie, as in "[0, 1)"; infinity is a number where the interval is closed there.

    Raises:
      ValueError: It is no such number; NaN lies nowhere.
    """
    return _check(name, value, interval, "")


def check_optional_number(name: str, value: Any, interval: str) -> float | None:
    """As `check_number`, but None stays None."""
    return None if value is None else _check(name, value, interval, " or None")


def _check(name: str, value: Any, interval: str, alternative: str) -> float:
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise ValueError(f"{name} must be a number{alternative}, got {value!r}")
    low, high = (float(end) for end in interval[1:-1].split(","))
    number: Any = value  # a Real has no order in mypy's eyes
    is_above = number >= low if interval[0] == "[" else number > low
    is_below = number <= high if interval[-1] == "]" else number < high
    if not (is_above and is_below):
        raise ValueError(f"{name} must {_WORDS.get(interval, f'lie in {interval}')}{alternative}, got {value}")
    return float(value)


def check_count(name: str, value: Any, minimum: int = 1) -> int:
    """`value` as an int.

    Raises:
      ValueError: It is no integer of at least `minimum`; a bool is none.
    """
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < minimum:
        kind = "a positive integer" if minimum == 1 else f"an integer of at least {minimum}"
        raise ValueError(f"{name} must be {kind}, got {value!r}")
    return int(value)


def check_choice(name: str, value: Any, choices: Iterable[Any]) -> Any:
    """`value` itself.

    Raises:
      ValueError: It is none of `choices`.
    """
    *others, last = choices
    if value not in (*others, last):
        raise ValueError(f"{name} must be {', '.join(map(repr, others))} or {last!r}, got {value!r}")
    return value


def check_optional_count(name: str, value: Any) -> int | None:
    """As `check_count`, but None stays None."""
    return None if value is None else check_count(name, value)
