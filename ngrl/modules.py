"""Modules of the user's own: how every command is told of them, and where they are found."""

import argparse
import importlib
import sys
from pathlib import Path
from types import ModuleType

from ngrl.messages import RAISED, raised_at, reason


def add_option(parser: argparse.ArgumentParser, purpose: str = "let gin files import MODULE") -> None:
    """Add `--allow_gin_import`, which may be repeated; the purpose is what its help says."""
    parser.add_argument("--allow_gin_import", action="append", default=[], metavar="MODULE", help=purpose)


def load(name: str) -> ModuleType:
    """Import a module from the working folder or from where Python looks otherwise.

    `python -m` looks in the working folder first; an installed command would not look there at all.

    Raises:
      ImportError: It can't be imported, whatever it raises.
    """
    folder = str(Path.cwd())
    if not {"", folder} & set(sys.path):
        sys.path.insert(0, folder)
    try:
        return importlib.import_module(name)
    except RAISED as error:
        raise ImportError(f'cannot import "{name}": {reason(error)}{raised_at(error)}') from error
