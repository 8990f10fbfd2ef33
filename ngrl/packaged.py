"""The experiments and studies that come with ngrl, found by the names that they have in a clone."""

import os
import re
from collections.abc import Iterator
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent
_WHEEL = _PACKAGE / "_data"  # setup.py puts the two folders there
_FOLDERS = (("gin",), ("launch",))
_ENVIRONMENT = re.compile(r"^Environment\.env_id\s*=", re.MULTILINE)
_NEIGHBOUR = re.compile(r"^include ['\"]([^/]+?)['\"]", re.MULTILINE)

ROOT = _WHEEL if _WHEEL.is_dir() else _PACKAGE.parent
"""The folder that holds `gin/` and `launch/`: the clone's, or a copy in the wheel."""


def find(name: str | Path) -> Path:
    """The file of this name below the current folder, else the one that came with ngrl.

    Args:
      name: A path such as `gin/ngdqn_lunar.gin`.

    Returns:
      Where it is; `name` itself if it is nowhere.
    """
    path = Path(name)
    own = ROOT / path
    return own if path.parts[:1] in _FOLDERS and not os.path.exists(path) and os.path.isfile(own) else path


def is_there(name: str | Path) -> bool:
    """Whether `find` finds a file. A name that no file can have, since it is too long, is none."""
    return os.path.isfile(find(name))


def experiments() -> Iterator[tuple[str, str]]:
    """Name and first line of comment of each experiment, in the order of their names; without shared parts."""
    texts = {path: path.read_text(encoding="utf-8") for path in sorted((ROOT / "gin").rglob("*.gin"))}
    shared = {path.parent / name for path, text in texts.items() for name in _NEIGHBOUR.findall(text)}
    for path, text in texts.items():
        # What another one includes is an experiment nevertheless where it says what is to be learned.
        if path.parent.name != "base" and (path not in shared or _ENVIRONMENT.search(text)):
            yield path.relative_to(ROOT).as_posix(), text.partition("\n")[0].removeprefix("#").strip()
