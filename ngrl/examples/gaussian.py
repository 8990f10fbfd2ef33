"""A Gaussian on the line, with ngrl's densities and divergences for single numbers."""

import dataclasses
import math

import numpy as np
import tensorflow as tf

from ngrl import losses
from ngrl.checks import check_number


@dataclasses.dataclass(frozen=True)
class Gaussian:
    """N(mean, std²), by its mean and standard deviation, not its variance.

    Raises:
      ValueError: A number is not finite, or the standard deviation is not positive.
    """

    mean: float
    std: float

    def __post_init__(self) -> None:
        check_number("mean", self.mean, "(-inf, inf)")
        check_number("std", self.std, "(0, inf)")

    def __str__(self) -> str:
        return f"N({self.mean:g}, {self.std:g}²)".replace("-", "−")

    def density(self, x: np.ndarray) -> np.ndarray:
        """p(x), [N] to [N]."""
        actions = tf.constant(x, tf.float64)[:, tf.newaxis]
        log_prob = losses.diagonal_gaussian_log_prob(tf.fill(actions.shape, self._mean[0]), self._log_std, actions)
        return np.exp(log_prob.numpy())

    def kl(self, other: "Gaussian") -> float:
        """KL(self ‖ other) in nats, in closed form."""
        return float(losses.kl_diagonal_gaussian(self._mean, self._log_std, other._mean, other._log_std))

    def symmetric_kl(self, other: "Gaussian") -> float:
        """½ (KL(self ‖ other) + KL(other ‖ self)) in nats."""
        return float(losses.symmetric_kl_diagonal_gaussian(self._mean, self._log_std, other._mean, other._log_std))

    def parameter_distance(self, other: "Gaussian") -> float:
        """√((μ₁ − μ₂)² + (σ₁ − σ₂)²), the Euclidean distance of the parameters."""
        return math.hypot(self.mean - other.mean, self.std - other.std)

    @property
    def _mean(self) -> tf.Tensor:
        return tf.constant([self.mean], tf.float64)

    @property
    def _log_std(self) -> tf.Tensor:
        return tf.constant([math.log(self.std)], tf.float64)
