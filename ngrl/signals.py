"""Signals that stop a command: at once, or a run between two of its steps. No TensorFlow is imported here."""

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any


class Terminated(KeyboardInterrupt):
    """SIGTERM arrived where nothing but ending the process was in order."""


class Interrupted(RuntimeError):
    """A signal stopped the run after a checkpoint."""

    def __init__(self, signal_number: int, directory: Path):
        super().__init__(f"stopped; a checkpoint is written and the same command resumes {directory}")
        self.exit_code = 128 + signal_number


def leave(number: int, frame: FrameType | None) -> None:
    """A handler that ends the process without a word, with the exit code of a command that the signal stopped."""
    raise SystemExit(128 + number)


def leave_by_ctrl_c() -> None:
    """Until a command has handlers of its own, Ctrl-C ends it without a traceback; where it is ignored it stays so."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, leave)


def exit_code(error: KeyboardInterrupt) -> int:
    """What the shell is told of what ended a command at once: 128 + the signal's number."""
    return 128 + (signal.SIGTERM if isinstance(error, Terminated) else signal.SIGINT)


#: What the handlers of the present contexts have replaced, the outermost first.
_replaced: list[dict[int, Any]] = []


def _give_back() -> None:
    """In a process that is forked, by an environment for example, signals do what they did before any context."""
    for before in reversed(_replaced):
        for number, earlier in before.items():
            signal.signal(number, earlier)


os.register_at_fork(after_in_child=_give_back)


@contextlib.contextmanager
def handled(handler: Callable[[int, FrameType | None], None], *numbers: int) -> Iterator[None]:
    """While this context lasts, the handler gets these signals.

    Outside the main thread, where Python takes no signal handlers, it does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, handler) for number in numbers}
    _replaced.append(before)
    try:
        yield
    finally:
        _replaced.remove(before)
        for number, earlier in before.items():
            signal.signal(number, earlier)


#: The signals that have arrived in the present `terminable`.
_arrived: list[int] = []


@contextlib.contextmanager
def terminable() -> Iterator[None]:
    """While this context lasts, SIGTERM is as Ctrl-C is, but what leaves the context is `Terminated`.

    Inside it is a KeyboardInterrupt and nothing else: Ray's compiled code lets no other exception through, and makes a
    plain one of those derived from it. Ctrl-C stays ignored where it was, as in a shell's background jobs.
    """

    def stop(number: int, frame: FrameType | None) -> None:
        _arrived.append(number)
        raise KeyboardInterrupt

    is_heeded = signal.getsignal(signal.SIGINT) in (signal.default_int_handler, leave)
    try:
        with handled(stop, signal.SIGTERM, *([signal.SIGINT] if is_heeded else [])):
            yield
    except KeyboardInterrupt as error:
        if signal.SIGTERM in _arrived:
            raise Terminated from error
        raise
    finally:
        _arrived.clear()


def heed(cause: BaseException | None = None) -> None:
    """Raise a KeyboardInterrupt again that compiled code has swallowed, or made another exception of.

    NumPy makes a SystemError of one that arrives while it makes an array, for example, and an environment may make one
    of its faults of it. To be called where a command catches every exception, and by what it may be doing for hours.

    Raises:
      KeyboardInterrupt: A signal has arrived in the present `terminable`.
    """
    if _arrived:
        raise KeyboardInterrupt from cause


class StopRequest:
    """While this context lasts, SIGINT and SIGTERM only set `requested`; a second one acts as usual."""

    def __init__(self) -> None:
        self.signal = 0
        self._handled = contextlib.ExitStack()

    @property
    def requested(self) -> bool:
        """Whether a signal has arrived."""
        return self.signal != 0

    def __enter__(self) -> "StopRequest":
        self._handled.enter_context(handled(self._handle, signal.SIGINT, signal.SIGTERM))
        return self

    def _handle(self, number: int, frame: FrameType | None) -> None:
        del frame
        self.signal = number
        self._handled.close()

    def __exit__(self, *failure: object) -> None:
        self._handled.close()
