"""Settings of an agent that may change over its train steps."""

import tensorflow as tf

from ngrl.checks import check_number
from ngrl.optimizers.damping import Schedule


def check_weight(owner: str, argument: str, value: float | Schedule) -> None:
    """Refuse a number that is negative or infinite; what a schedule gives is known only later.

    Raises:
      ValueError: The number is negative, infinite or none at all.
    """
    if not isinstance(value, tf.keras.optimizers.schedules.LearningRateSchedule):
        check_number(f"{owner}: {argument}", value, "[0, inf)")


def weight_at(value: float | Schedule, step: tf.Tensor) -> tf.Tensor:
    """The weight at a train step, a float32 scalar; what a schedule gives below zero counts as zero."""
    if not isinstance(value, tf.keras.optimizers.schedules.LearningRateSchedule):
        return tf.constant(value, tf.float32)
    return tf.maximum(tf.cast(value(step), tf.float32), 0)


def counter(given: tf.Variable | None) -> tf.Variable:
    """Counts train steps: the variable that was given, or one of its own."""
    return tf.Variable(0, dtype=tf.int64, name="train_step") if given is None else given
