"""CartPole (Barto, Sutton & Anderson 1983) as gymnasium has it, and with its velocities hidden."""

import math

import tensorflow as tf

from ngrl.environments.compiled.dynamics import Dynamics, Motion, between, columns, observed

_GRAVITY, _POLE_MASS, _TOTAL_MASS, _HALF_LENGTH = 9.8, 0.1, 1.1, 0.5
_FORCE, _SECONDS = 10.0, 0.02
_MOST_X, _MOST_ANGLE = 2.4, 12 * 2 * math.pi / 360


class CartPole(Dynamics):
    """Physics (x, ẋ, θ, θ̇); every step pays 1, the last one too."""

    num_draws = 4

    def start(self, uniform: tf.Tensor) -> tf.Tensor:
        """All four uniform in ±0.05."""
        return between(uniform, -0.05, 0.05)

    def step(self, physics: tf.Tensor, action: tf.Tensor) -> Motion:
        """One Euler step; it ends where x or θ leaves its bounds."""
        x, x_dot, angle, angle_dot = columns(physics)
        force = tf.where(tf.equal(action, 1), tf.constant(_FORCE, tf.float64), -_FORCE)
        cos, sin = tf.cos(angle), tf.sin(angle)
        pull = (force + _POLE_MASS * _HALF_LENGTH * tf.square(angle_dot) * sin) / _TOTAL_MASS
        angle_acc = (_GRAVITY * sin - cos * pull) / (
            _HALF_LENGTH * (4.0 / 3.0 - _POLE_MASS * tf.square(cos) / _TOTAL_MASS)
        )
        x_acc = pull - _POLE_MASS * _HALF_LENGTH * angle_acc * cos / _TOTAL_MASS
        x, x_dot = x + _SECONDS * x_dot, x_dot + _SECONDS * x_acc
        angle, angle_dot = angle + _SECONDS * angle_dot, angle_dot + _SECONDS * angle_acc
        fallen = (tf.abs(x) > _MOST_X) | (tf.abs(angle) > _MOST_ANGLE)
        return Motion(tf.stack([x, x_dot, angle, angle_dot], axis=1), tf.ones_like(x), fallen)

    def observe(self, physics: tf.Tensor) -> tf.Tensor:
        """(x, ẋ, θ, θ̇)."""
        return tf.cast(physics, tf.float32)


class MaskedCartPole(CartPole):
    """CartPole of which the position and the angle are seen."""

    def observe(self, physics: tf.Tensor) -> tf.Tensor:
        """(x, θ)."""
        x, _, angle, _ = columns(physics)
        return observed(x, angle)
