"""Errors in one line each. No TensorFlow is imported here."""

from collections.abc import Sequence


def first_line(text: str) -> str:
    """The first line with anything on it, and the next if that one ends in a colon."""
    lines = [line.strip() for line in text.splitlines() if line.strip()] or [""]
    return " ".join(lines[:2]) if lines[0].endswith(":") else lines[0]


def reason(error: BaseException) -> str:
    """What an error says, in a line; what it is where it says nothing."""
    return first_line(str(error)) or type(error).__name__


def shortened(parts: Sequence[str]) -> str:
    """The first three of a message's parts, and how many more there are."""
    return ", ".join(parts[:3]) + (f" and {len(parts) - 3} more" if len(parts) > 3 else "")
