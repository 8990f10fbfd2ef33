"""What one kind of compiled environment does in a step, as functions of tensors: no state, no episodes, no NumPy."""

import abc
from typing import NamedTuple

import tensorflow as tf


class Motion(NamedTuple):
    """What N members' steps lead to and pay."""

    physics: tf.Tensor  # [N, D] float64
    reward: tf.Tensor  # [N] float64
    terminated: tf.Tensor  # [N] bool


class Dynamics(abc.ABC):
    """How N members begin and move; subclasses are pure functions, batched over members.

    The physics [N, D] is float64, as gymnasium computes it, whatever the observations are.

    Attributes:
      num_draws: Uniform numbers K that a beginning takes.
    """

    num_draws: int

    @abc.abstractmethod
    def start(self, uniform: tf.Tensor) -> tf.Tensor:
        """Where episodes begin [N, D], given uniform numbers in [0, 1), float64 [N, K]."""

    @abc.abstractmethod
    def step(self, physics: tf.Tensor, action: tf.Tensor) -> Motion:
        """One step of every member, from physics [N, D] with actions [N] (discrete) or [N, A] within their bounds."""

    @abc.abstractmethod
    def observe(self, physics: tf.Tensor) -> tf.Tensor:
        """Observations [N, ...] float32."""


def columns(physics: tf.Tensor) -> list[tf.Tensor]:
    """The D columns [N] of physics [N, D]."""
    return tf.unstack(physics, axis=1)


def between(uniform: tf.Tensor, low: float, high: float) -> tf.Tensor:
    """Numbers in [0, 1) as numbers in [low, high)."""
    return low + (high - low) * uniform


def observed(*values: tf.Tensor) -> tf.Tensor:
    """Columns [N] as observations [N, D] float32."""
    return tf.cast(tf.stack(values, axis=1), tf.float32)
