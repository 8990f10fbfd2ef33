"""A Keras optimizer that takes natural-gradient steps.

Symbols: θ [P] all variables as one flat vector, g = ∇L(θ) [P], F [P, P] the curvature operator (`ngrl.curvature`),
λ the damping, α the learning rate, x the solution of (F + λI) x = g. The step is θ ← θ − s·x with s = α, or less
where a trust region asks for it.
"""

import enum
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from ngrl import solvers
from ngrl.curvature import GaussNewton, flatten, unflatten
from ngrl.optimizers import damping as damping_rules

LossFn = Callable[[], tf.Tensor]


class SkipCause(enum.IntEnum):
    """What was not finite when a step was skipped; the first of these that holds."""

    NONE = 0
    LOSS = 1
    GRADIENT = 2
    CURVATURE_PRODUCT = 3
    SOLUTION = 4


class NaturalGradientStats(NamedTuple):
    """What one step did: float32 scalars."""

    gradient_norm: tf.Tensor  # ‖g‖
    step_norm: tf.Tensor  # ‖Δθ‖ as applied; 0 for a skipped step
    kl: tf.Tensor  # ½ Δθᵀ F Δθ, the predicted divergence of the step, without damping
    damping: tf.Tensor  # λ of this step
    reduction_ratio: tf.Tensor  # actual / predicted change of the loss; NaN where it was not measured
    solver_iterations: tf.Tensor
    solver_residual: tf.Tensor  # ‖g − (F + λI) x‖ / ‖g‖
    skipped: tf.Tensor  # 1 where nothing was assigned
    skip_cause: tf.Tensor  # a SkipCause


class _Direction(NamedTuple):
    """A solution of (F + λI) x = g and what is known of it."""

    value: tf.Tensor  # x [P]
    slope: tf.Tensor  # gᵀx
    curvature: tf.Tensor  # xᵀFx
    gradient_norm: tf.Tensor  # ‖g‖
    result: tf.Tensor  # solvers.Result
    iterations: tf.Tensor
    residual: tf.Tensor


def _norm(vector: tf.Tensor) -> tf.Tensor:
    return tf.sqrt(tf.reduce_sum(tf.square(vector)))


