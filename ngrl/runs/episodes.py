"""`episodes.csv`, one row an episode: how it is written, and read while it grows and afterwards. No TensorFlow here."""

import contextlib
import csv
import dataclasses
import math
import os
import warnings
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ngrl.messages import reason
from ngrl.runs.files import CheckpointError, ReadError, writing

#: The field's averages are over this many consecutive episodes.
WINDOW = 100
_COLUMNS = ("episode", "env_steps", "train_steps", "return", "length", "wall_s")


class Episode(NamedTuple):
    """A finished training episode."""

    number: int  # from 1
    env_steps: int  # environment steps of the whole run when it ended
    train_steps: int
    episode_return: float  # undiscounted
    length: int
    wall_s: float  # seconds of training until it ended


@dataclasses.dataclass(frozen=True)
class Episodes:
    """The finished training episodes of a run, in order."""

    env_steps: np.ndarray  # environment steps of the whole run when each ended, [E]
    train_steps: np.ndarray  # updates made until then, [E]
    returns: np.ndarray  # undiscounted, [E]
    wall_s: np.ndarray  # seconds of training until then, [E]

    def __len__(self) -> int:
        return len(self.returns)

    @classmethod
    def read(cls, path: Path) -> "Episodes":
        """Reads `episodes.csv`.

        Raises:
          ReadError: It is missing or damaged.
        """
        _, env_steps, train_steps, returns, _, wall_s = read_columns(path, _COLUMNS)
        return cls(env_steps, train_steps, returns, wall_s)

    @property
    def means(self) -> np.ndarray:
        """Mean returns of 100 consecutive episodes, by the last of them: [E − 99], empty for shorter runs."""
        if len(self) < WINDOW:
            return np.empty(0)
        # A return that isn't finite would stay in a running sum for ever: they are counted beside it.
        finite = np.isfinite(self.returns)
        sums, lacking = (np.cumsum(np.insert(part, 0, 0.0)) for part in (np.where(finite, self.returns, 0.0), ~finite))
        means = (sums[WINDOW:] - sums[:-WINDOW]) / WINDOW
        return np.where(lacking[WINDOW:] > lacking[:-WINDOW], np.nan, means)


def read_columns(path: Path, names: Sequence[str]) -> np.ndarray:
    """The columns of a CSV file of numbers, [columns, rows].

    Raises:
      ReadError: It has other columns than these, is damaged, or can't be read.
    """
    try:
        with path.open(encoding="utf-8") as file:
            if file.readline().rstrip("\n") != ",".join(names):
                raise ReadError(f"{path} has other columns than {', '.join(names)}")
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)  # a file without rows
                return np.loadtxt(file, delimiter=",", ndmin=2).reshape(-1, len(names)).T
    except (OSError, ValueError) as error:
        raise ReadError(f"can't read {path}: {reason(error)}") from error


def is_better(mean: float, best: float) -> bool:
    """Whether a mean is the best so far, NaN before the first; one that is NaN takes no other's place."""
    return mean > best or math.isnan(best)


class EpisodeTail:
    """Follows an `episodes.csv` that grows, and need not exist yet."""

    def __init__(self, path: Path):
        self._path = path
        self._forget()

    def _forget(self) -> None:
        self._position = 0
        self._latest: deque[float] = deque(maxlen=WINDOW)
        self._wall_s = 0.0
        self._figures = {"env_steps": 0, "episodes": 0, "mean": math.nan, "best": math.nan, "rate": math.nan}

    def read(self) -> bool:
        """Read on; whether there was anything new."""
        try:
            with self._path.open("rb") as file:
                if file.seek(0, 2) < self._position:  # cut back to a checkpoint
                    self._forget()
                file.seek(self._position)
                text = file.read()
        except OSError:
            return False
        complete = text[: text.rfind(b"\n") + 1]
        self._position += len(complete)
        lines = complete.decode().splitlines()
        steps_before, wall_before = self._figures["env_steps"], self._wall_s
        for line in lines:
            if not line.startswith("episode"):
                self._add(line)
        if self._wall_s > wall_before:
            self._figures["rate"] = (self._figures["env_steps"] - steps_before) / (self._wall_s - wall_before)
        return bool(lines)

    def _add(self, line: str) -> None:
        number, env_steps, _, episode_return, _, wall_s = line.split(",")
        self._latest.append(float(episode_return))
        self._wall_s = float(wall_s)
        mean = sum(self._latest) / len(self._latest)
        self._figures |= {"env_steps": int(env_steps), "episodes": int(number), "mean": mean}
        if len(self._latest) == WINDOW and is_better(mean, self._figures["best"]):
            self._figures["best"] = mean

    def figures(self) -> dict[str, float]:
        """`env_steps`, `episodes`, `mean` and `best` of 100 episodes, and `rate` in environment steps a second."""
        return dict(self._figures)


class EpisodeLog:
    """`episodes.csv`: one row an episode, cut back to a checkpoint's length on resume.

    Args:
      path: The file.
      resume_at: Size in bytes to cut the file to; 0 starts it anew.

    Raises:
      CheckpointError: The file is shorter than `resume_at`.
      WriteError: It can't be written, e.g. because the disk is full; every method raises it then.
    """

    def __init__(self, path: Path, resume_at: int = 0):
        if resume_at and (not path.is_file() or path.stat().st_size < resume_at):
            raise CheckpointError(f"{path} is shorter than the checkpoint says: restore it, or use --noresume")
        self._path = path
        with writing(path):
            self._file = path.open("r+" if resume_at else "w", newline="", encoding="utf-8")
            self._writer = csv.writer(self._file, lineterminator="\n")
            if resume_at:
                self._file.truncate(resume_at)
                self._file.seek(resume_at)
            else:
                self._writer.writerow(_COLUMNS)

    def write(self, episode: Episode) -> None:
        """Append a row."""
        row = episode._replace(wall_s=round(episode.wall_s, 3))
        with writing(self._path):
            self._writer.writerow(row)

    def flush(self) -> None:
        """Let other processes read what was written. What can't be written now is told of by `sync`."""
        with contextlib.suppress(OSError):
            self._file.flush()

    def sync(self) -> int:
        """Flush to the disk and return the file's size in bytes."""
        with writing(self._path):
            self._file.flush()
            os.fsync(self._file.fileno())
            return self._file.tell()

    def close(self) -> None:
        """Flush and close."""
        with writing(self._path):
            self._file.close()
