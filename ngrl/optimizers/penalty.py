"""Natural steps on losses that hold more than what depends on the network's outputs: regularisers."""

from typing import Any

import tensorflow as tf

from ngrl.curvature import GaussNewton, unflatten
from ngrl.optimizers.damping import FixedDamping, ScheduledDamping
from ngrl.optimizers.natural_gradient import NaturalGradient
from ngrl.optimizers.step import NaturalGradientStats, ScalarFn


def apply_penalised_gradient(
    optimizer: NaturalGradient,
    output_gradient: tf.Tensor,
    operator: GaussNewton,
    penalty_gradient: tf.Tensor,
    loss: tf.Tensor,
    loss_fn: ScalarFn,
    **functions: Any,
) -> NaturalGradientStats:
    """Take the step for L(y) + R(θ): `(F + λI) x = Jᵀ ∂L/∂y + ∂R/∂θ`.

    R counts in the loss and its gradient, not in F. Its gradient lies outside of the rows of the Jacobian, so that
    `Dual` can't take the short way through them: its form for any right-hand side divides by λ.

    Args:
      optimizer: Takes the step.
      output_gradient: ∂L/∂y [B, K].
      operator: The curvature F of L.
      penalty_gradient: ∂R/∂θ [P].
      loss: L + R, a scalar.
      loss_fn: The same at the variables' present values.
      **functions: What a line search needs besides, as `NaturalGradient.apply_natural_gradient` takes it.

    Raises:
      ValueError: The solver needs damping for such gradients, as `Dual` does, and there is none.
    """
    check_penalised(optimizer)
    variables = list(operator.parameters["variables"])
    gradient = unflatten(operator.vjp(output_gradient) + penalty_gradient, variables)
    pairs = zip(gradient, variables, strict=True)
    return optimizer.apply_natural_gradient(pairs, operator, loss, loss_fn=loss_fn, **functions)


def check_penalised(optimizer: NaturalGradient) -> None:
    """Refuse an optimizer that can't take a step for a loss with regularisers.

    Raises:
      ValueError: As `check_damped_outside_rows`; or its solver takes only gradients that outputs give.
    """
    if optimizer.solver.needs_output_gradient:
        raise ValueError(
            "the model has regularisers or other losses of its own, whose gradient no outputs give, as "
            'Kfac(kind="empirical") needs it: take another kind'
        )
    check_damped_outside_rows(optimizer, "the model has regularisers or other losses of its own")


def check_damped_outside_rows(optimizer: NaturalGradient, why: str) -> None:
    """Refuse an optimizer whose solver takes gradients outside of the operator's rows only with damping, and has none.

    Args:
      optimizer: To be asked before its first step.
      why: What brings such gradients, as the message begins.

    Raises:
      ValueError: The solver works on rows alone, as `Dual` does, and its damping is 0 or a schedule that begins with 0:
        a step that is skipped brings no schedule forward.
    """
    rule = optimizer.damping_rule
    known = isinstance(rule, (FixedDamping, ScheduledDamping))
    if optimizer.solver.needs_damping_outside_rows and known and not rule.initial > 0:
        raise ValueError(
            f"{why}, with which {type(optimizer.solver).__name__} needs damping above 0: give NaturalGradient a "
            "damping, or a solver such as ConjugateGradient"
        )
