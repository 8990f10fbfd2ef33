"""Errors in one line each, and what else is said in one wording. No TensorFlow is imported here."""

import contextlib
import os
import re
import sysconfig
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path

#: What a user's own code may raise. SystemExit is no Exception, and would end a command as if its work were done.
RAISED = (Exception, SystemExit)


# The folder that a command was started in; what it runs may go elsewhere.
_folder: Path | None = None


@contextlib.contextmanager
def named_from(folder: Path) -> Iterator[None]:
    """While this context lasts `short` names paths from this folder, whichever the working folder is."""
    global _folder
    before, _folder = _folder, folder
    try:
        yield
    finally:
        _folder = before


def short(text: str) -> str:
    """Text in which the paths of what lies in the working folder begin there, as a person names them."""
    try:
        folder = _folder or Path.cwd()
    except OSError:  # it is gone
        return text
    if folder == folder.parent:  # of the root every slash would go
        return text
    return re.sub(rf"(?<![\w/.-]){re.escape(os.path.join(folder, ''))}", "", text)


def first_line(text: str) -> str:
    """The first line with anything on it, and the next if that one ends in a colon; its paths are `short`."""
    lines = [line.strip() for line in text.splitlines() if line.strip()] or [""]
    return short(" ".join(lines[:2]) if lines[0].endswith(":") else lines[0])


def reason(error: BaseException) -> str:
    """What an error says, in a line; what it is where it says nothing."""
    return first_line(str(error)) or type(error).__name__


def raised_at(error: BaseException) -> str:
    """The last place in a user's own code that an error came from, as " (mine.py:57)"; "" where there is none."""
    libraries = [Path(__file__).parent, *(Path(sysconfig.get_path(name)) for name in ("stdlib", "purelib", "platlib"))]
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        path = Path(frame.filename)
        if path.exists() and not any(path.is_relative_to(folder) for folder in libraries):
            return f" ({path.name}:{frame.lineno})"
    return ""


def shortened(parts: Sequence[str]) -> str:
    """The first three of a message's parts, and how many more there are."""
    return ", ".join(parts[:3]) + (f" and {len(parts) - 3} more" if len(parts) > 3 else "")


def counted(number: int, one: str, several: str = "") -> str:
    """A number and what is counted, as in `1 step` and `1,270 steps`; `several` is for plurals without a mere s."""
    return f"{number:,} {one if number == 1 else several or f'{one}s'}"
