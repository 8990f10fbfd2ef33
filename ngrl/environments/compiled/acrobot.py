"""Acrobot as gymnasium's Acrobot-v1 has it: the equations of Sutton & Barto's book, links of length and mass 1."""

import math

import tensorflow as tf

from ngrl.environments.compiled.dynamics import Dynamics, Motion, between, columns, observed

_GRAVITY, _CENTRE, _INERTIA, _SECONDS = 9.8, 0.5, 1.0, 0.2
_MOST_SPEEDS = (4 * math.pi, 9 * math.pi)


class Acrobot(Dynamics):
    """Physics (θ₁, θ₂, θ̇₁, θ̇₂), θ₁ from hanging, θ₂ between the links; a step costs 1 unless it reaches the bar."""

    num_draws = 4

    def start(self, uniform: tf.Tensor) -> tf.Tensor:
        """All four uniform in ±0.1, in float32."""
        return tf.cast(tf.cast(between(uniform, -0.1, 0.1), tf.float32), tf.float64)

    def step(self, physics: tf.Tensor, action: tf.Tensor) -> Motion:
        """One step of Runge and Kutta's with torque −1 (0), 0 (1) or 1 (2) between the links."""
        torque = tf.cast(action, tf.float64) - 1.0
        k1 = _derivatives(physics, torque)
        k2 = _derivatives(physics + _SECONDS / 2 * k1, torque)
        k3 = _derivatives(physics + _SECONDS / 2 * k2, torque)
        k4 = _derivatives(physics + _SECONDS * k3, torque)
        angle1, angle2, speed1, speed2 = columns(physics + _SECONDS / 6.0 * (k1 + 2 * k2 + 2 * k3 + k4))
        angle1, angle2 = _wrapped(angle1), _wrapped(angle2)
        speed1, speed2 = (
            tf.clip_by_value(speed, -most, most) for speed, most in zip((speed1, speed2), _MOST_SPEEDS, strict=True)
        )
        reached = -tf.cos(angle1) - tf.cos(angle2 + angle1) > 1.0
        reward = tf.where(reached, tf.zeros_like(angle1), -1.0)
        return Motion(tf.stack([angle1, angle2, speed1, speed2], axis=1), reward, reached)

    def observe(self, physics: tf.Tensor) -> tf.Tensor:
        """(cos θ₁, sin θ₁, cos θ₂, sin θ₂, θ̇₁, θ̇₂)."""
        angle1, angle2, speed1, speed2 = columns(physics)
        return observed(tf.cos(angle1), tf.sin(angle1), tf.cos(angle2), tf.sin(angle2), speed1, speed2)


def _derivatives(physics: tf.Tensor, torque: tf.Tensor) -> tf.Tensor:
    """The physics' derivatives in time [N, 4]: the book's equations with the numbers of the links put in."""
    angle1, angle2, speed1, speed2 = columns(physics)
    cos2, sin2 = tf.cos(angle2), tf.sin(angle2)
    d1 = _CENTRE**2 + 1 + _CENTRE**2 + 2 * _CENTRE * cos2 + 2 * _INERTIA
    d2 = _CENTRE**2 + _CENTRE * cos2 + _INERTIA
    phi2 = _CENTRE * _GRAVITY * tf.sin(angle1 + angle2)  # cos(α − π/2) = sin α
    phi1 = (
        -_CENTRE * tf.square(speed2) * sin2
        - 2 * _CENTRE * speed2 * speed1 * sin2
        + (_CENTRE + 1) * _GRAVITY * tf.sin(angle1)
        + phi2
    )
    acc2 = (torque + d2 / d1 * phi1 - _CENTRE * tf.square(speed1) * sin2 - phi2) / (
        _CENTRE**2 + _INERTIA - tf.square(d2) / d1
    )
    acc1 = -(d2 * acc2 + phi1) / d1
    return tf.stack([speed1, speed2, acc1, acc2], axis=1)


def _wrapped(angle: tf.Tensor) -> tf.Tensor:
    """The angle in [−π, π]; what lies there already stays."""
    turns = tf.maximum(tf.math.ceil((angle - math.pi) / (2 * math.pi)), 0.0)
    turns += tf.minimum(tf.math.floor((angle + math.pi) / (2 * math.pi)), 0.0)
    return angle - 2 * math.pi * turns
