"""MINRES (Paige & Saunders 1975)."""

from typing import Any, NamedTuple

import tensorflow as tf

from ngrl.checks import check_count, check_number
from ngrl.configurable import configurable
from ngrl.solvers.lanczos import (
    LeftReflection,
    lanczos_step,
    left_reflection,
    minres_direction,
    start_reflection,
)
from ngrl.solvers.least_squares import (
    Best,
    is_least_squares,
    is_past_best,
    next_best,
    seems_inconsistent,
    start_best,
)
from ngrl.solvers.solution import (
    Problem,
    Result,
    Solver,
    SolverStats,
    effective_rtol,
    eps,
    safe_norm,
)

RUNNING = -1
"""In a loop's state: no result yet."""


class _State(NamedTuple):
    iteration: tf.Tensor
    result: tf.Tensor
    v_last: tf.Tensor  # [P], v_{k-1}
    v: tf.Tensor  # [P], v_k
    direction_before: tf.Tensor  # [P], d_{k-2}
    direction: tf.Tensor  # [P], d_{k-1}
    x: tf.Tensor  # [P], x_{k-1}
    beta: tf.Tensor  # β_k
    left: LeftReflection
    operator_norm: tf.Tensor
    best: Best


@configurable
@tf.keras.utils.register_keras_serializable(package="ngrl")
class Minres(Solver):
    """MINRES, for definite and indefinite systems; the residual decreases monotonically.

    Ends with CONVERGED at `||r|| <= rtol ||b||`, or where rounding allows no more, `||r|| <= eps (||A|| ||x||
    + ||b||)`; with LEAST_SQUARES when r is orthogonal to the range of A, so that no x has a smaller residual
    (that x need not be the shortest: `MinresQLP` finds the shortest); with BREAKDOWN when a product is not
    finite. Negative curvature is no obstacle. A singular system asks for a division by γ = 0: the test for
    LEAST_SQUARES comes before it. Where the right-hand side is off the range by little, but by more than rtol, the
    answer is the iterate of the smallest ||A r|| / ||r||: a null-space part of up to 100 ||r|| / ||b|| of its length
    was left where A's other part had the condition number 100 (and once, of 60 unknowns, 2e5 times that length).
    """

    def __init__(self, *, rtol: float = 1e-6, max_iterations: int = 100) -> None:
        """Configures the solver.

        Args:
          rtol: Relative residual at which to stop; at least 4 eps of the dtype is used.
          max_iterations: Most iterations, one product with the operator each.

        Raises:
          ValueError: `rtol` is negative or `max_iterations` is no positive integer.
        """
        self.rtol = check_number("rtol", rtol, "[0, inf)")
        self.max_iterations = check_count("max_iterations", max_iterations)

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {"rtol": self.rtol, "max_iterations": self.max_iterations}

    def _solve(self, problem: Problem) -> tuple[tf.Tensor, tf.Tensor, SolverStats]:
        def goes_on(state: _State) -> tf.Tensor:
            return (state.result == RUNNING) & (state.iteration < self.max_iterations)

        def step(state: _State) -> tuple[_State]:
            return (self._step(problem, state),)

        (end,) = tf.while_loop(goes_on, step, (self._start(problem),))
        result = tf.where(end.result == RUNNING, int(Result.MAX_ITERATIONS), end.result)
        dtype = problem.rhs.dtype
        tolerance = tf.constant(effective_rtol(self.rtol, dtype), dtype)
        return end.x, result, SolverStats(end.iteration, tolerance)

    def _start(self, problem: Problem) -> _State:
        zeros = tf.zeros_like(problem.rhs)
        zero = tf.zeros((), zeros.dtype)
        return _State(
            iteration=tf.constant(0),
            result=tf.where(tf.reduce_any(problem.rhs != 0), RUNNING, int(Result.CONVERGED)),
            v_last=zeros,
            v=problem.rhs,
            direction_before=zeros,
            direction=zeros,
            x=zeros,
            beta=zero,
            left=start_reflection(zeros),
            operator_norm=zero,
            best=start_best(zeros),
        )

    def _step(self, problem: Problem, state: _State) -> _State:
        dtype = problem.rhs.dtype
        lanczos = lanczos_step(problem, state.v_last, state.v, state.beta)
        left, column = left_reflection(state.left, lanczos)
        operator_norm = tf.maximum(state.operator_norm, column.norm)
        is_finite = tf.math.is_finite(lanczos.alpha) & tf.math.is_finite(lanczos.beta_next)
        # x_k = x_{k-1} + τ_k d_k, whose residual is no better known than to eps ||A|| ||x_k||
        direction = minres_direction(column, state.v, state.direction_before, state.direction)
        x = state.x + column.tau * direction
        rounding = eps(dtype) * (operator_norm * safe_norm(x) + 1)
        is_limit = rounding > 0.1 * state.left.phi
        # x_{k-1}, the iterate that `root` is about, is as good as any, or x_k can't be known to be better
        is_best = is_least_squares(left, column, operator_norm, self.rtol)
        is_best |= is_limit & seems_inconsistent(column.root, state.left.phi, operator_norm)
        # Where x hasn't grown, what rounding adds to it does no harm yet.
        is_stuck = is_limit & (safe_norm(x) > 2 * safe_norm(state.best.value))
        is_past = is_past_best(state.best, column.root, state.left.phi, operator_norm, is_limit, is_stuck)
        # ||r_k|| = φ_k
        is_converged = left.phi <= tf.maximum(rounding, effective_rtol(self.rtol, dtype))
        result = tf.where(is_converged, int(Result.CONVERGED), RUNNING)
        result = tf.where(is_best | is_past, int(Result.LEAST_SQUARES), result)
        result = tf.where(is_finite, result, int(Result.BREAKDOWN))
        return _State(
            iteration=state.iteration + 1,
            result=result,
            v_last=lanczos.v,
            v=lanczos.v_next,
            direction_before=state.direction,
            direction=direction,
            x=tf.where(is_past, state.best.value, tf.where(is_finite & ~is_best, x, state.x)),
            beta=lanczos.beta_next,
            left=left,
            operator_norm=operator_norm,
            best=next_best(state.best, column.root < state.best.root, state.x, column.root, state.left.phi),
        )
