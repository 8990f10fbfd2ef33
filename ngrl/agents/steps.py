"""One step of an optimizer on a loss: what the agents' updates have in common."""

from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from ngrl.curvature import GaussNewton, flatten
from ngrl.optimizers import (
    GradientStats,
    NaturalGradient,
    NaturalGradientStats,
    apply_finite_gradients,
    apply_penalised_gradient,
)


def differentiated(loss_of: Callable[[tf.Tensor], tf.Tensor], outputs: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """A loss of a network's outputs [B, K], and its gradient ∂L/∂y [B, K]."""
    with tf.GradientTape() as tape:
        tape.watch(outputs)
        loss = loss_of(outputs)
    return loss, tape.gradient(loss, outputs)


def natural_step(
    optimizer: NaturalGradient,
    operator: GaussNewton,
    loss_of: Callable[[tf.Tensor], tf.Tensor],
    loss_fn: Callable[[], tf.Tensor],
    penalty_fn: Callable[[], tf.Tensor] | None = None,
    **searches: Any,
) -> tuple[tf.Tensor, NaturalGradientStats]:
    """A natural step for a loss of the network's outputs.

    Args:
      optimizer: Takes the step.
      operator: The curvature, linearised where the step starts.
      loss_of: The loss, a scalar, of outputs [B, K].
      loss_fn: The same loss at the variables' present values.
      penalty_fn: What the loss holds besides at the variables' present values, the network's regularisers.
      **searches: What a line search needs besides, as `NaturalGradient.apply_output_gradient` takes it.

    Returns:
      The loss before the step, and what the step did.
    """
    loss, output_gradient = differentiated(loss_of, operator.outputs)
    if penalty_fn is None:
        return loss, optimizer.apply_output_gradient(output_gradient, operator, loss=loss, loss_fn=loss_fn, **searches)
    variables = list(operator.parameters["variables"])
    with tf.GradientTape() as tape:
        penalty = penalty_fn()
    pull = tape.gradient(penalty, variables, unconnected_gradients=tf.UnconnectedGradients.ZERO)
    loss += penalty
    return loss, apply_penalised_gradient(
        optimizer, output_gradient, operator, flatten(pull), loss, lambda: loss_fn() + penalty_fn(), **searches
    )


def plain_step(
    optimizer: tf.keras.optimizers.Optimizer,
    variables: Sequence[tf.Variable],
    loss_fn: Callable[[], tf.Tensor],
    max_gradient_norm: float | None = None,
    penalty_fn: Callable[[], tf.Tensor] | None = None,
) -> tuple[tf.Tensor, GradientStats]:
    """A guarded step along the gradient of a loss.

    Args:
      optimizer: Any Keras optimizer but `NaturalGradient`, built for the variables.
      variables: What the step changes.
      loss_fn: The loss, a scalar, at the variables' present values.
      max_gradient_norm: Clip the norm of all gradients together to this.
      penalty_fn: As in `natural_step`.

    Returns:
      The loss before the step, and what the step did.
    """
    with tf.GradientTape() as tape:
        loss = loss_fn() if penalty_fn is None else loss_fn() + penalty_fn()
    pairs = zip(tape.gradient(loss, variables), variables, strict=True)
    return loss, apply_finite_gradients(optimizer, pairs, loss, max_gradient_norm)
