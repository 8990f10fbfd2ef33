"""MINRES-QLP: minimum-length solutions of singular symmetric systems.

Source: S.-C. T. Choi, C. C. Paige & M. A. Saunders, "MINRES-QLP: a Krylov subspace method for indefinite or
singular symmetric systems", SIAM J. Sci. Comput. 33(4), 2011 (here CPS); S.-C. T. Choi & M. A. Saunders,
"Algorithm 937", ACM Trans. Math. Softw. 40(2), 2014 (here CS).

MINRES factorises the Lanczos matrix T_k as Q_k T_k = R_k. Reflections from the right as well make
R_k P_k = L_k lower triangular, with diagonal γ, subdiagonal ϑ and second subdiagonal η. With W_k = V_k P_k
the iterate is x_k = W_k u_k, where L_k u_k = t_k and t_k = (τ_1, ..., τ_k). W_k being orthonormal,
||x_k|| = ||u_k||. An entry μ of u is final two steps after it appeared. As long as R_k is well conditioned,
MINRES' cheaper x_k = x_{k-1} + τ_k d_k with D_k R_k = V_k is just as accurate (CPS, section 5).
"""

import math
from typing import Any, NamedTuple, TypeVar

import numpy as np
import tensorflow as tf

from ngrl.solvers.lanczos import (
    LeftColumn,
    LeftReflection,
    lanczos_step,
    left_reflection,
    minres_direction,
    start_reflection,
    sym_ortho,
)
from ngrl.solvers.least_squares import Best, is_least_squares, is_past_best, next_best, start_best
from ngrl.solvers.minres import RUNNING
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

_Tuple = TypeVar("_Tuple", bound=tuple)


class _Right(NamedTuple):
    """The right reflections and the last rows of L u = t after step k (CPS, table 5.1); all scalars."""

    cosine_2: tf.Tensor  # the reflection of columns k-2 and k in step k
    sine_2: tf.Tensor
    cosine_3: tf.Tensor  # the reflection of columns k-1 and k in step k
    sine_3: tf.Tensor
    gamma_final: tf.Tensor  # γ_{k-2}, final
    gamma_before: tf.Tensor  # γ_{k-1}, to be reflected once more
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
    best: Best


