"""What reaches the terminal: ngrl's own lines. What libraries print goes to a log file."""

import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import TextIO


class LibraryOutput:
    """Redirects the process's standard output and error, C++ libraries included, into a log file.

    `terminal` stays connected to where standard error was, for ngrl's own lines, and `stdout` to where standard
    output was, for results.
    """

    def __init__(self) -> None:
        sys.stdout.flush()
        sys.stderr.flush()
        self.terminal: TextIO = os.fdopen(os.dup(2), "w", buffering=1, encoding="utf-8", errors="replace")
        self.stdout: TextIO = os.fdopen(os.dup(1), "w", buffering=1, encoding="utf-8", errors="replace")
        handle, name = tempfile.mkstemp(prefix="ngrl-", suffix=".log")
        self._path = Path(name)
        self._temporary = True
        os.dup2(handle, 1)
        os.dup2(handle, 2)
        os.close(handle)

    def move_to(self, path: Path) -> None:
        """Append what was logged so far to `path`, and log there from now on."""
        sys.stdout.flush()
        sys.stderr.flush()
        with path.open("ab") as log:
            with self._path.open("rb") as early:
                shutil.copyfileobj(early, log)
            log.flush()
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
        self._discard()
        self._path, self._temporary = path, False

    def keep(self) -> Path:
        """Let the log outlive the process wherever it is now, and say where that is."""
        sys.stdout.flush()
        sys.stderr.flush()
        self._temporary = False
        return self._path

    def close(self) -> None:
        """Give standard output and error back, and drop the log if it was never moved to a lasting place."""
        sys.stdout.flush()
        sys.stderr.flush()
        os.dup2(self.stdout.fileno(), 1)
        os.dup2(self.terminal.fileno(), 2)
        self._discard()

    def _discard(self) -> None:
        if self._temporary:
            self._path.unlink(missing_ok=True)
