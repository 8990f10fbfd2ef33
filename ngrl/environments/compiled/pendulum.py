"""The pendulum that is to be swung up, gymnasium's Pendulum-v1."""

import math

import tensorflow as tf

from ngrl.environments.compiled.dynamics import Dynamics, Motion, between, columns, observed

_GRAVITY, _SECONDS, _MOST_SPEED = 10.0, 0.05, 8.0


class Pendulum(Dynamics):
    """Physics (θ, θ̇), θ from upright; a step costs θ² + 0.1 θ̇² + 0.001 u². Nothing terminates."""

    num_draws = 2

    def start(self, uniform: tf.Tensor) -> tf.Tensor:
        """θ uniform in ±π, θ̇ in ±1."""
        return tf.stack([between(uniform[:, 0], -math.pi, math.pi), between(uniform[:, 1], -1.0, 1.0)], axis=1)

    def step(self, physics: tf.Tensor, action: tf.Tensor) -> Motion:
        """Turn it with the torque u = action; gymnasium's products with u are float32."""
        angle, speed = columns(physics)
        torque = action[:, 0]
        upright = tf.math.floormod(angle + math.pi, 2 * math.pi) - math.pi
        effort = tf.cast(0.001 * tf.square(torque), tf.float64)
        cost = tf.square(upright) + 0.1 * tf.square(speed) + effort
        turned = 1.5 * _GRAVITY * tf.sin(angle) + tf.cast(3.0 * torque, tf.float64)
        speed = tf.clip_by_value(speed + turned * _SECONDS, -_MOST_SPEED, _MOST_SPEED)
        angle += speed * _SECONDS
        return Motion(tf.stack([angle, speed], axis=1), -cost, tf.zeros_like(angle, tf.bool))

    def observe(self, physics: tf.Tensor) -> tf.Tensor:
        """(cos θ, sin θ, θ̇)."""
        angle, speed = columns(physics)
        return observed(tf.cos(angle), tf.sin(angle), speed)
