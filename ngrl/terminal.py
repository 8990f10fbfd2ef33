"""What the commands share: what reaches the terminal, ngrl's own lines and not those of libraries, and exit codes."""

import contextlib
import io
import logging
import os
import shutil
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import TextIO

from ngrl import _releases
from ngrl.messages import named_from
from ngrl.signals import exit_code, heed, terminable

EXIT_FAILURE = 1
EXIT_USAGE = 2


def refuse(command: str, line: object, code: int = EXIT_USAGE) -> int:
    """Say why a command does nothing; its exit code."""
    print(f"ngrl.{command}: {line}", file=sys.stderr)
    return code


def say(*lines: str) -> None:
    """Print lines; where their reader has gone, as `head` does, the command goes on without."""
    try:
        print(*lines, sep="\n", flush=True)
    except BrokenPipeError:
        _lead_nowhere(sys.stdout.fileno())  # with what is still held back


def stoppable(command: str, run: Callable[[], int], stopped: Callable[[], str], terminal: TextIO) -> int:
    """Run what a command is for; its exit code, or where a signal ends it at once a line on `terminal` and its own."""
    try:
        with terminable():
            try:
                return run()
            except Exception as error:
                heed(error)
                raise
    except KeyboardInterrupt as error:
        print(f"ngrl.{command}: stopped{stopped()}", file=terminal)
        return exit_code(error)


def run_apart(command: str, run: "Callable[[LibraryOutput], int]", stopped: Callable[[], str]) -> int:
    """Run what a command is for while libraries are kept from the terminal; its exit code.

    Args:
      command: The command's name.
      run: Does it.
      stopped: What to say where a signal has ended it at once.
    """
    if not _releases.has_tf_agents():
        return refuse(command, _releases.TF_AGENTS_MISSING, EXIT_FAILURE)
    output = LibraryOutput()
    try:
        with named_from(Path.cwd()):
            return stoppable(command, lambda: run(output), stopped, output.terminal)
    finally:
        output.close()


class LibraryOutput:
    """Redirects the process's standard output and error, C++ libraries included, into a log file.

    `terminal` stays connected to where standard error was, for ngrl's own lines, and `stdout` to where standard
    output was, for results. In a notebook those are the cell's.
    """

    def __init__(self) -> None:
        _flush()
        self._error, self._out = _Stream(os.dup(2)), _Stream(os.dup(1))
        self.terminal: TextIO = self._error
        self.stdout: TextIO = self._out
        self._cell = None if isinstance(sys.stdout, io.TextIOWrapper) else _Cell(sys.stdout, sys.stderr)
        if self._cell is not None:
            self.stdout, self.terminal = self._cell.stdout, self._cell.stderr
        try:
            handle, name = tempfile.mkstemp(prefix="ngrl-", suffix=".log")
            self._temporary = True
        except OSError:  # no room for a log is no reason to do nothing
            handle, name = os.open(os.devnull, os.O_WRONLY), os.devnull
            self._temporary = False
        self._path = Path(name)
        os.dup2(handle, 1)
        os.dup2(handle, 2)
        os.close(handle)

    def move_to(self, path: Path) -> None:
        """Log to `path` from now on, if there is room, where what has no lasting place yet is appended first."""
        _flush()
        try:
            with path.open("ab") as log:
                if self._temporary:
                    with self._path.open("rb") as early:
                        shutil.copyfileobj(early, log)
                log.flush()
                os.dup2(log.fileno(), 1)
                os.dup2(log.fileno(), 2)
        except OSError:
            return
        self._discard()
        self._path, self._temporary = path, False

    def log_exception(self) -> None:
        """Write the traceback of the exception being handled into the log, if there is room."""
        with contextlib.suppress(OSError):
            traceback.print_exc()

    def keep(self) -> Path:
        """Let the log outlive the process wherever it is now, and say where that is."""
        _flush()
        self._temporary = False
        return self._path

    def close(self) -> None:
        """Give standard output and error back, and drop the log if it was never moved to a lasting place."""
        if not _flush():  # a full disk: let what is left go nowhere rather than to the terminal
            _lead_nowhere(1)
            _lead_nowhere(2)
            _flush()
        os.dup2(self._out.fileno(), 1)
        os.dup2(self._error.fileno(), 2)
        if self._cell is not None:
            self._cell.give_back()
        self._discard()

    def _discard(self) -> None:
        if self._temporary:
            self._path.unlink(missing_ok=True)


class _Cell:
    """A notebook's standard output and error, which Python writes to past the file descriptors; kept from libraries."""

    def __init__(self, stdout: TextIO, stderr: TextIO):
        self.stdout, self.stderr = stdout, stderr
        log = open(1, "w", buffering=1, encoding="utf-8", errors="replace", closefd=False)  # noqa: SIM115
        sys.stdout = sys.stderr = log
        references = logging._handlerList  # type: ignore[attr-defined]  # absl's handler hangs on no logger
        handlers = [handler for handler in (reference() for reference in references) if handler is not None]
        self._handlers = [
            (handler, handler.stream)
            for handler in handlers
            if isinstance(handler, logging.StreamHandler) and handler.stream in (stdout, stderr)
        ]
        for handler, _ in self._handlers:
            handler.setStream(log)

    def give_back(self) -> None:
        """Let Python write to the cell again."""
        for handler, stream in self._handlers:
            handler.setStream(stream)
        sys.stdout, sys.stderr = self.stdout, self.stderr


class _Stream(io.TextIOWrapper):
    """A file descriptor as text, by lines. Where its reader has gone, as `head` does, the command goes on without."""

    def __init__(self, descriptor: int):
        super().__init__(os.fdopen(descriptor, "wb"), encoding="utf-8", errors="replace", line_buffering=True)

    def write(self, text: str) -> int:
        try:
            return super().write(text)
        except BrokenPipeError:
            _lead_nowhere(self.fileno())  # with what is still held back
            return len(text)


def _lead_nowhere(descriptor: int) -> None:
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, descriptor)
    os.close(nowhere)


def _flush() -> bool:
    """Write out what Python holds back of standard output and error; whether that was possible."""
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except OSError:
        return False
    return True