@tf.keras.utils.register_keras_serializable(package="ngrl")
class NaturalGradient(tf.keras.optimizers.Optimizer):
    """Natural gradient descent (Amari 1998): θ ← θ − α (F + λI)⁻¹ g, solved for all variables together.

    Call `apply_natural_gradient` or, where the gradient with respect to the network's outputs is at hand,
    `apply_output_gradient`: with the `Dual` solver it never forms g and costs about as much as a plain gradient step.

    Keras' options that change single variables' gradients or weights (`clipnorm`, `weight_decay`, ...) would bend the
    joint solve, and are not taken: bound the step with `damping` and `max_kl`.

    A step whose loss, gradient, curvature product or solution is not finite is skipped: every weight and slot stays
    as it was, and the stats say why.

    Args:
      learning_rate: α, a number or a Keras schedule over the steps taken.
      solver: An `ngrl.solvers` object; `Dual()` by default.
      damping: λ, a number or a rule: `LevenbergMarquardt(...)`, `ScheduledDamping(...)`.
      max_kl: Radius of the trust region in function space: the step is shortened until ½ Δθᵀ F Δθ ≤ `max_kl`.
      momentum: μ in v ← μ v + x, with v in the place of x.
      scale_by_gradient_norm: Multiply x by ‖g‖, as Algorithm 1 of Knight & Lerner (2018) prints it.
      name: Name of the optimizer.

    Raises:
      ValueError: A number is out of its range or of the wrong kind.
    """

    def __init__(
        self,
        learning_rate: float | damping_rules.Schedule = 1.0,
        solver: solvers.Solver | dict[str, Any] | None = None,
        damping: float | damping_rules.DampingRule | dict[str, Any] = 1.0,
        max_kl: float | None = None,
        momentum: float = 0.0,
        scale_by_gradient_norm: bool = False,
        name: str = "NaturalGradient",
    ):
        if isinstance(learning_rate, (int, float)) and not learning_rate >= 0:
            raise ValueError(f"learning_rate must not be negative, got {learning_rate}")
        if max_kl is not None and not max_kl > 0:
            raise ValueError(f"max_kl must be positive or None, got {max_kl}")
        if not 0 <= momentum < 1:
            raise ValueError(f"momentum must lie in [0, 1), got {momentum}")
        super().__init__(name=name, jit_compile=False)
        if isinstance(solver, dict):
            solver = tf.keras.utils.deserialize_keras_object(solver)
        self.solver: Any = solvers.Dual() if solver is None else solver
        if not isinstance(self.solver, solvers.Solver):
            raise ValueError(f"solver must be an ngrl solver, got {solver!r}")
        self.damping_rule = damping_rules.get(damping)
        self.max_kl = None if max_kl is None else float(max_kl)
        self.momentum = float(momentum)
        self.scale_by_gradient_norm = bool(scale_by_gradient_norm)
        self._learning_rate = self._build_learning_rate(learning_rate)
        self._built_for: list[Any] | None = None

    def build(self, var_list: list[tf.Variable]) -> None:
        """Create λ and, with momentum, the velocity [P]."""
        super().build(var_list)
        keys = [self._var_key(variable) for variable in var_list]
        if self._built_for is not None:
            if keys != self._built_for:
                raise ValueError(f"{self.name} was built for other variables: make an optimizer for each network")
            return
        self._built_for = keys
        dtype = var_list[0].dtype.base_dtype
        self._damping = self.add_variable([], dtype=dtype, name="damping")
        self._damping.assign(tf.constant(self.damping_rule.initial, dtype))
        size = sum(variable.shape.num_elements() for variable in var_list)
        self._velocity = self.add_variable([size], dtype=dtype, name="velocity") if self.momentum else None

    def apply_gradients(self, *args: Any, **kwargs: Any) -> None:
        """Refuse: a natural-gradient step needs a curvature operator.

        Raises:
          TypeError: Always.
        """
        raise TypeError(
            "NaturalGradient can't apply plain gradients: call apply_natural_gradient(grads_and_vars, operator) "
            "or apply_output_gradient(output_gradient, operator) with an operator from ngrl.curvature"
        )

    def apply_natural_gradient(
        self,
        grads_and_vars: Iterable[tuple[tf.Tensor, tf.Variable]],
        operator: tf.linalg.LinearOperator,
        loss: tf.Tensor | None = None,
        loss_fn: LossFn | None = None,
    ) -> NaturalGradientStats:
        """Solve (F + λI) x = g and take the step.

        Args:
          grads_and_vars: Pairs of gradient and variable, in the order in which `operator` flattens the variables.
          operator: F, a self-adjoint positive semi-definite operator of shape [P, P].
          loss: The loss the gradient belongs to; a value that is not finite skips the step.
          loss_fn: Evaluates the same loss at the variables' present values. Needed by Levenberg-Marquardt damping.

        Returns:
          What the step did.

        Raises:
          ValueError: A gradient is None, the operator has another size or other variables, or the damping rule needs
            `loss_fn`.
        """
        pairs = list(grads_and_vars)
        variables = [variable for _, variable in pairs]
        missing = [variable.name for gradient, variable in pairs if gradient is None]
        if missing:
            raise ValueError(f"no gradient for {', '.join(missing)}")
        self._prepare(variables, operator, loss_fn)
        gradient = flatten([tf.convert_to_tensor(gradient) for gradient, _ in pairs])
        direction = self._solve_primal(operator, gradient)
        return self._finish(variables, direction, loss, loss_fn)

    def apply_output_gradient(
        self,
        output_gradient: tf.Tensor,
        operator: GaussNewton,
        loss: tf.Tensor | None = None,
        loss_fn: LossFn | None = None,
    ) -> NaturalGradientStats:
        """Take the step for a loss that depends on the variables through the operator's outputs alone.

        With the `Dual` solver everything happens in output space: (AAᵀ + λI) z = c, x = Aᵀ z, where g = Aᵀ c and
        F = AᵀA. Any other solver gets g = Jᵀ output_gradient.

        Args:
          output_gradient: ∂L/∂y [B, K] of the mean loss L with respect to `operator.outputs`.
          operator: The Gauss-Newton operator; its metric must be able to represent the gradient.
          loss: The loss; a value that is not finite skips the step.
          loss_fn: Evaluates the same loss at the variables' present values.

        Returns:
          What the step did.

        Raises:
          ValueError: As `apply_natural_gradient`.
        """
        variables = list(operator.parameters["variables"])
        self._prepare(variables, operator, loss_fn)
        if isinstance(self.solver, solvers.Dual):
            direction = self._solve_dual(operator, operator.row_coefficients(output_gradient))
        else:
            direction = self._solve_primal(operator, operator.vjp(output_gradient))
        return self._finish(variables, direction, loss, loss_fn)

    @property
    def damping(self) -> tf.Tensor:
        """λ of the next step, a scalar. Available once `build` has run."""
        return self.damping_rule.current(tf.convert_to_tensor(self._damping), self.iterations)

    def _prepare(
        self, variables: list[tf.Variable], operator: tf.linalg.LinearOperator, loss_fn: LossFn | None
    ) -> None:
        size = sum(variable.shape.num_elements() for variable in variables)
        if operator.shape[-1] != size:
            raise ValueError(f"the operator is of size {operator.shape[-1]}, the variables have {size} elements")
        owned = operator.parameters.get("variables")
        if owned is not None and [id(v) for v in owned] != [id(v) for v in variables]:
            raise ValueError("the operator belongs to other variables, or to the same in another order")
        if self.damping_rule.needs_reduction_ratio and loss_fn is None:
            raise ValueError(f"{type(self.damping_rule).__name__} needs loss_fn, to measure what the step achieved")
        with tf.init_scope():
            self.build(variables)

    def _solve_primal(self, operator: tf.linalg.LinearOperator, gradient: tf.Tensor) -> _Direction:
        solution, product = self.solver.solve_with_product(operator, gradient, self.damping)  # x and F x
        gradient_norm = _norm(gradient)
        x = self._accumulate(solution.value, gradient_norm)
        if self._velocity is not None:
            product = operator.matvec(x)
        elif self.scale_by_gradient_norm:
            product = gradient_norm * product
        return _Direction(
            value=x,
            slope=tf.reduce_sum(gradient * x),
            curvature=tf.reduce_sum(x * product),
            gradient_norm=gradient_norm,
            result=solution.result,
            iterations=solution.stats.iterations,
            residual=solution.stats.residual,
        )

    def _solve_dual(self, operator: GaussNewton, coefficients: tf.Tensor) -> _Direction:
        solution = self.solver.solve_rows(operator, coefficients, self.damping)
        # ‖g‖² = cᵀ A Aᵀ c
        squared_norm = tf.reduce_sum(coefficients * tf.linalg.matvec(solution.gram, coefficients))
        gradient_norm = tf.sqrt(tf.maximum(squared_norm, 0))
        x = self._accumulate(solution.value, gradient_norm)
        if self._velocity is not None:
            row_values = operator.row_matvec(x)  # A v
        elif self.scale_by_gradient_norm:
            row_values = gradient_norm * solution.gram_dual
        else:
            row_values = solution.gram_dual  # A x = A Aᵀ z
        return _Direction(
            value=x,
            slope=tf.reduce_sum(coefficients * row_values),  # gᵀx = cᵀ A x
            curvature=tf.reduce_sum(tf.square(row_values)),  # xᵀFx = ‖A x‖²
            gradient_norm=gradient_norm,
            result=solution.result,
            iterations=solution.stats.iterations,
            residual=solution.stats.residual,
        )

    def _accumulate(self, x: tf.Tensor, gradient_norm: tf.Tensor) -> tf.Tensor:
        if self.scale_by_gradient_norm:
            x = gradient_norm * x
        return x if self._velocity is None else self.momentum * self._velocity + x

    def _finish(
        self,
        variables: list[tf.Variable],
        direction: _Direction,
        loss: tf.Tensor | None,
        loss_fn: LossFn | None,
    ) -> NaturalGradientStats:
        step_size = self._step_size(direction)
        delta = step_size * direction.value
        step_norm = _norm(delta)
        if loss is None:
            loss = loss_fn() if loss_fn is not None else tf.zeros([], direction.value.dtype)
        cause = _skip_cause(loss, direction, step_norm)
        apply = tf.equal(cause, SkipCause.NONE)
        for variable, change in zip(variables, unflatten(delta, variables), strict=True):
            variable.assign(tf.where(apply, variable - change, variable))
        if self._velocity is not None:
            self._velocity.assign(tf.where(apply, direction.value, self._velocity))
        damping = self.damping
        ratio = self._adapt_damping(direction, step_size, loss, loss_fn, apply)
        self.iterations.assign_add(tf.cast(apply, self.iterations.dtype))
        if isinstance(self._learning_rate, tf.keras.optimizers.schedules.LearningRateSchedule):
            self._current_learning_rate.assign(self._scheduled_learning_rate())  # what `learning_rate` reports
        applied = tf.cast(apply, direction.value.dtype)

        def scalar(value: tf.Tensor) -> tf.Tensor:
            return tf.cast(value, tf.float32)

        return NaturalGradientStats(
            gradient_norm=scalar(direction.gradient_norm),
            step_norm=scalar(tf.math.multiply_no_nan(step_norm, applied)),
            kl=scalar(tf.math.multiply_no_nan(0.5 * tf.square(step_size) * direction.curvature, applied)),
            damping=scalar(damping),
            reduction_ratio=scalar(ratio),
            solver_iterations=scalar(direction.iterations),
            solver_residual=scalar(direction.residual),
            skipped=scalar(1 - applied),
            skip_cause=scalar(cause),
        )

    def _step_size(self, direction: _Direction) -> tf.Tensor:
        """`s = min(α, sqrt(2·max_kl / xᵀFx))`: ½ s² xᵀFx ≤ max_kl."""
        alpha = tf.cast(self._scheduled_learning_rate(), direction.value.dtype)
        if self.max_kl is None:
            return alpha
        # A direction without curvature moves no output: it needs no bound.
        moves = direction.curvature > 0
        bound = tf.sqrt(2 * self.max_kl / tf.where(moves, direction.curvature, tf.ones_like(alpha)))
        return tf.where(moves, tf.minimum(alpha, bound), alpha)

    def _scheduled_learning_rate(self) -> tf.Tensor:
        if isinstance(self._learning_rate, tf.keras.optimizers.schedules.LearningRateSchedule):
            return self._learning_rate(self.iterations)
        return self._learning_rate

    def _adapt_damping(
        self,
        direction: _Direction,
        step_size: tf.Tensor,
        loss: tf.Tensor,
        loss_fn: LossFn | None,
        apply: tf.Tensor,
    ) -> tf.Tensor:
        """ρ = (L(θ + Δθ) − L(θ)) / (−s gᵀx + ½ s² xᵀFx), and λ after it."""
        if not self.damping_rule.needs_reduction_ratio:
            return tf.constant(float("nan"), direction.value.dtype)
        assert loss_fn is not None
        predicted = -step_size * direction.slope + 0.5 * tf.square(step_size) * direction.curvature
        after = tf.cast(loss_fn(), predicted.dtype)
        ratio = (after - tf.cast(loss, predicted.dtype)) / predicted
        # A change that is lost in the loss's rounding says nothing of the model; a loss no longer finite does.
        rounding = np.finfo(predicted.dtype.as_numpy_dtype).eps * tf.abs(tf.cast(loss, predicted.dtype))
        measurable = (tf.abs(predicted) > 8 * rounding) | tf.logical_not(tf.math.is_finite(after))
        updated = self.damping_rule.update(tf.convert_to_tensor(self._damping), ratio)
        self._damping.assign(tf.where(apply & measurable, updated, self._damping))
        return ratio

    def get_config(self) -> dict[str, Any]:
        """Constructor arguments, serialised."""
        serialise = tf.keras.utils.serialize_keras_object
        return {
            "name": self.name,
            "learning_rate": self._serialize_hyperparameter(self._learning_rate),
            "solver": serialise(self.solver),
            "damping": serialise(self.damping_rule),
            "max_kl": self.max_kl,
            "momentum": self.momentum,
            "scale_by_gradient_norm": self.scale_by_gradient_norm,
        }


def _skip_cause(loss: tf.Tensor, direction: _Direction, step_norm: tf.Tensor) -> tf.Tensor:
    """The first thing that is not finite, as a `SkipCause` (int32 scalar)."""
    # A breakdown that left an iterate better than 0 is a usable, merely inexact direction.
    unusable = tf.logical_and(
        tf.equal(direction.result, solvers.Result.BREAKDOWN), tf.logical_not(direction.residual < 1)
    )
    finite_step = tf.math.is_finite(step_norm) & tf.math.is_finite(direction.curvature)
    cause = tf.where(finite_step, SkipCause.NONE.value, SkipCause.SOLUTION.value)
    cause = tf.where(unusable, SkipCause.CURVATURE_PRODUCT.value, cause)
    cause = tf.where(tf.math.is_finite(direction.gradient_norm), cause, SkipCause.GRADIENT.value)
    return tf.where(tf.math.is_finite(loss), cause, SkipCause.LOSS.value)
