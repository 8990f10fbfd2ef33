"""The conjugate gradient method (Hestenes & Stiefel 1952)."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import tensorflow as tf

from ngrl.checks import check_count, check_number
from ngrl.configurable import configurable
from ngrl.solvers.kfac import Kfac
from ngrl.solvers.preconditioning import PreconditionedSolver
from ngrl.solvers.solution import (
    Answer,
    Problem,
    Result,
    SolverStats,
    dot,
    effective_rtol,
    eps,
    flat_zeros,
)
from ngrl.solvers.system import RightHandSide


class _State(NamedTuple):
    """The loop's state; A stands for A + λI."""

    iteration: tf.Tensor
    x: tf.Tensor  # [P], the iterate
    r: tf.Tensor  # [P], b - A x by recurrence
    p: tf.Tensor  # [P], the search direction
    rr: tf.Tensor  # rᵀr
    rz: tf.Tensor  # rᵀM⁻¹r, which is rᵀr without a preconditioner
    pp: tf.Tensor  # pᵀp by recurrence
    rayleigh: tf.Tensor  # the largest pᵀAp / pᵀp seen, a bound of ||A|| from below
    is_good: tf.Tensor  # no breakdown so far


@configurable
@tf.keras.utils.register_keras_serializable(package="ngrl")
class ConjugateGradient(PreconditionedSolver):
    """Conjugate gradients, for positive definite systems.

    Stops with CONVERGED at `||b - (A + λI) x|| <= rtol ||b||`, and with BREAKDOWN where the curvature along
    the search direction is not positive, or no more than rounding: at most eps times the largest seen.

    For singular systems only if the right-hand side is in the range to rtol. If it is off it, the end is BREAKDOWN, and
    the value may hold a null-space part of any length (4e7 times the shortest solution's was seen): `MinresQLP` finds
    that.

    With a preconditioner (Golub & Van Loan 2013, algorithm 11.5.1) it stops at the same residual.

    With a warm start it remembers the solution v of an optimizer's step before, and begins at the multiple of v that
    lowers `½ xᵀ(A + λI)x - bᵀx` most, which costs one product. That can only be lower than at 0, where it begins
    otherwise, so that every iterate is a descent direction still. (Martens 2010, section 4.8, takes a fixed part of v.)
    """

    step_slots = ("solution",)

    def __init__(
        self,
        *,
        rtol: float = 1e-6,
        max_iterations: int = 100,
        preconditioner: Kfac | None = None,
        warm_start: bool = False,
    ) -> None:
        """Configures the solver.

        Args:
          rtol: Relative residual at which to stop; at least 4 eps of the dtype is used.
          max_iterations: Most iterations, one product with the operator each.
          preconditioner: A `Kfac`, for operators with layers; None for none.
          warm_start: Whether an optimizer's step begins at the solution of the step before.

        Raises:
          ValueError: `rtol` is negative, `max_iterations` below 1 (with `warm_start` below 2), or `preconditioner` no
            `Kfac`.
        """
        super().__init__(preconditioner)
        self.rtol = check_number("rtol", rtol, "[0, inf)")
        self.warm_start = bool(warm_start)
        # The guess takes a product of its own: with one alone, a solve would never leave it.
        self.max_iterations = check_count("max_iterations", max_iterations, 2 if self.warm_start else 1)

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        config = {"rtol": self.rtol, "max_iterations": self.max_iterations, "warm_start": self.warm_start}
        return {**config, **super().get_config()}

    def slots(self, variables: Sequence[tf.Variable]) -> dict[str, tf.Tensor]:
        """With a warm start the solution before, v [P], beside the preconditioner's; see `Solver.slots`."""
        return super().slots(variables) | ({"solution": flat_zeros(variables)} if self.warm_start else {})

    def answer(
        self,
        operator: tf.linalg.LinearOperator,
        gradient: RightHandSide,
        damping: float | tf.Tensor = 0.0,
        state: Mapping[str, tf.Tensor] | None = None,
    ) -> Answer:
        """The solve, begun at the solution before with a warm start; see `Solver.answer`.

        Raises:
          TypeError: As `Kfac.answer`.
          ValueError: As `Kfac.answer`.
        """
        answer = super().answer(operator, gradient, damping, state)
        if not (self.warm_start and state):
            return answer
        value, result, _ = answer.solution
        solution = tf.where(result == Result.BREAKDOWN, state["solution"], value)
        return answer._replace(state={**answer.state, "solution": solution})

    def _problem(
        self,
        operator: tf.linalg.LinearOperator,
        rhs: tf.Tensor,
        damping: float | tf.Tensor,
        state: Mapping[str, tf.Tensor] | None,
    ) -> tuple[Problem, dict[str, tf.Tensor]]:
        problem, after = super()._problem(operator, rhs, damping, state)
        if not (self.warm_start and state):
            return problem, after
        v = state["solution"]
        return problem._replace(guess=tf.math.divide_no_nan(v, tf.reduce_max(tf.abs(v)))), after

    def _solve(self, problem: Problem) -> tuple[tf.Tensor, tf.Tensor, SolverStats]:
        dtype = problem.rhs.dtype
        rtol = effective_rtol(self.rtol, dtype)
        smallest_curvature = tf.constant(eps(dtype), dtype)
        tolerance = tf.constant(rtol**2, dtype)

        def goes_on(state: _State) -> tf.Tensor:
            return state.is_good & (state.rr > tolerance) & (state.iteration < self.max_iterations)

        def step(state: _State) -> tuple[_State]:
            # pᵀAp and the step length rᵀz / pᵀAp, z = M⁻¹r
            product = problem.damped_product(state.p)
            curvature = dot(state.p, product)
            alpha = state.rz / curvature
            # r ← r - α A p
            r = state.r - alpha * product
            rr = dot(r, r)
            z = r if problem.inverse is None else problem.inverse(r)
            rz = rr if problem.inverse is None else dot(r, z)
            is_good = (
                (curvature > smallest_curvature * state.rayleigh * state.pp)
                & tf.math.is_finite(curvature)
                & tf.math.is_finite(rr)
                & tf.math.is_finite(rz)
                & ((rz > 0) | tf.equal(rr, 0))
            )
            # x ← x + α p, unless that would be division by nothing
            x = state.x + tf.where(is_good, alpha, tf.zeros_like(alpha)) * state.p
            # p ← z + β p. As r ⟂ p, its squared norm needs no reduction over the vector if z = r.
            beta = rz / state.rz
            p = z + beta * state.p
            pp = rr + beta * beta * state.pp if problem.inverse is None else dot(p, p)
            return (
                _State(
                    iteration=state.iteration + 1,
                    x=x,
                    r=r,
                    p=p,
                    rr=rr,
                    rz=rz,
                    pp=pp,
                    rayleigh=tf.maximum(state.rayleigh, curvature / state.pp),
                    is_good=is_good,
                ),
            )

        (end,) = tf.while_loop(goes_on, step, (_start(problem),))
        result = tf.where(end.rr <= tolerance, int(Result.CONVERGED), int(Result.MAX_ITERATIONS))
        result = tf.where(end.is_good, result, int(Result.BREAKDOWN))
        return end.x, result, SolverStats(end.iteration, tf.constant(rtol, dtype))


