"""MINRES-QLP: minimum-length solutions of singular symmetric systems.

Source: S.-C. T. Choi, C. C. Paige & M. A. Saunders, "MINRES-QLP: a Krylov subspace method for indefinite or
singular symmetric systems", SIAM J. Sci. Comput. 33(4), 2011 (here CPS); S.-C. T. Choi & M. A. Saunders,
"Algorithm 937", ACM Trans. Math. Softw. 40(2), 2014 (here CS).

MINRES factorises the Lanczos matrix T_k as Q_k T_k = R_k. Reflections from the right as well make R_k P_k = L_k lower
triangular, with diagonal γ, subdiagonal ϑ and second subdiagonal η. With W_k = V_k P_k the iterate is
x_k = W_k u_k, where L_k u_k = t_k and t = (τ_1, ..., τ_k). W_k being orthonormal, ||x_k|| = ||u_k||. An entry is
final two steps after it appeared. As long as R_k is well conditioned, MINRES' cheaper x_k = x_{k-1} + τ_k d_k with
D_k R_k = V_k is just as accurate (CPS, section 5.2).
"""

from typing import Any, NamedTuple

import tensorflow as tf

from ngrl.solvers.lanczos import (
    Lanczos,
    LeftColumn,
    LeftReflection,
    lanczos_step,
    left_reflection,
    minres_direction,
    start_reflection,
    sym_ortho,
)
from ngrl.solvers.minres import RUNNING, least_squares_rtol
from ngrl.solvers.solution import (
    MinresQLPStats,
    Problem,
    Result,
    Solver,
    check_count,
    check_number,
    effective_rtol,
    eps,
)


class _Right(NamedTuple):
    """The right reflections and the last rows of L u = t after step k (CPS, table 5.1); all scalars."""

    cosine_2: tf.Tensor  # the reflection of columns k-2 and k in step k
    sine_2: tf.Tensor
    cosine_3: tf.Tensor  # the reflection of columns k-1 and k in step k
    sine_3: tf.Tensor
    gamma_before: tf.Tensor  # γ_{k-1}, once reflected on
    gamma: tf.Tensor  # γ_k
    theta_before: tf.Tensor  # ϑ_{k-1}, final
    theta: tf.Tensor  # ϑ_k
    eta_before: tf.Tensor  # η_{k-1}
    eta: tf.Tensor  # η_k
    tau_before: tf.Tensor  # τ_{k-1}
    tau: tf.Tensor  # τ_k
    mu_final_before: tf.Tensor  # μ_{k-3}, final
    mu_final: tf.Tensor  # μ_{k-2}, final
    mu_before: tf.Tensor  # μ_{k-1}
    mu: tf.Tensor  # μ_k
    norm_final: tf.Tensor  # ||(μ_1, ..., μ_{k-2})||


class _Estimates(NamedTuple):
    """Norms of the operator and of the solution, from the recurrences (CPS, section 4)."""

    operator_norm: tf.Tensor
    smallest_gamma: tf.Tensor
    condition: tf.Tensor
    solution_norm: tf.Tensor


class _Vectors(NamedTuple):
    """What the iterate is made of, [P] each.

    In the MINRES phase d_{k-1}, d_k and x_k; in the QLP phase w_{k-1}, w_k and what of x is final: then
    x_k = x + μ_{k-1} w_{k-1} + μ_k w_k.
    """

    before: tf.Tensor
    last: tf.Tensor
    x: tf.Tensor


class _State(NamedTuple):
    iteration: tf.Tensor
    qlp_iterations: tf.Tensor
    result: tf.Tensor
    v_last: tf.Tensor  # [P]
    v: tf.Tensor  # [P]
    beta: tf.Tensor
    left: LeftReflection
    right: _Right
    estimates: _Estimates
    vectors: _Vectors


