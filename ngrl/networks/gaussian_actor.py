"""A policy of two numbers an action: its mean and its standard deviation."""

import math
from typing import Any

import tensorflow as tf

from ngrl.checks import check_number
from ngrl.configurable import configurable
from ngrl.networks.actor_network import ActorNetwork
from ngrl.networks.encoding import ObservationNormaliser


@configurable
class GaussianActor(ActorNetwork):
    """a ~ N(μ, σ²) whatever the observation, with μ and σ themselves as the parameters (Hoagland, Fig. 4).

    σ, not its logarithm: a plain gradient depends on the choice, and with log σ it takes other paths than the paper's.
    The Fisher matrix is diag(1/σ², 2/σ²) for each action. Where training has carried σ below its bound, `project` sets
    it back onto it.

    Args:
      input_tensor_spec: As in `ActorNetwork`; only the batch size of the observations matters.
      action_spec: One vector of real numbers.
      mean: Initial μ, of every action.
      std: Initial σ, of every action.
      min_log_std: Lower bound of log σ.
      normaliser: As in `ActorNetwork`.
      seed: Not used: nothing here is drawn.
      name: Name of the network.

    Raises:
      ValueError: The actions are discrete, or an argument is out of its range.
    """

    def __init__(
        self,
        input_tensor_spec: Any,
        action_spec: Any,
        mean: float = 0.0,
        std: float = 1.0,
        min_log_std: float = -5.0,
        normaliser: ObservationNormaliser | None = None,
        seed: int = 0,
        name: str = "GaussianActor",
    ):
        check_number("mean", mean, "(-inf, inf)")
        check_number("std", std, "(0, inf)")
        super().__init__(
            input_tensor_spec,
            action_spec,
            hidden_layers=(),
            std="state_dependent",  # so that the base class makes no log σ of its own; it refuses discrete actions
            initial_log_std=math.log(std),
            min_log_std=min_log_std,
            normaliser=normaliser,
            seed=seed,
            name=name,
        )
        self.layers_in_order = []
        size = int(tf.nest.flatten(action_spec)[0].shape[0])
        self._mean = tf.Variable(tf.fill([size], float(mean)), name="mean")
        self._std = tf.Variable(tf.fill([size], float(std)), name="std")

    @property
    def mean(self) -> tf.Variable:
        """μ [D]."""
        return self._mean

    @property
    def std(self) -> tf.Variable:
        """σ [D]."""
        return self._std

    def distribution_parameters(self, observation: Any) -> tf.Tensor:
        """μ and log σ [B, 2D], the same for every observation [B, ...]."""
        std = tf.maximum(self._std, math.exp(self._min_log_std))
        row = tf.concat([self._mean, tf.math.log(std)], axis=0)
        return tf.tile(row[tf.newaxis], [tf.shape(tf.nest.flatten(observation)[0])[0], 1])

    def project(self) -> None:
        """Set a σ that lies below its bound onto the bound."""
        self._std.assign(tf.maximum(self._std, math.exp(self._min_log_std)))
