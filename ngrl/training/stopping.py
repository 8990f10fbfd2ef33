"""Stopping a run between two steps when a signal asks for it."""

import signal
import threading
from pathlib import Path
from types import FrameType, TracebackType


class Interrupted(RuntimeError):
    """A signal stopped the run after a checkpoint.

    Args:
      signal_number: The signal.
      directory: The run's directory.
    """

    def __init__(self, signal_number: int, directory: Path):
        super().__init__(f"stopped; a checkpoint is written and the same command resumes {directory}")
        self.exit_code = 128 + signal_number


class StopRequest:
    """While this context lasts, SIGINT and SIGTERM only set `requested`; a second one acts as usual.

    Outside the main thread, where Python takes no signal handlers, it does nothing.
    """

    def __init__(self) -> None:
        self.signal = 0
        self._previous: dict[int, object] = {}

    @property
    def requested(self) -> bool:
        """Whether a signal has arrived."""
        return self.signal != 0

    def __enter__(self) -> "StopRequest":
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._handle)
        return self

    def _handle(self, number: int, frame: FrameType | None) -> None:
        del frame
        self.signal = number
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)  # type: ignore[arg-type]
        self._previous = {}

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._restore()