@tf.keras.utils.register_keras_serializable(package="ngrl")
class MinresQLP(Solver):
    """MINRES-QLP, for any symmetric system; gives the shortest of all (least-squares) solutions.

    Ends with
      CONVERGED at `||r|| <= rtol ||b||`, or where rounding allows no more: `||r|| <= eps (||A|| ||x|| + ||b||)`;
      LEAST_SQUARES at `||A r|| <= rtol ||A|| ||r||` (rtol at least 32 eps): the system is inconsistent;
      MAX_CONDITION where the estimated condition number of A + λI would exceed `max_condition`;
      MAX_NORM where ||x|| would exceed `max_norm`;
      EIGENVECTOR at `eps ||A|| ||x|| >= ||b||`: b is nothing beside A x, whose rounding it equals;
      MAX_ITERATIONS; BREAKDOWN when a product isn't finite.

    In the cases LEAST_SQUARES, MAX_CONDITION and MAX_NORM the last diagonal entry of L is taken for zero and so
    the value leaves out the direction that it belongs to: this makes it the shortest.

    Departures from the paper: rtol bounds ||r|| / ||b||, as in the other solvers, instead of the backward error
    ||r|| / (||A|| ||x|| + ||b||); the limits of norm and condition come from the dtype unless they are given.
    """

    def __init__(
        self,
        *,
        rtol: float = 1e-6,
        max_iterations: int = 100,
        max_norm: float | None = None,
        max_condition: float | None = None,
        transition_condition: float = 1e7,
    ) -> None:
        """Configures the solver.

        Args:
          rtol: Relative residual at which to stop; at least 4 eps of the dtype is used.
          max_iterations: Most iterations of both phases, one product with the operator each.
          max_norm: Largest allowed `||x||`; None for no limit.
          max_condition: Largest allowed condition number; 0.1 / eps of the dtype if None.
          transition_condition: The condition number from which on the QLP phase is used ("TranCond"); 1 for QLP
            from the start. No more than 0.1 / sqrt(eps) of the dtype is used.

        Raises:
          ValueError: An argument is no number or out of its range.
        """
        self.rtol = check_number("rtol", rtol, 0.0)
        self.max_iterations = check_count("max_iterations", max_iterations)
        self.max_norm = max_norm
        if max_norm is not None:
            self.max_norm = check_number("max_norm", max_norm, 0.0, inclusive=False)
        self.max_condition = max_condition
        if max_condition is not None:
            self.max_condition = check_number("max_condition", max_condition, 1.0)
        self.transition_condition = check_number("transition_condition", transition_condition, 1.0)

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {
            "rtol": self.rtol,
            "max_iterations": self.max_iterations,
            "max_norm": self.max_norm,
            "max_condition": self.max_condition,
            "transition_condition": self.transition_condition,
        }

    def _solve(self, problem: Problem) -> tuple[tf.Tensor, tf.Tensor, MinresQLPStats]:
        def goes_on(state: _State) -> tf.Tensor:
            return (state.result == RUNNING) & (state.iteration < self.max_iterations)

        def step(state: _State) -> tuple[_State]:
            return (self._step(problem, state),)

        (end,) = tf.while_loop(goes_on, step, (_start(problem),))
        vectors, right = end.vectors, end.right
        unfinished = right.mu_before * vectors.before + right.mu * vectors.last
        value = tf.where(end.qlp_iterations > 0, vectors.x + unfinished, vectors.x)
        result = tf.where(end.result == RUNNING, int(Result.MAX_ITERATIONS), end.result)
        dtype = problem.rhs.dtype
        stats = MinresQLPStats(
            iterations=end.iteration,
            residual=tf.constant(effective_rtol(self.rtol, dtype), dtype),
            qlp_iterations=end.qlp_iterations,
            operator_norm=end.estimates.operator_norm,
            condition=end.estimates.condition,
            solution_norm=problem.rhs_norm * end.estimates.solution_norm,
        )
        return value, result, stats

    def _step(self, problem: Problem, state: _State) -> _State:
        lanczos = lanczos_step(problem, state.v_last, state.v, state.beta)
        left, column = left_reflection(state.left, lanczos)
        is_finite = tf.math.is_finite(lanczos.alpha) & tf.math.is_finite(lanczos.beta_next)
        iteration = state.iteration + 1
        right = _right_reflections(state.right, column)
        estimates = _estimate(state.estimates, right, column, iteration)
        result = self._result(problem, left, column, estimates)
        # What is left out of x: the last entry, when its γ is (next to) nothing.
        is_truncated = is_finite & _is_any(
            result, Result.LEAST_SQUARES, Result.MAX_CONDITION, Result.MAX_NORM
        )
        right = right._replace(mu=tf.where(is_truncated, tf.zeros_like(right.mu), right.mu))
        estimates = _select(is_truncated, _truncated(state.estimates, estimates, right), estimates)
        # The QLP phase begins once and for all, and a truncation needs it.
        limit = self._transition_condition(problem.rhs.dtype)
        is_qlp = (state.qlp_iterations > 0) | (estimates.condition >= limit) | is_truncated
        vectors = _next_vectors(is_finite, is_qlp, state, column, right)
        return _State(
            iteration=iteration,
            qlp_iterations=state.qlp_iterations + tf.cast(is_qlp & is_finite, tf.int32),
            result=tf.where(is_finite, result, int(Result.BREAKDOWN)),
            v_last=lanczos.v,
            v=lanczos.v_next,
            beta=lanczos.beta_next,
            left=left,
            right=_select(is_finite, right, state.right),
            estimates=_select(is_finite, estimates, state.estimates),
            vectors=vectors,
        )

    def _result(
        self, problem: Problem, left: LeftReflection, column: LeftColumn, estimates: _Estimates
    ) -> tf.Tensor:
        """The stopping rules, the weakest first: later ones overrule."""
        dtype = problem.rhs.dtype
        rounding = eps(dtype) * estimates.operator_norm * estimates.solution_norm
        result = tf.where(rounding >= 1, int(Result.EIGENVECTOR), RUNNING)
        is_converged = left.phi <= tf.maximum(effective_rtol(self.rtol, dtype), rounding + eps(dtype))
        result = tf.where((result == RUNNING) & is_converged, int(Result.CONVERGED), result)
        if self.max_norm is not None:
            is_long = problem.rhs_norm * estimates.solution_norm > self.max_norm
            result = tf.where(is_long, int(Result.MAX_NORM), result)
        max_condition = self.max_condition or 0.1 / eps(dtype)
        result = tf.where(estimates.condition > max_condition, int(Result.MAX_CONDITION), result)
        is_least_squares = column.root <= least_squares_rtol(self.rtol, dtype) * estimates.operator_norm
        return tf.where(is_least_squares, int(Result.LEAST_SQUARES), result)

    def _transition_condition(self, dtype: tf.DType) -> float:
        return min(self.transition_condition, 0.1 / eps(dtype) ** 0.5)
