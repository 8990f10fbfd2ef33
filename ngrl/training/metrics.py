"""What a run reports: episode statistics, and the one place from which TensorBoard and `episodes.csv` are written."""

import contextlib
import csv
import math
import os
from collections import deque
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from ngrl import tags
from ngrl.training.checkpoints import CheckpointError
from ngrl.training.files import WriteError, failure, writing

WINDOW = 100


class Episode(NamedTuple):
    """A finished training episode."""

    number: int  # from 1
    env_steps: int  # environment steps of the whole run when it ended
    train_steps: int
    episode_return: float  # undiscounted
    length: int
    wall_s: float  # seconds of training until it ended


class EpisodeStatistics:
    """Returns and lengths of the episodes of N environments, and the field's averages over the latest 100.

    `best_average` is the maximum over the run of the mean return of 100 consecutive episodes (Knight & Lerner's
    figure); it is NaN until 100 episodes have ended.

    Args:
      num_envs: N.
    """

    def __init__(self, num_envs: int):
        self._returns = np.zeros(num_envs, np.float64)
        self._lengths = np.zeros(num_envs, np.int64)
        self._window: deque[tuple[float, int]] = deque(maxlen=WINDOW)
        self.env_steps = 0
        self.episodes = 0
        self.best_average = math.nan
        self.best_at_env_steps = 0

    def add(self, rewards: np.ndarray, moved: np.ndarray, ended: np.ndarray) -> list[tuple[float, int]]:
        """Count one step of every environment.

        Args:
          rewards: [N].
          moved: [N] bool, False where the step was a reset.
          ended: [N] bool, True where the step was the last of its episode.

        Returns:
          Return and length of each episode that ended, in the order of the environments.
        """
        self._returns += np.where(moved, rewards, 0.0)
        self._lengths += moved
        self.env_steps += int(moved.sum())
        if not ended.any():
            return []
        finished = []
        for member in np.flatnonzero(ended):
            finished.append((float(self._returns[member]), int(self._lengths[member])))
            self._returns[member] = 0.0
            self._lengths[member] = 0
            self._window.append(finished[-1])
            self.episodes += 1
            if len(self._window) == WINDOW and not self.average_return <= self.best_average:
                self.best_average = self.average_return
                self.best_at_env_steps = self.env_steps
        return finished

    @property
    def average_return(self) -> float:
        """Mean return of the latest (up to) 100 episodes; NaN before the first has ended."""
        return float(np.mean([r for r, _ in self._window])) if self._window else math.nan

    @property
    def average_length(self) -> float:
        """Mean length of the latest (up to) 100 episodes; NaN before the first has ended."""
        return float(np.mean([n for _, n in self._window])) if self._window else math.nan

    def forget_episodes_in_progress(self) -> None:
        """Start every environment's sums at 0, for new episodes."""
        self._returns[:] = 0.0
        self._lengths[:] = 0

    def state(self) -> dict[str, Any]:
        """Everything, as JSON values."""
        return {
            "returns": self._returns.tolist(),
            "lengths": self._lengths.tolist(),
            "window": [list(pair) for pair in self._window],
            "env_steps": self.env_steps,
            "episodes": self.episodes,
            "best_average": self.best_average,
            "best_at_env_steps": self.best_at_env_steps,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Set what `state` returned."""
        self._returns[:] = state["returns"]
        self._lengths[:] = state["lengths"]
        self._window = deque(((float(r), int(n)) for r, n in state["window"]), maxlen=WINDOW)
        self.env_steps = state["env_steps"]
        self.episodes = state["episodes"]
        self.best_average = state["best_average"]
        self.best_at_env_steps = state["best_at_env_steps"]


class EpisodeLog:
    """`episodes.csv`: one row an episode, cut back to a checkpoint's length on resume.

    Args:
      path: The file.
      resume_at: Size in bytes to cut the file to; 0 starts it anew.

    Raises:
      CheckpointError: The file is shorter than `resume_at`.
      WriteError: It can't be written, e.g. because the disk is full; every method raises it then.
    """

    _HEADER = ("episode", "env_steps", "train_steps", "return", "length", "wall_s")

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
                self._writer.writerow(self._HEADER)

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


class Summaries:
    """Scalars and pictures for TensorBoard.

    Args:
      folder: Where the event files go.

    Raises:
      WriteError: They can't be written, e.g. because the disk is full; every method raises it then.
    """

    def __init__(self, folder: Path):
        self._folder = folder
        with self._writing():
            self._writer = tf.summary.create_file_writer(str(folder), flush_millis=10_000)

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except tf.errors.OpError as error:
            raise WriteError(failure(self._folder, error)) from error

    def write(self, scalars: Mapping[str, float], step: int) -> None:
        """Write every finite scalar under its tag; numbers that were not measured (NaN) leave no point."""
        with self._writing(), self._writer.as_default(step=step):
            for tag, value in scalars.items():
                if math.isfinite(value):
                    tf.summary.scalar(tag, value)

    def write_picture(self, tag: str, png: bytes, step: int) -> None:
        """Write a picture, given as the content of a PNG file, under its tag."""
        with self._writing(), self._writer.as_default(step=step):
            tf.summary.image(tag, tf.io.decode_png(png, channels=3)[tf.newaxis])

    def flush(self) -> None:
        """Have everything written so far in the files; without it, what can't be written goes unnoticed."""
        with self._writing():
            self._writer.flush()

    def close(self) -> None:
        """Flush and close."""
        self.flush()
        self._writer.close()


def episode_scalars(statistics: EpisodeStatistics) -> dict[str, float]:
    """Tags and values of the episode statistics, as TF-Agents and Stable-Baselines3 name them."""
    return {
        tags.AVERAGE_RETURN: statistics.average_return,
        "Metrics/AverageEpisodeLength": statistics.average_length,
        "Metrics/NumberOfEpisodes": float(statistics.episodes),
        "Metrics/EnvironmentSteps": float(statistics.env_steps),
        tags.BEST_AVERAGE_RETURN: statistics.best_average,
        "rollout/ep_rew_mean": statistics.average_return,
        "rollout/ep_len_mean": statistics.average_length,
    }
