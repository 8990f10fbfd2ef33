"""Mountain car (Moore 1990), with three actions and with a continuous one, as gymnasium has them."""

import tensorflow as tf

from ngrl.environments.compiled.dynamics import Dynamics, Motion, between, columns

_LEFT, _RIGHT, _MOST_SPEED, _GRAVITY = -1.2, 0.6, 0.07, 0.0025


class MountainCar(Dynamics):
    """Physics (position, velocity); every step costs 1. It ends on the hill at 0.5, reached at no negative velocity."""

    num_draws = 1

    def start(self, uniform: tf.Tensor) -> tf.Tensor:
        """At rest, uniform in [-0.6, -0.4)."""
        position = between(uniform[:, 0], -0.6, -0.4)
        return tf.stack([position, tf.zeros_like(position)], axis=1)

    def step(self, physics: tf.Tensor, action: tf.Tensor) -> Motion:
        """Accelerate by 0.001 to the left (0), not at all (1) or to the right (2), and roll."""
        position, velocity = columns(physics)
        push = (tf.cast(action, tf.float64) - 1.0) * 0.001
        velocity = tf.clip_by_value(velocity + push - _GRAVITY * tf.cos(3.0 * position), -_MOST_SPEED, _MOST_SPEED)
        position = tf.clip_by_value(position + velocity, _LEFT, _RIGHT)
        velocity = _stopped(position, velocity)
        arrived = (position >= 0.5) & (velocity >= 0)
        return Motion(tf.stack([position, velocity], axis=1), -tf.ones_like(position), arrived)

    def observe(self, physics: tf.Tensor) -> tf.Tensor:
        """(position, velocity)."""
        return tf.cast(physics, tf.float32)


class ContinuousMountainCar(MountainCar):
    """An engine of any power in [-1, 1], whose square costs; the hill at 0.45 pays 100.

    Gymnasium keeps its state in float32, and so each number here is one of float32.
    """

    def step(self, physics: tf.Tensor, action: tf.Tensor) -> Motion:
        """Accelerate by 0.0015 times the action, and roll."""
        position, velocity = columns(physics)
        power = action[:, 0]
        slope = tf.cast(_GRAVITY * tf.cos(3.0 * position), tf.float32)
        acceleration = power * tf.constant(0.0015) - slope
        velocity = tf.clip_by_value(tf.cast(velocity, tf.float32) + acceleration, -_MOST_SPEED, _MOST_SPEED)
        # In float64: only at an episode's beginning is the position not one of float32.
        position = tf.cast(position + tf.cast(velocity, tf.float64), tf.float32)
        position = tf.clip_by_value(position, _LEFT, _RIGHT)
        velocity = _stopped(position, velocity)
        arrived = (position >= 0.45) & (velocity >= 0)
        cost = tf.square(tf.cast(power, tf.float64)) * 0.1
        reward = tf.where(arrived, tf.constant(100.0, tf.float64), 0.0) - cost
        return Motion(tf.cast(tf.stack([position, velocity], axis=1), tf.float64), reward, arrived)


def _stopped(position: tf.Tensor, velocity: tf.Tensor) -> tf.Tensor:
    """The velocity, 0 where the left wall takes it."""
    against_wall = tf.equal(position, tf.constant(_LEFT, position.dtype)) & (velocity < 0)
    return tf.where(against_wall, tf.zeros_like(velocity), velocity)