def _start(problem: Problem) -> _State:
    x, r, bound = _origin(problem)
    rr = dot(r, r)
    z = r if problem.inverse is None else problem.inverse(r)
    rz = rr if problem.inverse is None else dot(r, z)
    return _State(
        iteration=tf.constant(0 if problem.guess is None else 1),
        x=x,
        r=r,
        p=z,
        rr=rr,
        rz=rz,
        pp=rr if problem.inverse is None else dot(z, z),
        rayleigh=bound,
        is_good=tf.math.is_finite(rr) & tf.math.is_finite(rz) & ((rz > 0) | tf.equal(rr, 0)),
    )


def _origin(problem: Problem) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Where the iterates begin, its residual, and what bounds ||A|| from below by then; A stands for A + λI."""
    zero = tf.zeros([], problem.rhs.dtype)
    if problem.guess is None:
        return tf.zeros_like(problem.rhs), problem.rhs, zero
    # The minimum of ½ s² vᵀAv - s bᵀv lies at s = bᵀv / vᵀAv.
    product = problem.damped_product(problem.guess)
    curvature, norm = dot(problem.guess, product), dot(problem.guess, problem.guess)
    s = tf.math.divide_no_nan(dot(problem.rhs, problem.guess), curvature)
    is_good = (curvature > 0) & tf.math.is_finite(s)
    return (
        tf.where(is_good, s * problem.guess, tf.zeros_like(problem.guess)),
        tf.where(is_good, problem.rhs - s * product, problem.rhs),
        tf.where(is_good, tf.math.divide_no_nan(curvature, norm), zero),
    )