@tf.keras.utils.register_keras_serializable(package="ngrl")
class MinresQLP(Solver):
    """MINRES-QLP, for any symmetric system; gives the shortest of all (least-squares) solutions.

    Ends with
      CONVERGED at `||r|| <= rtol ||b||`, or at rounding level, `||r|| <= eps (||A|| ||x|| + ||b||)`;
      LEAST_SQUARES at `||A r|| <= rtol ||A|| ||r||` (rtol at least 32 eps): the system is inconsistent;
      MAX_CONDITION where the estimated condition number of A + λI would exceed `max_condition`;
      MAX_NORM where ||x|| would exceed `max_norm`;
      EIGENVECTOR at `eps ||A|| ||x|| >= ||b||`: b is nothing beside A x, whose rounding it equals;
      MAX_ITERATIONS; BREAKDOWN when a product isn't finite.

    With LEAST_SQUARES the last diagonal entry of L counts as zero and the value leaves out the direction that
    it belongs to, which makes it the shortest. At the two limits the same is done if the residual looks like
    that of an inconsistent system (`||A r|| / (||A|| ||r||) <= ||r|| / ||b||`); otherwise the value is the
    last iterate within the limit.

    Departures from the paper: rtol bounds ||r|| / ||b||, as in the other solvers, instead of the backward
    error ||r|| / (||A|| ||x|| + ||b||); the limits of norm and condition come from the dtype unless they are
    given.
    """

    def __init__(
        self,
        *,
        rtol: float = 1e-6,
        max_iterations: int = 100,
        max_norm: float | None = None,
        max_condition: float | None = None,
        transition_condition: float | None = None,
    ) -> None:
        """Configures the solver.

        Args:
          rtol: Relative residual at which to stop; at least 4 eps of the dtype is used.
          max_iterations: Most iterations of both phases, one product with the operator each.
          max_norm: Largest allowed `||x||`; None for no limit.
          max_condition: Largest allowed condition number; 0.1 / eps of the dtype if None.
          transition_condition: The condition number from which on the QLP phase is used ("TranCond"); 1 for
            QLP from the start; 0.1 / sqrt(eps) of the dtype if None (7e6 in float64).

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
        self.transition_condition = transition_condition
        if transition_condition is not None:
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
        is_past = (end.result == Result.LEAST_SQUARES) & (end.left.root > 30 * best.root)
        result = tf.where(end.result == RUNNING, int(Result.MAX_ITERATIONS), end.result)
        dtype = problem.rhs.dtype
        stats = MinresQLPStats(
            iterations=end.iteration,
            residual=tf.constant(effective_rtol(self.rtol, dtype), dtype),
            qlp_iterations=end.qlp_iterations,
            operator_norm=end.estimates.operator_norm,
            condition=end.estimates.condition,
            solution_norm=tf.math.multiply_no_nan(problem.rhs_norm, end.estimates.solution_norm),
        )
        return value, result, stats

    def _step(self, problem: Problem, state: _State) -> _State:
        lanczos = lanczos_step(problem, state.v_last, state.v, state.beta)
        left, column = left_reflection(state.left, lanczos)
        is_finite = tf.math.is_finite(lanczos.alpha) & tf.math.is_finite(lanczos.beta_next)
        right = _right_reflections(state.right, column)
        estimates = _estimate(state, right, column)
        result = self._result(problem, left, column, estimates)
        # At a limit, an inconsistent system's x_k does without its last entry; others keep x_{k-1}.
        is_limit = (result == Result.MAX_CONDITION) | (result == Result.MAX_NORM)
        is_inconsistent = column.root <= state.left.phi * estimates.operator_norm
        is_cut = (result == Result.LEAST_SQUARES) | (is_limit & is_inconsistent)
        advances = is_finite & ~(is_limit & ~is_inconsistent)
        cut = right._replace(mu=tf.zeros_like(right.mu), gamma=tf.ones_like(right.mu) * np.inf)
        right = _select(is_cut, cut, right)
        estimates = _estimate(state, right, column)
        # The QLP phase begins once and for all; leaving an entry out needs it.
        is_qlp = (state.qlp_iterations > 0) | is_cut
        is_qlp |= estimates.condition >= self._transition_condition(problem.rhs.dtype)
        vectors = _next_vectors(state, column, right, advances, is_qlp)
        # x_k without its last entry, the answer to an inconsistent system, as good as r_{k-1} says.
        best = next_best(
            state.best,
            is_qlp & advances & (column.root < state.best.root),
            vectors.x + right.mu_before * vectors.before,
            column.root,
            state.left.phi,
        )
        is_past = is_past_best(state.best, column.root, state.left.phi, estimates.operator_norm)
        return _State(
            iteration=state.iteration + 1,
            qlp_iterations=state.qlp_iterations + tf.cast(is_qlp & advances, tf.int32),
            result=tf.where(
                is_past, int(Result.LEAST_SQUARES), tf.where(is_finite, result, int(Result.BREAKDOWN))
            ),
            v_last=lanczos.v,
            v=lanczos.v_next,
            beta=lanczos.beta_next,
            left=left,
            right=_select(advances, right, state.right),
            estimates=_select(advances, estimates, state.estimates),
            vectors=vectors,
            best=best,
        )

    def _result(
        self, problem: Problem, left: LeftReflection, column: LeftColumn, estimates: _Estimates
    ) -> tf.Tensor:
        """The stopping rules; later ones overrule."""
        dtype = problem.rhs.dtype
        rounding = eps(dtype) * estimates.operator_norm * estimates.solution_norm
        result = tf.where(rounding >= 1, int(Result.EIGENVECTOR), RUNNING)
        is_converged = left.phi <= tf.maximum(rounding + eps(dtype), effective_rtol(self.rtol, dtype))
        result = tf.where((result == RUNNING) & is_converged, int(Result.CONVERGED), result)
        if self.max_norm is not None:
            is_long = problem.rhs_norm * estimates.solution_norm > self.max_norm
            result = tf.where(is_long, int(Result.MAX_NORM), result)
        max_condition = 0.1 / eps(dtype) if self.max_condition is None else self.max_condition
        result = tf.where(estimates.condition > max_condition, int(Result.MAX_CONDITION), result)
        is_best = is_least_squares(left, column, estimates.operator_norm, self.rtol)
        return tf.where(is_best, int(Result.LEAST_SQUARES), result)

    def _transition_condition(self, dtype: tf.DType) -> float:
        if self.transition_condition is None:
            return 0.1 / math.sqrt(eps(dtype))
        return self.transition_condition


def _start(problem: Problem) -> _State:
    zeros = tf.zeros_like(problem.rhs)
    zero = tf.zeros((), zeros.dtype)
    estimates = _Estimates(zero, zero + np.inf, zero + 1, zero)
    return _State(
        iteration=tf.constant(0),
        qlp_iterations=tf.constant(0),
        result=tf.where(tf.reduce_any(problem.rhs != 0), RUNNING, int(Result.CONVERGED)),
        v_last=zeros,
        v=problem.rhs,
        beta=zero,
        left=start_reflection(zeros),
        right=_Right(*[zero] * len(_Right._fields)),
        estimates=estimates,
        vectors=_Vectors(zeros, zeros, zeros),
        best=start_best(zeros),
    )


def _right_reflections(last: _Right, column: LeftColumn) -> _Right:
    """Step k of L = R P and of L u = t; `last` is as step k-1 left it.

    The columns k-2 and k-1 that the first two steps lack are zero, and so are their entries of u.
    """
    # columns k-2 and k: annihilate ε_k beside γ_{k-2}
    cosine_2, sine_2, gamma_final = sym_ortho(last.gamma_before, column.epsilon)
    theta_before = cosine_2 * last.theta + sine_2 * column.delta
    delta = sine_2 * last.theta - cosine_2 * column.delta
    eta = sine_2 * column.gamma
    gamma = -cosine_2 * column.gamma
    # columns k-1 and k: annihilate δ_k beside γ_{k-1}
    cosine_3, sine_3, gamma_before = sym_ortho(last.gamma, delta)
    theta = sine_3 * gamma
    gamma = -cosine_3 * gamma
    # forward substitution: η_j μ_{j-2} + ϑ_j μ_{j-1} + γ_j μ_j = τ_j  for j = k-2, k-1, k
    mu_final = tf.math.divide_no_nan(
        last.tau_before - last.eta_before * last.mu_final_before - last.theta_before * last.mu_final,
        gamma_final,
    )
    mu_before = tf.math.divide_no_nan(
        last.tau - last.eta * last.mu_final - theta_before * mu_final, gamma_before
    )
    mu = tf.math.divide_no_nan(column.tau - eta * mu_final - theta * mu_before, gamma)
    return _Right(
        cosine_2=cosine_2,
        sine_2=sine_2,
        cosine_3=cosine_3,
        sine_3=sine_3,
        gamma_final=gamma_final,
        gamma_before=gamma_before,
        gamma=gamma,
        theta_before=theta_before,
        theta=theta,
        eta_before=last.eta,
        eta=eta,
        tau_before=last.tau,
        tau=column.tau,
        mu_final_before=last.mu_final,
        mu_final=mu_final,
        mu_before=mu_before,
        mu=mu,
        norm_final=_hypot(last.norm_final, mu_final),
    )


def _estimate(state: _State, right: _Right, column: LeftColumn) -> _Estimates:
    """||A|| and the condition number from the diagonal of L, ||x_k|| = ||u_k|| (CPS, section 4)."""
    last = state.estimates
    infinity = tf.ones_like(right.gamma) * np.inf
    # A diagonal entry that is left out counts as infinite here; columns before the first don't count.
    smallest = tf.minimum(last.smallest_gamma, tf.abs(right.gamma))
    smallest = tf.minimum(smallest, tf.where(state.iteration >= 1, right.gamma_before, infinity))
    smallest = tf.minimum(smallest, tf.where(state.iteration >= 2, right.gamma_final, infinity))
    norm = tf.maximum(last.operator_norm, column.norm)
    condition = tf.where(smallest > 0, tf.maximum(norm / smallest, 1), infinity)
    return _Estimates(
        operator_norm=norm,
        smallest_gamma=smallest,
        condition=condition,
        solution_norm=_hypot(_hypot(right.norm_final, right.mu_before), right.mu),
    )


def _next_vectors(
    state: _State, column: LeftColumn, right: _Right, advances: tf.Tensor, is_qlp: tf.Tensor
) -> _Vectors:
    """The vectors after step k: as they were, or by the rule of the phase."""
    phase = tf.where(is_qlp, tf.where(state.qlp_iterations > 0, 3, 2), 1)
    vectors = tf.switch_case(
        tf.where(advances, phase, 0),
        [
            lambda: state.vectors,
            lambda: _minres_update(state.vectors, state.v, column),
            lambda: _qlp_update(_transfer(state.vectors, state.right), state.v, right),
            lambda: _qlp_update(state.vectors, state.v, right),
        ],
    )
    return _Vectors(*vectors)


def _minres_update(vectors: _Vectors, v: tf.Tensor, column: LeftColumn) -> _Vectors:
    """`x_k = x_{k-1} + τ_k d_k`."""
    direction = minres_direction(column, v, vectors.before, vectors.last)
    return _Vectors(vectors.last, direction, vectors.x + column.tau * direction)


def _transfer(vectors: _Vectors, right: _Right) -> _Vectors:
    """From the MINRES phase to the QLP phase, after step k (CPS, section 5.2).

    `W = V P = D R P = D L`, of which the last two columns are needed, and `x_k = W_k u_k` without them.
    """
    before = right.gamma_before * vectors.before + right.theta * vectors.last
    last = right.gamma * vectors.last
    return _Vectors(before, last, vectors.x - right.mu_before * before - right.mu * last)


def _qlp_update(vectors: _Vectors, v: tf.Tensor, right: _Right) -> _Vectors:
    """Applies the right reflections of step k to (w_{k-2}, w_{k-1}, v_k); w_{k-2} is final then."""
    final = right.cosine_2 * vectors.before + right.sine_2 * v
    last = right.sine_2 * vectors.before - right.cosine_2 * v
    before = right.cosine_3 * vectors.last + right.sine_3 * last
    last = right.sine_3 * vectors.last - right.cosine_3 * last
    return _Vectors(before, last, vectors.x + right.mu_final * final)


def _hypot(a: tf.Tensor, b: tf.Tensor) -> tf.Tensor:
    return sym_ortho(a, b)[2]


def _select(condition: tf.Tensor, new: _Tuple, old: _Tuple) -> _Tuple:
    """`new` or `old`, two named tuples of scalars."""
    return type(new)(*[tf.where(condition, x, y) for x, y in zip(new, old, strict=True)])
