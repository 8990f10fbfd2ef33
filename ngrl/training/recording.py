"""What an entry that trains no agent leaves: a run's directory with pictures, tables and TensorBoard's events."""

import contextlib
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from ngrl.runs.directory import RunDirectory
from ngrl.runs.events import EventFile
from ngrl.runs.files import write_bytes, write_csv
from ngrl.runs.record import Status
from ngrl.training.context import RunContext
from ngrl.training.experiment import RunResult


class Recorder:
    """Writes into a run's directory; what an earlier run of the same entry left there is replaced."""

    def __init__(self, directory: RunDirectory):
        self._directory = directory
        self._started = time.monotonic()
        self.path = directory.path
        self._events = self.path / "train"
        # A second event file beside the first would show every point twice.
        shutil.rmtree(self._events, ignore_errors=True)

    def pictures(self, pngs: Mapping[str, bytes]) -> None:
        """Save pictures, name to the content of a PNG file, as `name.png` and as TensorBoard images."""
        with EventFile(self._events) as events:
            for name, png in pngs.items():
                write_bytes(self.path / f"{name}.png", png)
                events.picture(name, png)

    def table(self, name: str, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
        """Save a table as `name.csv`; a NaN, which stands for no number, leaves its cell empty."""
        write_csv(self.path / f"{name}.csv", header, rows)

    def curves(self, name: str, steps: Iterable[int], scalars: Callable[[int], Mapping[str, float]]) -> None:
        """Write scalars to TensorBoard as the run `name`.

        Args:
          name: The run's name, a folder under `train/`.
          steps: Where on the horizontal axis the points are.
          scalars: Gives tags and values at one of them.
        """
        with EventFile(self._events / name) as events:
            for step in steps:
                events.scalars(scalars(step), step)

    def finish(self, final: Mapping[str, Any], summary: Sequence[str]) -> RunResult:
        """Set what was reached in `run.json`, and return it with the lines that a command shows."""
        wall_s = round(time.monotonic() - self._started, 1)
        self._directory.write(status=Status.FINISHED, final={**final, "wall_s": wall_s})
        return RunResult(final, wall_s=wall_s, summary=list(summary))


@contextlib.contextmanager
def recording(context: RunContext, settings: Mapping[str, Any]) -> Iterator[Recorder]:
    """Hold an entry's directory while it is written.

    Args:
      context: What the entry was handed.
      settings: The entry's own settings, name to value: they identify it where the context has no `config`, and its
        seed, if it has one, is kept in `run.json`.

    Yields:
      What writes to the directory.

    Raises:
      RunDirectoryError: The directory can't be used.
    """
    with context.open(lambda: settings) as directory:
        directory.write(status=Status.RUNNING, **({"seed": settings["seed"]} if "seed" in settings else {}))
        yield Recorder(directory)
