"""A Keras optimizer that takes natural-gradient steps.

Symbols: θ [P] all variables as one flat vector, g = ∇L(θ) [P], F [P, P] the curvature operator (`ngrl.curvature`),
λ the damping, α the learning rate, x the solution of (F + λI) x = g. The step is θ ← θ − s·x with s = α, or less
where a trust region or a line search asks for it.
"""

import math
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import tensorflow as tf

from ngrl import solvers
from ngrl.checks import check_number, check_optional_number
from ngrl.configurable import configurable
from ngrl.curvature import GaussNewton, flatten, num_parameters, unflatten
from ngrl.optimizers import damping as damping_rules
from ngrl.optimizers import line_search as line_searches
from ngrl.optimizers import step
from ngrl.optimizers.step import Direction, NaturalGradientStats, Outcome, Proposal, ScalarFn, SkipCause


@configurable
@tf.keras.utils.register_keras_serializable(package="ngrl")
class NaturalGradient(tf.keras.optimizers.Optimizer):
    """Natural gradient descent (Amari 1998): θ ← θ − α (F + λI)⁻¹ g, solved for all variables together.

    Call `apply_natural_gradient` or, where the gradient with respect to the network's outputs is at hand,
    `apply_output_gradient`: with the `Dual` solver it never forms g and costs about as much as a plain gradient step.

    Keras' options that change single variables' gradients or weights (`clipnorm`, `weight_decay`, ...) would bend the
    joint solve, and are not taken: bound the step with `damping` and `max_kl`.

    A step whose loss, gradient, curvature product or solution is not finite is skipped: every weight and slot stays
    as it was, and the stats say why.

    With `learning_rate=None` every step reaches the border of the trust region (the natural policy gradient of van
    Heeswijk 2022, Algorithm 1; Kakade 2002); with a `line_search` besides, this is the step of TRPO (Schulman et al.
    2015, appendix C). A search that accepts no length leaves weights, velocity and the count of steps as they were.

    Args:
      learning_rate: α, a number or a Keras schedule over the steps taken, of which values below 0 count as 0. None
        stands for infinity: `max_kl` alone sets the length then, and a direction without curvature gives a step of 0.
      solver: An `ngrl.solvers` object; `Dual()` by default.
      damping: λ, a number or a rule: `LevenbergMarquardt(...)`, `ScheduledDamping(...)`.
      max_kl: Radius of the trust region in function space: the step is shortened until ½ Δθᵀ F Δθ ≤ `max_kl`. A number,
        or a Keras schedule over the steps taken, of which values below 0 count as 0. A NaN of a schedule skips the
        step.
      momentum: μ in v ← μ v + x, with v in the place of x.
      scale_by_gradient_norm: Multiply x by ‖g‖, as Algorithm 1 of Knight & Lerner (2018) prints it.
      line_search: Shortens the step further until the measured loss has improved and the measured divergence is at
        most `max_kl`.
      name: Name of the optimizer.

    Raises:
      ValueError: A number is out of its range or of the wrong kind, or `max_kl` is missing where `learning_rate` or
        `line_search` needs it.
    """

    def __init__(
        self,
        learning_rate: float | damping_rules.Schedule | None = 1.0,
        solver: solvers.Solver | dict[str, Any] | None = None,
        damping: float | damping_rules.DampingRule | dict[str, Any] = 1.0,
        max_kl: float | damping_rules.Schedule | None = None,
        momentum: float = 0.0,
        scale_by_gradient_norm: bool = False,
        line_search: line_searches.BacktrackingLineSearch | dict[str, Any] | None = None,
        name: str = "NaturalGradient",
    ):
        learning_rate = math.inf if learning_rate is None else learning_rate
        # As `get_config` serialises schedules.
        learning_rate = damping_rules.schedule_of("learning_rate", learning_rate)
        max_kl = damping_rules.schedule_of("max_kl", max_kl)
        scheduled_kl = isinstance(max_kl, damping_rules.Schedule)
        if not (isinstance(learning_rate, (damping_rules.Schedule, tf.Variable)) or tf.is_tensor(learning_rate)):
            check_number("learning_rate", learning_rate, "[0, inf]")
            if learning_rate == math.inf and (max_kl is None or max_kl == math.inf):
                raise ValueError("learning_rate=None needs a finite max_kl, which then sets the length of every step")
        if not scheduled_kl:
            max_kl = check_optional_number("max_kl", max_kl, "(0, inf]")
        if line_search is not None and max_kl is None:
            raise ValueError("line_search needs max_kl, the bound of the divergence that it measures")
        check_number("momentum", momentum, "[0, 1)")
        super().__init__(name=name, jit_compile=False)
        if isinstance(solver, dict):
            solver = tf.keras.utils.deserialize_keras_object(solver)
        self.solver: Any = solvers.Dual() if solver is None else solver
        if not isinstance(self.solver, solvers.Solver):
            raise ValueError(f"solver must be an ngrl solver, got {solver!r}")
        if momentum and not self.solver.models_other_steps:
            raise ValueError(
                'quadratic_model="factored" knows the curvature along its own solution alone: take momentum=0, or '
                '"exact"'
            )
        self.damping_rule = damping_rules.get(damping)
        self.line_search = line_searches.get(line_search)
        self.max_kl = max_kl
        self.momentum = float(momentum)
        self.scale_by_gradient_norm = bool(scale_by_gradient_norm)
        self._learning_rate = self._build_learning_rate(learning_rate)
        self._built_for: list[Any] | None = None
        self._solver_state: dict[str, tf.Variable] = {}

    def build(self, var_list: list[tf.Variable]) -> None:
        """Create λ, with momentum the velocity [P], and what the solver remembers."""
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
        size = num_parameters(var_list)
        self._velocity = self.add_variable([size], dtype=dtype, name="velocity") if self.momentum else None
        for name, initial in self.solver.slots(var_list).items():
            slot = self.add_variable(initial.shape, dtype=initial.dtype, name=f"solver/{name}")
            slot.assign(initial)
            self._solver_state[name] = slot

    def apply_gradients(self, *args: Any, **kwargs: Any) -> None:
        """Refuse: a natural-gradient step needs a curvature operator.

        Raises:
          TypeError: Always.
        """
        raise TypeError(
            "NaturalGradient can't apply plain gradients: call apply_natural_gradient(grads_and_vars, operator) "
            "or apply_output_gradient(output_gradient, operator) with an operator from ngrl.curvature; for Keras' fit, "
            "make the model an ngrl.keras.NaturalGradientModel"
        )

    def apply_natural_gradient(
        self,
        grads_and_vars: Iterable[tuple[tf.Tensor, tf.Variable]],
        operator: tf.linalg.LinearOperator,
        loss: tf.Tensor | None = None,
        loss_fn: ScalarFn | None = None,
        divergence_fn: ScalarFn | None = None,
    ) -> NaturalGradientStats:
        """Solve (F + λI) x = g and take the step.

        Args:
          grads_and_vars: Pairs of gradient and variable, in the order in which `operator` flattens the variables.
          operator: F, a self-adjoint positive semi-definite operator of shape [P, P].
          loss: The loss the gradient belongs to; a value that is not finite skips the step.
          loss_fn: Evaluates the same loss at the variables' present values. Needed by Levenberg-Marquardt damping and
            by a line search.
          divergence_fn: Evaluates the mean KL(π_old ‖ π) in nats at the variables' present values, π_old held constant
            by the caller. Needed, and called, by a line search alone.

        Returns:
          What the step did.

        Raises:
          ValueError: A gradient is None, the operator has another size or other variables, the loss is no scalar, or
            the damping rule or the line search needs a function that is not given.
        """
        pairs = list(grads_and_vars)
        variables = [variable for _, variable in pairs]
        missing = [variable.name for gradient, variable in pairs if gradient is None]
        if missing:
            raise ValueError(f"no gradient for {', '.join(missing)}")
        self._prepare(variables, operator, loss_fn, divergence_fn)
        gradient = flatten([tf.convert_to_tensor(gradient) for gradient, _ in pairs])
        loss = _measured(loss, loss_fn, gradient.dtype)
        direction = self._direction(operator, solvers.ParameterGradient(gradient), loss)
        return self._finish(variables, direction, loss, loss_fn, divergence_fn)

    def apply_output_gradient(
        self,
        output_gradient: tf.Tensor,
        operator: GaussNewton,
        loss: tf.Tensor | None = None,
        loss_fn: ScalarFn | None = None,
        divergence_fn: ScalarFn | None = None,
    ) -> NaturalGradientStats:
        """Take the step for a loss that depends on the variables through the operator's outputs alone.

        With the `Dual` solver everything happens in output space: (AAᵀ + λI) z = c, x = Aᵀ z, where g = Aᵀ c and
        F = AᵀA. Any other solver gets g = Jᵀ output_gradient.

        Args:
          output_gradient: ∂L/∂y [B, K] of the mean loss L with respect to `operator.outputs`.
          operator: The Gauss-Newton operator; its metric must be able to represent the gradient.
          loss: The loss; a value that is not finite skips the step.
          loss_fn: As in `apply_natural_gradient`.
          divergence_fn: As in `apply_natural_gradient`.

        Returns:
          What the step did.

        Raises:
          ValueError: As `apply_natural_gradient`.
        """
        variables = list(operator.parameters["variables"])
        self._prepare(variables, operator, loss_fn, divergence_fn)
        loss = _measured(loss, loss_fn, operator.dtype)
        direction = self._direction(operator, solvers.OutputGradient(output_gradient), loss)
        return self._finish(variables, direction, loss, loss_fn, divergence_fn)

    @property
    def damping(self) -> tf.Tensor:
        """λ of the next step, a scalar. Available once `build` has run."""
        return self.damping_rule.current(tf.convert_to_tensor(self._damping), self.iterations)

    def _prepare(
        self,
        variables: list[tf.Variable],
        operator: tf.linalg.LinearOperator,
        loss_fn: ScalarFn | None,
        divergence_fn: ScalarFn | None,
    ) -> None:
        size = num_parameters(variables)
        if operator.shape[-1] != size:
            raise ValueError(f"the operator is of size {operator.shape[-1]}, the variables have {size} elements")
        owned = operator.parameters.get("variables")
        if owned is not None and [id(v) for v in owned] != [id(v) for v in variables]:
            raise ValueError("the operator belongs to other variables, or to the same in another order")
        if self.damping_rule.needs_reduction_ratio and loss_fn is None:
            raise ValueError(f"{type(self.damping_rule).__name__} needs loss_fn, to measure what the step achieved")
        if self.line_search is not None:
            functions = {"loss_fn": loss_fn, "divergence_fn": divergence_fn}
            absent = [name for name, function in functions.items() if function is None]
            if absent:
                raise ValueError(f"the line search needs {' and '.join(absent)}, to measure what a length achieves")
        with tf.init_scope():
            self.build(variables)

    def _direction(
        self, operator: tf.linalg.LinearOperator, gradient: solvers.RightHandSide, loss: tf.Tensor
    ) -> Direction:
        """Solve (F + λI) x = g, in whatever space the solver works in."""
        state = {name: tf.convert_to_tensor(slot) for name, slot in self._solver_state.items()}
        damping = self.damping
        if self.solver.guards_state:
            # The step will be skipped: nothing is to be learned of the batch.
            damping = tf.where(tf.math.is_finite(loss), damping, tf.constant(float("nan"), damping.dtype))
        solution, image, system, state = self.solver.answer(operator, gradient, damping, state)
        x = solution.value
        if self.scale_by_gradient_norm:
            x, image = system.gradient_norm * x, system.gradient_norm * image
        if self._velocity is not None:
            x = self.momentum * self._velocity + x
            image = system.image(x)
        unusable = step.is_unusable(solution.result, solution.stats.residual)
        return Direction(
            value=x,
            slope=system.slope(x, image),
            curvature=system.curvature(x, image),
            gradient_norm=system.gradient_norm,
            result=solution.result,
            iterations=solution.stats.iterations,
            residual=solution.stats.residual,
            broke_down=self._broke_down(unusable, system.sample),
            solver_state=state,
        )

    def _broke_down(self, unusable: tf.Tensor, sample: Callable[[], tf.Tensor]) -> tf.Tensor:
        """Whether an unusable solution is the solver's failure: numbers that are not finite in F have one in `sample`.

        Evaluated where the damping rule could answer it, and then only when it happened.
        """
        if not self.damping_rule.needs_reduction_ratio:
            return tf.constant(False)
        return tf.cond(unusable, lambda: tf.reduce_all(tf.math.is_finite(sample())), lambda: tf.constant(False))

    def _finish(
        self,
        variables: list[tf.Variable],
        direction: Direction,
        loss: tf.Tensor,
        loss_fn: ScalarFn | None,
        divergence_fn: ScalarFn | None,
    ) -> NaturalGradientStats:
        alpha = tf.cast(self._scheduled_learning_rate(), direction.value.dtype)
        max_kl = self._scheduled_max_kl()
        proposal = step.propose(direction, alpha, max_kl, loss)
        damping = self.damping
        if self.line_search is None:
            outcome = self._take(variables, proposal, loss_fn)
        else:
            outcome = self._search(variables, proposal, max_kl, loss_fn, divergence_fn)
        if self._velocity is not None:
            self._velocity.assign(tf.where(outcome.taken, direction.value, self._velocity))
        for name, slot in self._solver_state.items():
            new = direction.solver_state[name]
            guarded = self.solver.guards_state and name not in self.solver.step_slots
            slot.assign(new if guarded else tf.where(outcome.taken, new, slot))
        if self.damping_rule.needs_reduction_ratio:
            self._adapt_damping(proposal, outcome)
        self.iterations.assign_add(tf.cast(outcome.taken, self.iterations.dtype))
        if isinstance(self._learning_rate, tf.keras.optimizers.schedules.LearningRateSchedule):
            self._current_learning_rate.assign(self._scheduled_learning_rate())  # what `learning_rate` reports
        return step.stats(proposal, outcome, damping)

    def _take(self, variables: list[tf.Variable], proposal: Proposal, loss_fn: ScalarFn | None) -> Outcome:
        """Take the full step; ρ = (L(θ + Δ) − L(θ)) / (gᵀΔ + ½ ΔᵀFΔ) where the damping rule needs it."""
        dtype = proposal.delta.dtype
        usable = tf.equal(proposal.cause, SkipCause.NONE)
        for variable, change in zip(variables, unflatten(proposal.delta, variables), strict=True):
            variable.assign(tf.where(usable, variable + change, variable))
        predicted = proposal.linear_change + proposal.kl
        ratio = after = tf.constant(float("nan"), dtype)
        if self.damping_rule.needs_reduction_ratio:
            assert loss_fn is not None
            after = tf.cast(step.scalar(loss_fn(), "loss_fn's value"), dtype)
            ratio = (after - tf.cast(proposal.loss, dtype)) / predicted
        return Outcome(
            taken=usable,
            scale=tf.cast(usable, dtype),
            judged=usable,
            ratio=ratio,
            predicted=predicted,
            loss=after,
            backtracks=tf.constant(0),
            measured_kl=tf.constant(float("nan"), dtype),
        )

    def _search(
        self,
        variables: list[tf.Variable],
        proposal: Proposal,
        max_kl: tf.Tensor | None,
        loss_fn: ScalarFn | None,
        divergence_fn: ScalarFn | None,
    ) -> Outcome:
        """Take what the line search accepts of the step; ρ = (L(θ + Δθ) − L(θ)) / gᵀΔθ."""
        assert self.line_search is not None
        assert max_kl is not None
        assert loss_fn is not None
        assert divergence_fn is not None
        usable = tf.equal(proposal.cause, SkipCause.NONE)
        # A step of 0 is where it wants to be: a step like any other, with nothing to search for.
        searched = usable & tf.reduce_any(tf.not_equal(proposal.delta, 0))
        found = self.line_search.search(variables, proposal, loss_fn, divergence_fn, max_kl, searched)
        predicted = proposal.linear_change * tf.where(found.accepted, found.scale, tf.ones_like(found.scale))
        ratio = (found.loss - tf.cast(proposal.loss, tf.float64)) / tf.cast(predicted, tf.float64)
        unknown = tf.constant(float("nan"), tf.float64)
        return Outcome(
            taken=usable & tf.equal(found.accepted, searched),
            scale=found.scale,
            judged=searched,
            ratio=tf.where(found.accepted, ratio, unknown),
            predicted=predicted,
            loss=found.loss,
            backtracks=found.backtracks,
            measured_kl=tf.where(found.accepted, found.kl, tf.where(searched, tf.zeros_like(unknown), unknown)),
        )

    def _scheduled_learning_rate(self) -> tf.Tensor:
        if isinstance(self._learning_rate, tf.keras.optimizers.schedules.LearningRateSchedule):
            rate = tf.convert_to_tensor(self._learning_rate(self.iterations))
            return tf.where(rate < 0, tf.zeros_like(rate), rate)
        return self._learning_rate

    def _scheduled_max_kl(self) -> tf.Tensor | None:
        """δ of this step, a float64 scalar, in which the line search compares."""
        if self.max_kl is None:
            return None
        if isinstance(self.max_kl, float):
            return tf.constant(self.max_kl, tf.float64)
        radius = tf.cast(self.max_kl(self.iterations), tf.float64)
        return tf.where(radius < 0, tf.zeros_like(radius), radius)  # NaN stays, and forbids the step

    def _adapt_damping(self, proposal: Proposal, outcome: Outcome) -> None:
        dtype = outcome.predicted.dtype
        # A change that is lost in the loss's rounding says nothing of the model; a loss no longer finite does.
        rounding = np.finfo(dtype.as_numpy_dtype).eps * tf.abs(tf.cast(proposal.loss, dtype))
        measurable = (tf.abs(outcome.predicted) > 8 * rounding) | tf.logical_not(tf.math.is_finite(outcome.loss))
        # A step skipped because the solver broke down is a poor model too: else every later one would break down alike.
        # Where a loss or gradient is not finite λ is not to blame.
        broke_down = proposal.direction.broke_down & tf.equal(proposal.cause, SkipCause.CURVATURE_PRODUCT)
        ratio = tf.where(broke_down, tf.constant(float("nan"), dtype), tf.cast(outcome.ratio, dtype))
        updated = self.damping_rule.update(tf.convert_to_tensor(self._damping), ratio)
        self._damping.assign(tf.where(broke_down | (outcome.judged & measurable), updated, self._damping))

    def get_config(self) -> dict[str, Any]:
        """Constructor arguments, serialised."""
        serialise = tf.keras.utils.serialize_keras_object
        learning_rate = self._serialize_hyperparameter(self._learning_rate)
        if not isinstance(learning_rate, dict) and np.isinf(learning_rate):
            learning_rate = None
        return {
            "name": self.name,
            "learning_rate": learning_rate,
            "solver": serialise(self.solver),
            "damping": serialise(self.damping_rule),
            "max_kl": self._serialize_hyperparameter(self.max_kl),
            "momentum": self.momentum,
            "scale_by_gradient_norm": self.scale_by_gradient_norm,
            "line_search": serialise(self.line_search),
        }


def _measured(loss: tf.Tensor | None, loss_fn: ScalarFn | None, dtype: tf.DType) -> tf.Tensor:
    """The loss at the variables' present values; 0 where nothing tells it.

    Raises:
      ValueError: It is no scalar.
    """
    if loss is not None:
        value = step.scalar(loss, "loss")
    else:
        value = tf.zeros([], dtype) if loss_fn is None else step.scalar(loss_fn(), "loss_fn's value")
    return value if value.dtype.is_floating else tf.cast(value, dtype)
