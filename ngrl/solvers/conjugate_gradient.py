"""The conjugate gradient method (Hestenes & Stiefel 1952)."""

from typing import Any, NamedTuple

import tensorflow as tf

from ngrl.checks import check_count, check_number
from ngrl.configurable import configurable
from ngrl.solvers.solution import (
    Problem,
    Result,
    Solver,
    SolverStats,
    dot,
    effective_rtol,
    eps,
)


class _State(NamedTuple):
    """The loop's state; A stands for A + λI."""

    iteration: tf.Tensor
    x: tf.Tensor  # [P], the iterate
    r: tf.Tensor  # [P], b - A x by recurrence
    p: tf.Tensor  # [P], the search direction
    rr: tf.Tensor  # rᵀr
    pp: tf.Tensor  # pᵀp by recurrence
    rayleigh: tf.Tensor  # the largest pᵀAp / pᵀp seen, a bound of ||A|| from below
    is_good: tf.Tensor  # no breakdown so far


@configurable
@tf.keras.utils.register_keras_serializable(package="ngrl")
class ConjugateGradient(Solver):
    """Conjugate gradients, for positive definite systems.

    Stops with CONVERGED at `||b - (A + λI) x|| <= rtol ||b||`, and with BREAKDOWN where the curvature along
    the search direction is not positive, or no more than rounding: at most eps times the largest seen.

    For singular systems only if the right-hand side is in the range to rtol. If it is off it, the end is BREAKDOWN, and
    the value may hold a null-space part of any length (4e7 times the shortest solution's was seen): `MinresQLP` finds
    that.
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
        dtype = problem.rhs.dtype
        rtol = effective_rtol(self.rtol, dtype)
        smallest_curvature = tf.constant(eps(dtype), dtype)
        tolerance = tf.constant(rtol**2, dtype)

        def goes_on(state: _State) -> tf.Tensor:
            return state.is_good & (state.rr > tolerance) & (state.iteration < self.max_iterations)

        def step(state: _State) -> tuple[_State]:
            # pᵀAp and the step length rᵀr / pᵀAp
            product = problem.damped_product(state.p)
            curvature = dot(state.p, product)
            alpha = state.rr / curvature
            # r ← r - α A p
            r = state.r - alpha * product
            rr = dot(r, r)
            is_good = (
                (curvature > smallest_curvature * state.rayleigh * state.pp)
                & tf.math.is_finite(curvature)
                & tf.math.is_finite(rr)
            )
            # x ← x + α p, unless that would be division by nothing
            x = state.x + tf.where(is_good, alpha, tf.zeros_like(alpha)) * state.p
            # p ← r + β p. As r ⟂ p, its squared norm needs no reduction over the vector.
            beta = rr / state.rr
            return (
                _State(
                    iteration=state.iteration + 1,
                    x=x,
                    r=r,
                    p=r + beta * state.p,
                    rr=rr,
                    pp=rr + beta * beta * state.pp,
                    rayleigh=tf.maximum(state.rayleigh, curvature / state.pp),
                    is_good=is_good,
                ),
            )

        rr = dot(problem.rhs, problem.rhs)
        start = _State(
            iteration=tf.constant(0),
            x=tf.zeros_like(problem.rhs),
            r=problem.rhs,
            p=problem.rhs,
            rr=rr,
            pp=rr,
            rayleigh=tf.zeros_like(rr),
            is_good=tf.math.is_finite(rr),
        )
        (end,) = tf.while_loop(goes_on, step, (start,))
        result = tf.where(end.rr <= tolerance, int(Result.CONVERGED), int(Result.MAX_ITERATIONS))
        result = tf.where(end.is_good, result, int(Result.BREAKDOWN))
        return end.x, result, SolverStats(end.iteration, tf.constant(rtol, dtype))
