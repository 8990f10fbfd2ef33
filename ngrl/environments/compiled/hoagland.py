"""Hoagland's toy task, as `ngrl.environments.toy.HoaglandToy` has it."""

import tensorflow as tf

from ngrl.environments.compiled.dynamics import Dynamics, Motion


class HoaglandToy(Dynamics):
    """Physics (s): a pays −s² − a² and leads to s + a. Nothing terminates."""

    num_draws = 0

    def start(self, uniform: tf.Tensor) -> tf.Tensor:
        """At the origin."""
        return tf.zeros([uniform.shape[0], 1], tf.float64)

    def step(self, physics: tf.Tensor, action: tf.Tensor) -> Motion:
        """Walk."""
        distance = tf.cast(action, tf.float64)
        reward = -tf.square(physics[:, 0]) - tf.square(distance[:, 0])
        return Motion(physics + distance, reward, tf.zeros_like(reward, tf.bool))

    def observe(self, physics: tf.Tensor) -> tf.Tensor:
        """(s)."""
        return tf.cast(physics, tf.float32)
