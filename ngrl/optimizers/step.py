"""What a natural-gradient step is made of: its direction, its length, what it is predicted to do, and its record.

Symbols as in `ngrl.optimizers.natural_gradient`: g = ∇L(θ), F the curvature, x the direction, Δθ = −s·x the step.
"""

import enum
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import tensorflow as tf

from ngrl import solvers

#: Evaluates a scalar, such as the loss, at the variables' present values.
ScalarFn: TypeAlias = Callable[[], tf.Tensor]


class SkipCause(enum.IntEnum):
    """What was not finite when a step was skipped; the first of these that holds.

    `CURVATURE_PRODUCT` stands for a solver that broke down: on a product that is not finite, or on F + λI that is not
    positive definite to the dtype's accuracy. `SOLUTION` stands for the step as well: for a rate or a radius that a
    schedule gave and that is NaN.
    """

    NONE = 0
    LOSS = 1
    GRADIENT = 2
    CURVATURE_PRODUCT = 3
    SOLUTION = 4


class NaturalGradientStats(NamedTuple):
    """What one step did: float32 scalars.

    A *skipped* step met a number that is not finite before anything was assigned; a *failed* one found no length that
    its line search accepts, and its parameters were put back. `skipped` and `skip_cause` tell of the former alone.

    Without a line search `reduction_ratio` compares the loss with its quadratic model, whose curvature is F. With one
    it compares with the linear model gᵀΔθ: the Fisher is the curvature of the divergence, not of a surrogate loss,
    which has its own curvature, so that the first-order term is all that the model knows of it.
    """

    gradient_norm: tf.Tensor  # ‖g‖
    step_norm: tf.Tensor  # ‖Δθ‖ as applied; 0 for a skipped or failed step
    # ½ Δθᵀ F Δθ, the predicted divergence of the step as applied, without damping; but ½ Δθᵀ (F̂ + λI) Δθ with
    # Kfac(quadratic_model="factored"), which knows nothing else of it.
    predicted_kl: tf.Tensor
    damping: tf.Tensor  # λ of this step
    reduction_ratio: tf.Tensor  # actual / predicted change of the loss; NaN where not measured and for a failed step
    solver_iterations: tf.Tensor
    solver_residual: tf.Tensor  # ‖g − (F + λI) x‖ / ‖g‖
    skipped: tf.Tensor  # 1 where a number that is not finite forbade the step
    skip_cause: tf.Tensor  # a SkipCause
    predicted_change: tf.Tensor  # gᵀΔθ of the step as applied, below 0 for a descent; 0 for a skipped or failed step
    backtracks: tf.Tensor  # lengths rejected before one was accepted; all of them, max_backtracks + 1, if none was
    line_search_kl: tf.Tensor  # divergence of the accepted step; NaN where no search was made, 0 where it failed

    def scalars(self) -> dict[str, tf.Tensor]:
        """What is worth a curve, by name; skipped steps are counted by whoever takes them."""
        return {name: value for name, value in self._asdict().items() if not name.startswith("skip")}


class Direction(NamedTuple):
    """A solution of (F + λI) x = g and what is known of it."""

    value: tf.Tensor  # x [P]
    slope: tf.Tensor  # gᵀx
    curvature: tf.Tensor  # xᵀFx
    gradient_norm: tf.Tensor  # ‖g‖
    result: tf.Tensor  # solvers.Result
    iterations: tf.Tensor
    residual: tf.Tensor
    broke_down: tf.Tensor  # bool: no x was found, though F and g are finite; a larger λ may help
    solver_state: dict[str, tf.Tensor]  # what the solver is to remember if the step is taken


class Proposal(NamedTuple):
    """The full step Δ = −s·x, and what is known before it is taken."""

    delta: tf.Tensor  # Δ [P]
    norm: tf.Tensor  # ‖Δ‖
    linear_change: tf.Tensor  # gᵀΔ
    kl: tf.Tensor  # ½ ΔᵀFΔ
    loss: tf.Tensor  # L(θ)
    cause: tf.Tensor  # a SkipCause (int32): whether it may be taken at all
    direction: Direction


class Outcome(NamedTuple):
    """What became of a proposed step Δ: scalars."""

    taken: tf.Tensor  # whether it counts as a step: neither skipped nor failed
    scale: tf.Tensor  # Δθ = scale · Δ; 0 where nothing was assigned
    judged: tf.Tensor  # whether the damping rule may learn from `ratio`
    ratio: tf.Tensor  # actual / predicted change of the loss, or NaN
    predicted: tf.Tensor  # the predicted change in that ratio; that of Δ itself for a failed step
    loss: tf.Tensor  # the loss measured last
    backtracks: tf.Tensor
    measured_kl: tf.Tensor


