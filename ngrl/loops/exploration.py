"""Schedules of ε, the probability of a random action."""

import inspect
from typing import Any, Literal, Protocol

import tensorflow as tf

from ngrl.checks import check_choice, check_count, check_number
from ngrl.configurable import configurable


class EpsilonSchedule(Protocol):
    """ε as a function of how far a run has come."""

    def __call__(self, env_steps: int, episodes: int) -> float:
        """ε after this many environment steps and finished episodes."""

    def in_graph(self, env_steps: Any, episodes: Any) -> Any:
        """The same of scalar tensors; only compiled environments need it."""


def check_schedule(schedule: Any) -> None:
    """Refuse what is no `EpsilonSchedule`.

    Raises:
      ValueError: It isn't called with the counts of environment steps and episodes.
    """
    try:
        inspect.signature(schedule).bind(0, 0)
    except TypeError as error:
        raise ValueError(
            f"epsilon is called as epsilon(env_steps, episodes), and {schedule!r} can't be: {error}"
        ) from None


def _check(start: float, end: float) -> None:
    if not 0 <= end <= start <= 1:
        raise ValueError(f"epsilon must fall within [0, 1], got {start} to {end}")


@configurable
class LinearEpsilon:
    """ε falls linearly from `start` to `end` over `steps` environment steps (Mnih et al. 2013).

    Args:
      start: ε at the beginning, in [0, 1].
      end: ε from `steps` on, in [0, 1].
      steps: Environment steps over which it falls.

    Raises:
      ValueError: The values do not fall within [0, 1], or `steps` is not positive.
    """

    def __init__(self, start: float = 1.0, end: float = 0.02, steps: int = 10_000):
        _check(start, end)
        check_count("steps", steps)
        self._start, self._end, self._steps = start, end, steps

    def __call__(self, env_steps: int, episodes: int) -> float:
        """ε after `env_steps`."""
        del episodes
        return self._start + (self._end - self._start) * min(env_steps / self._steps, 1.0)

    def in_graph(self, env_steps: tf.Tensor, episodes: tf.Tensor) -> tf.Tensor:
        """The same of tensors, float64."""
        del episodes
        done = tf.minimum(tf.cast(env_steps, tf.float64) / self._steps, 1.0)
        return self._start + (self._end - self._start) * done


@configurable
class ExponentialEpsilon:
    """ε = max(`end`, `start` · `decay`^n), n counting environment steps or, as Knight & Lerner do, episodes.

    Args:
      start: ε at the beginning, in [0, 1].
      end: The least ε, in [0, 1].
      decay: Factor from one to the next, in (0, 1].
      per: What n counts: "episode" or "step".

    Raises:
      ValueError: The values do not fall within [0, 1], or `per` is neither "episode" nor "step".
    """

    def __init__(
        self, start: float = 1.0, end: float = 0.02, decay: float = 0.995, per: Literal["episode", "step"] = "episode"
    ):
        _check(start, end)
        check_number("decay", decay, "(0, 1]")
        check_choice("per", per, ("episode", "step"))
        self._start, self._end, self._decay, self._per = start, end, decay, per

    def __call__(self, env_steps: int, episodes: int) -> float:
        """ε after `env_steps` or `episodes`."""
        count = episodes if self._per == "episode" else env_steps
        return max(self._end, self._start * self._decay**count)

    def in_graph(self, env_steps: tf.Tensor, episodes: tf.Tensor) -> tf.Tensor:
        """The same of tensors, float64."""
        count = tf.cast(episodes if self._per == "episode" else env_steps, tf.float64)
        return tf.maximum(
            tf.constant(self._end, tf.float64), self._start * tf.pow(tf.constant(self._decay, tf.float64), count)
        )
