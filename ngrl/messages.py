"""Errors in one line each. No TensorFlow is imported here."""


def first_line(text: str) -> str:
    """The first line with anything on it, and the next if that one ends in a colon."""
    lines = [line.strip() for line in text.splitlines() if line.strip()] or [""]
    return " ".join(lines[:2]) if lines[0].endswith(":") else lines[0]


def reason(error: BaseException) -> str:
    """What an error says, in a line; what it is where it says nothing."""
    return first_line(str(error)) or type(error).__name__
