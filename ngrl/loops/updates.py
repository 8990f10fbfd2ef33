"""Many updates in one graph."""

from collections.abc import Callable
from typing import Any

import tensorflow as tf


def many_updates(
    update: Callable[[tf.Tensor], Any], zero_extra: Any, count: int | tf.Tensor, streak: tf.Tensor
) -> tuple[tf.Tensor, Any, tf.Tensor, tf.Tensor]:
    """U updates, one after the other, in one graph.

    Args:
      update: Takes the number of an update, from 0, and returns its LossInfo.
      zero_extra: An all-zero `LossInfo.extra`.
      count: U, at least 1.
      streak: [2], how many updates in a row were skipped before, and the cause of the first of them.

    Returns:
      Means over the updates of the loss and of `LossInfo.extra`, the number of skipped updates, and the new streak.
    """
    updates = tf.cast(count, tf.float32)

    def body(
        index: tf.Tensor, loss: tf.Tensor, extra: Any, skipped: tf.Tensor, streak: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor, Any, tf.Tensor, tf.Tensor]:
        info = update(index)
        stats = info.extra.optimizer
        cause = tf.where(tf.equal(streak[0], 0), stats.skip_cause, streak[1])
        streak = stats.skipped * tf.stack([streak[0] + 1, cause])
        extra = tf.nest.map_structure(lambda total, value: total + value / updates, extra, info.extra)
        return index + 1, loss + info.loss / updates, extra, skipped + stats.skipped, streak

    zero = tf.zeros([])
    start = (tf.constant(0), zero, zero_extra, zero, streak)
    _, loss, extra, skipped, streak = tf.while_loop(lambda index, *_: index < count, body, start, parallel_iterations=1)
    return loss, extra, skipped, streak
