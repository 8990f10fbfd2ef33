"""Plain gradient steps of any Keras optimizer, behind the same guard as the natural-gradient step."""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import tensorflow as tf

from ngrl.optimizers.step import SkipCause, scalar


class GradientStats(NamedTuple):
    """What one plain gradient step did: float32 scalars."""

    gradient_norm: tf.Tensor  # ‖g‖ before clipping
    skipped: tf.Tensor  # 1 where nothing was assigned
    skip_cause: tf.Tensor  # a SkipCause

    def scalars(self) -> dict[str, tf.Tensor]:
        """As `NaturalGradientStats.scalars`."""
        return {"gradient_norm": self.gradient_norm}


def apply_finite_gradients(
    optimizer: tf.keras.optimizers.Optimizer,
    grads_and_vars: Iterable[tuple[tf.Tensor, tf.Variable]],
    loss: tf.Tensor,
    max_gradient_norm: float | None = None,
) -> GradientStats:
    """Apply gradients unless the loss or a gradient is not finite; then every weight and slot stays as it was.

    Args:
      optimizer: A Keras optimizer that has been built for these variables.
      grads_and_vars: Pairs of gradient and variable.
      loss: The loss the gradients belong to, a scalar.
      max_gradient_norm: Clip the norm of all gradients together to this.

    Raises:
      ValueError: The loss is no scalar.
    """
    loss = scalar(loss, "loss")
    gradients, variables = zip(*grads_and_vars, strict=True)
    norm = tf.linalg.global_norm(sum_slices(gradients))
    cause = tf.where(tf.math.is_finite(norm), SkipCause.NONE.value, SkipCause.GRADIENT.value)
    cause = tf.where(tf.math.is_finite(loss), cause, SkipCause.LOSS.value)
    if max_gradient_norm is not None:
        gradients, _ = tf.clip_by_global_norm(sum_slices(gradients), max_gradient_norm, use_norm=norm)

    def apply() -> tf.Tensor:
        optimizer.apply_gradients(zip(gradients, variables, strict=True))
        return tf.constant(0.0)

    skipped = tf.cond(tf.equal(cause, SkipCause.NONE), apply, lambda: tf.constant(1.0))
    return GradientStats(tf.cast(norm, tf.float32), skipped, tf.cast(cause, tf.float32))


def sum_slices(gradients: Sequence[Any]) -> list[Any]:
    """Gradients of which no row is in several slices, as look-ups of an embedding give them: their norm is that of all.

    What is no `tf.IndexedSlices` stays as it is.
    """
    return [_sum(gradient) if isinstance(gradient, tf.IndexedSlices) else gradient for gradient in gradients]


def _sum(slices: tf.IndexedSlices) -> tf.IndexedSlices:
    # As Keras' optimizers sum them.
    indices, places = tf.unique(slices.indices)
    values = tf.math.unsorted_segment_sum(slices.values, places, tf.shape(indices)[0])
    return tf.IndexedSlices(values, indices, slices.dense_shape)