def scalar(value: Any, name: str) -> tf.Tensor:
    """`value` as a tensor.

    Raises:
      ValueError: It is no scalar; the message calls it `name`.
    """
    value = tf.convert_to_tensor(value)
    if value.shape.rank not in (0, None):
        raise ValueError(f"{name} must be a scalar, got shape {value.shape}: take the mean over the batch")
    return value


def norm(vector: tf.Tensor) -> tf.Tensor:
    """`‖v‖`; [P] to a scalar."""
    return tf.sqrt(tf.reduce_sum(tf.square(vector)))


def propose(direction: Direction, learning_rate: tf.Tensor, max_kl: tf.Tensor | None, loss: tf.Tensor) -> Proposal:
    """The full step along a direction; arguments as `step_size`, and L(θ)."""
    size = step_size(direction, learning_rate, max_kl)
    delta = -size * direction.value
    delta_norm = norm(delta)
    cause = skip_cause(loss, direction, delta_norm)
    if max_kl is not None:
        unbounded = tf.equal(cause, SkipCause.NONE) & tf.math.is_nan(max_kl)
        cause = tf.where(unbounded, SkipCause.SOLUTION.value, cause)
    return Proposal(
        delta=delta,
        norm=delta_norm,
        linear_change=-size * direction.slope,
        kl=0.5 * tf.square(size) * direction.curvature,
        loss=loss,
        cause=cause,
        direction=direction,
    )


def step_size(direction: Direction, learning_rate: tf.Tensor, max_kl: tf.Tensor | None) -> tf.Tensor:
    """`s = min(α, sqrt(2δ / xᵀFx))`, so that ½ s² xᵀFx ≤ δ; a scalar.

    With α = ∞ the step reaches the border of the trust region (Kakade 2002; Schulman et al. 2015, appendix C; van
    Heeswijk 2022, Algorithm 1). Where the direction has no curvature no length does: s = 0 then.

    Args:
      direction: x.
      learning_rate: α, a scalar of the direction's dtype.
      max_kl: δ, a scalar, or None for s = α.
    """
    if max_kl is None:
        return learning_rate
    moves = direction.curvature > 0
    radius = tf.cast(max_kl, direction.value.dtype)
    squared_bound = 2 * radius / tf.where(moves, direction.curvature, tf.ones_like(learning_rate))
    moves &= tf.math.is_finite(squared_bound)
    # A direction without curvature moves no output: a step of size α needs no bound.
    unbounded = tf.where(tf.math.is_inf(learning_rate), tf.zeros_like(learning_rate), learning_rate)
    return tf.where(moves, tf.minimum(learning_rate, tf.sqrt(squared_bound)), unbounded)


def is_unusable(result: tf.Tensor, residual: tf.Tensor) -> tf.Tensor:
    """Whether a solver broke down without a direction; scalars.

    A breakdown that left an iterate better than 0 is a usable, merely inexact direction.
    """
    return tf.logical_and(tf.equal(result, solvers.Result.BREAKDOWN), tf.logical_not(residual < 1))


def skip_cause(loss: tf.Tensor, direction: Direction, step_norm: tf.Tensor) -> tf.Tensor:
    """The first thing that is not finite, as a `SkipCause` (int32 scalar)."""
    unusable = is_unusable(direction.result, direction.residual)
    finite_step = tf.math.is_finite(step_norm) & tf.math.is_finite(direction.curvature)
    cause = tf.where(finite_step, SkipCause.NONE.value, SkipCause.SOLUTION.value)
    cause = tf.where(unusable, SkipCause.CURVATURE_PRODUCT.value, cause)
    cause = tf.where(tf.math.is_finite(direction.gradient_norm), cause, SkipCause.GRADIENT.value)
    return tf.where(tf.math.is_finite(loss), cause, SkipCause.LOSS.value)


def stats(proposal: Proposal, outcome: Outcome, damping: tf.Tensor) -> NaturalGradientStats:
    """The record of a step; λ is the damping that its direction was solved with."""

    def as_applied(value: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
        return tf.math.multiply_no_nan(value, factor)  # 0 where nothing was assigned, whatever the value

    values = NaturalGradientStats(
        gradient_norm=proposal.direction.gradient_norm,
        step_norm=as_applied(proposal.norm, outcome.scale),
        predicted_kl=as_applied(proposal.kl, tf.square(outcome.scale)),
        damping=damping,
        reduction_ratio=outcome.ratio,
        solver_iterations=proposal.direction.iterations,
        solver_residual=proposal.direction.residual,
        skipped=tf.not_equal(proposal.cause, SkipCause.NONE),
        skip_cause=proposal.cause,
        predicted_change=as_applied(proposal.linear_change, outcome.scale),
        backtracks=outcome.backtracks,
        line_search_kl=outcome.measured_kl,
    )
    return NaturalGradientStats(*[tf.cast(value, tf.float32) for value in values])
