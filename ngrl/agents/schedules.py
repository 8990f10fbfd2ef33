"""Settings of an agent that may change over its train steps."""

import tensorflow as tf

from ngrl.optimizers.damping import Schedule


def check_weight(owner: str, argument: str, value: float | Schedule) -> None:
    """Refuse a number that is negative; what a schedule gives is known only later.

    Raises:
      ValueError: So it is.
    """
    if not isinstance(value, tf.keras.optimizers.schedules.LearningRateSchedule) and not value >= 0:
        raise ValueError(f"{owner}: {argument} must not be negative, got {value}")


def weight_at(value: float | Schedule, step: tf.Tensor) -> tf.Tensor:
    """The weight at a train step, a float32 scalar; what a schedule gives below zero counts as zero."""
    if not isinstance(value, tf.keras.optimizers.schedules.LearningRateSchedule):
        return tf.constant(value, tf.float32)
    return tf.maximum(tf.cast(value(step), tf.float32), 0)
