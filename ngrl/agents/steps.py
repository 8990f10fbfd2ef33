"""One step of an optimizer on a loss of a network's outputs, whichever kind of optimizer it is."""

from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from ngrl.checks import check_optional_number
from ngrl.curvature import GaussNewton, flatten
from ngrl.optimizers import (
    GradientStats,
    NaturalGradient,
    NaturalGradientStats,
    apply_finite_gradients,
    apply_penalised_gradient,
)

Penalty = Callable[[], tf.Tensor]


def is_natural(optimizer: tf.keras.optimizers.Optimizer) -> bool:
    """Whether an optimizer takes natural steps, for which a curvature operator is needed."""
    return isinstance(optimizer, NaturalGradient)


def check_optimizer(what: str, optimizer: Any) -> None:
    """Raise a ValueError for what is no optimizer."""
    if not isinstance(optimizer, tf.keras.optimizers.Optimizer):
        raise ValueError(f"{what}: optimizer must be a tf.keras.optimizers.Optimizer, got {optimizer!r}")


def check_plain(owner: str, optimizer: tf.keras.optimizers.Optimizer, advice: str) -> None:
    """Raise a ValueError for a natural gradient, or what is no optimizer; the message ends with the advice."""
    check_optimizer(owner, optimizer)
    if is_natural(optimizer):
        raise ValueError(f"{owner} follows a plain gradient, its optimizer is NaturalGradient: {advice}")


def check_own(owner: str, one: Any, other: Any) -> None:
    """Raise a ValueError where policy and critic were given one optimizer, which serves the variables of one."""
    if one is other:
        raise ValueError(f"{owner}: policy and critic have one optimizer, and each needs its own: make another")


class Stepper:
    """Steps of an optimizer, natural or not, on a loss of a network's outputs.

    Args:
      owner: Whose optimizer it is, for messages.
      optimizer: `NaturalGradient` or any other Keras optimizer.
      max_gradient_norm: Clip the norm of a plain optimizer's gradients, all variables together.

    Raises:
      ValueError: It is no optimizer, or one that takes no such bound, or the bound is out of its range.
    """

    def __init__(self, owner: str, optimizer: Any, max_gradient_norm: float | None = None):
        check_optimizer(owner, optimizer)
        check_optional_number(f"{owner}: max_gradient_norm", max_gradient_norm, "(0, inf)")
        self._natural = is_natural(optimizer)
        if self._natural and max_gradient_norm is not None:
            raise ValueError(f"{owner}: max_gradient_norm would bend the natural gradient: bound its step with max_kl")
        self._optimizer = optimizer
        self._max_gradient_norm = max_gradient_norm

    def zero_stats(self) -> NaturalGradientStats | GradientStats:
        """All-zero stats of a step."""
        kind = NaturalGradientStats if self._natural else GradientStats
        return kind(*[tf.zeros([])] * len(kind._fields))

    def step(
        self,
        variables: Sequence[tf.Variable],
        forward: Callable[[], tf.Tensor],
        loss_of: Callable[[tf.Tensor], tf.Tensor],
        curvature: Callable[[], GaussNewton],
        penalty_fn: Penalty | None = None,
    ) -> tuple[tf.Tensor, tf.Tensor, Any]:
        """Take a step, unless something is not finite.

        Args:
          variables: What the step changes.
          forward: The outputs [B, K] at the variables' present values.
          loss_of: The loss, a scalar, of outputs.
          curvature: Makes the operator of a natural step, linearised there.
          penalty_fn: What the loss holds besides, the network's regularisers.

        Returns:
          The loss and the outputs [B, K] before the step, and the step's stats.
        """
        if self._natural:
            operator = curvature()
            loss, stats = natural_step(self._optimizer, operator, loss_of, lambda: loss_of(forward()), penalty_fn)
            return loss, operator.outputs, stats
        seen = []

        def loss_fn() -> tf.Tensor:
            seen.append(forward())
            return loss_of(seen[0])

        loss, plain = plain_step(self._optimizer, variables, loss_fn, self._max_gradient_norm, penalty_fn)
        return loss, seen[0], plain


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
    penalty_fn: Penalty | None = None,
    **searches: Any,
) -> tuple[tf.Tensor, NaturalGradientStats]:
    """`Stepper.step` for a natural gradient; `searches` is what `apply_output_gradient` takes for a line search.

    `loss_fn` is the loss without the penalty at the variables' present values.
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
    penalty_fn: Penalty | None = None,
) -> tuple[tf.Tensor, GradientStats]:
    """`Stepper.step` for any other optimizer: a guarded step along the gradient of a loss."""
    with tf.GradientTape() as tape:
        loss = loss_fn() if penalty_fn is None else loss_fn() + penalty_fn()
    pairs = zip(tape.gradient(loss, variables), variables, strict=True)
    return loss, apply_finite_gradients(optimizer, pairs, loss, max_gradient_norm)
