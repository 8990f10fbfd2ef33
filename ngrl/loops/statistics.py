"""Returns and lengths of training episodes, and the field's averages over the latest 100 of them."""

import math
from collections import deque
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from ngrl import tags
from ngrl.runs.episodes import WINDOW, is_better


class FinishedEpisode(NamedTuple):
    """A training episode that has come to its end."""

    episode_return: float
    length: int
    env_steps: int  # of all environments together when it ended


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

    def add_amid(self, rewards: np.ndarray) -> None:
        """Count one step [N] of every environment in the midst of its episode: `add` where all move and none ends."""
        self._returns += rewards
        self._lengths += 1
        self.env_steps += len(rewards)

    def add(self, rewards: np.ndarray, moved: np.ndarray, ended: np.ndarray) -> list[FinishedEpisode]:
        """Count one step of every environment.

        Args:
          rewards: [N].
          moved: [N] bool, False where the step was a reset.
          ended: [N] bool, True where the step was the last of its episode.

        Returns:
          The episodes that ended, in the order of the environments.
        """
        self._returns += np.where(moved, rewards, 0.0)
        self._lengths += moved
        self.env_steps += int(moved.sum())
        if not ended.any():
            return []
        finished = []
        for member in np.flatnonzero(ended):
            finished.append(FinishedEpisode(float(self._returns[member]), int(self._lengths[member]), self.env_steps))
            self._returns[member] = 0.0
            self._lengths[member] = 0
            self._window.append(finished[-1][:2])
            self.episodes += 1
            if len(self._window) == WINDOW and is_better(self.average_return, self.best_average):
                self.best_average = self.average_return
                self.best_at_env_steps = self.env_steps
        return finished

    def add_many(self, rewards: np.ndarray, moved: np.ndarray, ended: np.ndarray) -> list[FinishedEpisode]:
        """Count T steps of every environment, to the numbers that `add` gives step by step.

        Args:
          rewards: [T, N], and so the rest.
          moved: As in `add`.
          ended: As in `add`.

        Returns:
          The episodes that ended, in their order.
        """
        finished: list[FinishedEpisode] = []
        start = 0
        paid = np.where(moved, rewards, 0.0)
        for row in map(int, np.flatnonzero(ended.any(axis=1))):
            self._add_without_ends(paid[start:row], moved[start:row])
            finished += self.add(rewards[row], moved[row], ended[row])
            start = row + 1
        self._add_without_ends(paid[start:], moved[start:])
        return finished

    def _add_without_ends(self, paid: np.ndarray, moved: np.ndarray) -> None:
        # Row after row, as `add` does: a sum along rows would round otherwise.
        self._returns = np.add.accumulate(np.vstack([self._returns, paid]), axis=0)[-1]
        self._lengths += moved.sum(axis=0)
        self.env_steps += int(moved.sum())

    @property
    def average_return(self) -> float:
        """Mean return of the latest (up to) 100 episodes; NaN before the first has ended."""
        return float(np.mean([r for r, _ in self._window])) if self._window else math.nan

    @property
    def average_length(self) -> float:
        """Mean length of the latest (up to) 100 episodes; NaN before the first has ended."""
        return float(np.mean([n for _, n in self._window])) if self._window else math.nan

    def forget_episodes_in_progress(self, members: np.ndarray | slice = slice(None)) -> None:
        """Start the sums of these environments, or of all, at 0, for new episodes."""
        self._returns[members] = 0.0
        self._lengths[members] = 0

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
