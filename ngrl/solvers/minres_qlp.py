"""MINRES-QLP: minimum-length solutions of singular symmetric systems.

Source: S.-C. T. Choi, C. C. Paige & M. A. Saunders, "MINRES-QLP: a Krylov subspace method for indefinite or
singular symmetric systems", SIAM J. Sci. Comput. 33(4), 2011 (here CPS); S.-C. T. Choi & M. A. Saunders,
"Algorithm 937", ACM Trans. Math. Softw. 40(2), 2014.
"""

import math
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from ngrl.checks import check_count, check_number, check_optional_number
from ngrl.configurable import configurable
from ngrl.solvers.kfac import Kfac
from ngrl.solvers.lanczos import (
    LeftColumn,
    LeftReflection,
    lanczos_step,
    left_reflection,
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
from ngrl.solvers.minres import RUNNING
from ngrl.solvers.preconditioning import PreconditionedSolver
from ngrl.solvers.qlp import (
    Right,
    Vectors,
    hypot,
    minres_update,
    qlp_update,
    right_reflections,
    select,
    transfer,
)
from ngrl.solvers.solution import (
    MinresQLPStats,
    Problem,
    Result,
    dot,
    effective_rtol,
    eps,
    safe_norm,
)


class _Estimates(NamedTuple):
    """Norms of the operator and of the solution, from the recurrences (CPS, section 4)."""

    operator_norm: tf.Tensor
    smallest_gamma: tf.Tensor  # the smallest diagonal entry of L so far
    condition: tf.Tensor
    solution_norm: tf.Tensor


class _State(NamedTuple):
    """After step k."""

    iteration: tf.Tensor
    qlp_iterations: tf.Tensor
    result: tf.Tensor
    v_last: tf.Tensor  # [P], v_k
    v: tf.Tensor  # [P], v_{k+1}
    w: Any  # [P], M⁻¹ v_{k+1}; () without a preconditioner
    beta: tf.Tensor  # β_{k+1}
    left: LeftReflection
    right: Right
    vectors: Vectors
    estimates: _Estimates
    best: Best
    best_estimates: _Estimates
    is_past_best: tf.Tensor  # the best iterate is the answer, this one isn't


@configurable
@tf.keras.utils.register_keras_serializable(package="ngrl")
class MinresQLP(PreconditionedSolver):
    """MINRES-QLP, for any symmetric system; gives the shortest of all (least-squares) solutions.

    Ends with
      CONVERGED at `||r|| <= rtol ||b||`, or at rounding level, `||r|| <= eps (||A|| ||x|| + ||b||)`;
      LEAST_SQUARES at `||A r|| <= rtol ||A|| ||r||` (rtol at least 100 eps): the system is inconsistent;
      MAX_CONDITION where the estimated condition number of A + λI would exceed `max_condition`;
      MAX_NORM where ||x|| would exceed `max_norm`;
      EIGENVECTOR at `eps ||A|| ||x|| >= ||b|| / 10`: rounding in A x would hide b;
      MAX_ITERATIONS; BREAKDOWN when a product isn't finite.

    With LEAST_SQUARES the last diagonal entry of L counts as zero and the value leaves out the direction that
    it belongs to, which makes it the shortest. At the two limits the same is done if the residual looks like
    that of an inconsistent system (`||A r|| / (||A|| ||r||) <= ||r|| / ||b||`); otherwise the value is the
    last iterate within the limit.

    A singular system whose right-hand side is off the range by little, but by more than rtol, ends with
    LEAST_SQUARES too, at the limit of the condition number: the answer is the best iterate, the shortest solution
    to 1e-13 in float64 and 3e-5 in float32 where the condition number of A's other part is 100. The paper takes
    what the limit leaves: a null-space part of up to 2e6 times the solution's length was seen in float64.

    Departures from the paper: rtol bounds ||r|| / ||b||, as in the other solvers, instead of the backward
    error ||r|| / (||A|| ||x|| + ||b||). The limits of norm and condition come from the dtype unless they are
    given. The best least-squares iterate is kept, and answered with LEAST_SQUARES where rounding took over
    before the tolerance was met (`is_past_best`); the paper goes on to its limits.
    """

    def __init__(
        self,
        *,
        rtol: float = 1e-6,
        max_iterations: int = 100,
        max_norm: float | None = None,
        max_condition: float | None = None,
        transition_condition: float | None = None,
        preconditioner: Kfac | None = None,
    ) -> None:
        """Configures the solver.

        Args:
          rtol: Relative residual at which to stop; at least 4 eps of the dtype is used.
          max_iterations: Most iterations of both phases, one product with the operator each.
          max_norm: Largest allowed `||x||`; None for no limit, and with a preconditioner, which knows lengths in its
            own norm alone.
          max_condition: Largest allowed condition number, with a preconditioner M that of M^(-½) (A + λI) M^(-½); 0.1 /
            eps of the dtype if None.
          transition_condition: The condition number from which on the QLP phase is used ("TranCond"); 1 for
            QLP from the start; 0.1 / sqrt(eps) of the dtype if None (7e6 in float64).
          preconditioner: A `Kfac`, for operators with layers; None for none.

        Raises:
          ValueError: An argument is no number or out of its range, `preconditioner` is no `Kfac`, or `max_norm` is
            given beside it.
        """
        super().__init__(preconditioner)
        self.rtol = check_number("rtol", rtol, "[0, inf)")
        self.max_iterations = check_count("max_iterations", max_iterations)
        self.max_norm = check_optional_number("max_norm", max_norm, "(0, inf)")
        if self.max_norm is not None and self.preconditioner is not None:
            raise ValueError("max_norm needs iterates whose lengths are known: set it or preconditioner to None")
        self.max_condition = check_optional_number("max_condition", max_condition, "[1, inf)")
        self.transition_condition = check_optional_number("transition_condition", transition_condition, "[1, inf)")

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {
            "rtol": self.rtol,
            "max_iterations": self.max_iterations,
            "max_norm": self.max_norm,
            "max_condition": self.max_condition,
            "transition_condition": self.transition_condition,
            **super().get_config(),
        }

    def _solve(self, problem: Problem) -> tuple[tf.Tensor, tf.Tensor, MinresQLPStats]:
        def goes_on(state: _State) -> tf.Tensor:
            return (state.result == RUNNING) & (state.iteration < self.max_iterations)

        def step(state: _State) -> tuple[_State]:
            return (self._step(problem, state),)

        start, scale = _start(problem)
        (end,) = tf.while_loop(goes_on, step, (start,))
        x, right = end.vectors.x, end.right
        unfinished = right.mu_before * end.vectors.before + right.mu * end.vectors.last
        value = tf.where(end.qlp_iterations > 0, x + unfinished, x)
        value = tf.where(end.is_past_best, end.best.value, value)
        estimates = select(end.is_past_best, end.best_estimates, end.estimates)
        result = tf.where(end.result == RUNNING, int(Result.MAX_ITERATIONS), end.result)
        dtype = problem.rhs.dtype
        length = estimates.solution_norm
        if scale is not None:  # the estimate is that of M^½ x
            value = scale * value
            length = safe_norm(value)
        stats = MinresQLPStats(
            iterations=end.iteration,
            # In the norm of M⁻¹ no residual is claimed that an ordinary norm could refute.
            residual=tf.constant(effective_rtol(self.rtol, dtype) if problem.inverse is None else np.inf, dtype),
            qlp_iterations=end.qlp_iterations,
            operator_norm=estimates.operator_norm,
            condition=estimates.condition,
            solution_norm=tf.math.multiply_no_nan(problem.rhs_norm, length),
        )
        return value, result, stats

    def _step(self, problem: Problem, state: _State) -> _State:
        lanczos = lanczos_step(problem, state.v_last, state.v, state.beta, state.w)
        left, column = left_reflection(state.left, lanczos)
        is_finite = tf.math.is_finite(lanczos.alpha) & tf.math.is_finite(lanczos.beta_next)
        right = right_reflections(state.right, column)
        estimates = _estimate(state, right, column)
        result = self._result(problem, state, left, column, estimates)
        result = tf.where(is_finite, result, int(Result.BREAKDOWN))
        # u without its last entry, whose diagonal entry counts as zero (here: not at all, thus infinite)
        cut = right._replace(mu=tf.zeros_like(right.mu), gamma=tf.constant(np.inf, right.mu.dtype))
        cut_estimates = _estimate(state, cut, column)
        # At a limit, an inconsistent system is answered by the cut x_k; others by x_{k-1}.
        is_limit = (result == Result.MAX_CONDITION) | (result == Result.MAX_NORM)
        is_inconsistent = column.root <= state.left.phi * estimates.operator_norm
        is_cut = (result == Result.LEAST_SQUARES) | (is_limit & is_inconsistent)
        advances = is_finite & ~(is_limit & ~is_inconsistent)
        right = select(is_cut, cut, right)
        estimates = select(is_cut, cut_estimates, estimates)
        # The QLP phase begins once and for all; leaving an entry out needs it.
        is_qlp = (state.qlp_iterations > 0) | is_cut
        is_qlp |= estimates.condition >= self._transition_condition(problem.rhs.dtype)
        vectors = _next_vectors(state, column, right, advances, is_qlp)
        # ||A r|| / ||r|| is that of r_{k-1}, which the cut x_k has as well.
        is_better = advances & (column.root < state.best.root)
        # In the MINRES phase x_{k-1} itself.
        cut_value = tf.where(is_qlp, vectors.x + right.mu_before * vectors.before, state.vectors.x)
        is_past = is_past_best(
            state.best, column.root, state.left.phi, estimates.operator_norm, is_limit & is_inconsistent, is_limit
        ) & ((state.qlp_iterations > 0) | is_limit)
        return _State(
            iteration=state.iteration + 1,
            qlp_iterations=state.qlp_iterations + tf.cast(is_qlp & advances, tf.int32),
            result=tf.where(is_past, int(Result.LEAST_SQUARES), result),
            v_last=lanczos.v,
            v=lanczos.v_next,
            w=lanczos.w_next,
            beta=lanczos.beta_next,
            left=left,
            right=select(advances, right, state.right),
            vectors=vectors,
            estimates=select(advances, estimates, state.estimates),
            best=next_best(state.best, is_better, cut_value, column.root, state.left.phi),
            best_estimates=select(is_better, cut_estimates, state.best_estimates),
            is_past_best=is_past,
        )

    def _result(
        self,
        problem: Problem,
        last: _State,
        left: LeftReflection,
        column: LeftColumn,
        estimates: _Estimates,
    ) -> tf.Tensor:
        """The stopping rules; later ones overrule."""
        dtype = problem.rhs.dtype
        rounding = eps(dtype) * estimates.operator_norm * estimates.solution_norm
        result = tf.where(rounding >= 0.1, int(Result.EIGENVECTOR), RUNNING)
        is_converged = left.phi <= tf.maximum(rounding + eps(dtype), effective_rtol(self.rtol, dtype))
        result = tf.where((result == RUNNING) & is_converged, int(Result.CONVERGED), result)
        if self.max_norm is not None:
            is_long = problem.rhs_norm * estimates.solution_norm > self.max_norm
            result = tf.where(is_long, int(Result.MAX_NORM), result)
        max_condition = 0.1 / eps(dtype) if self.max_condition is None else self.max_condition
        result = tf.where(estimates.condition > max_condition, int(Result.MAX_CONDITION), result)
        is_best = is_least_squares(left, column, estimates.operator_norm, self.rtol)
        is_orthogonal = seems_inconsistent(column.root, last.left.phi, estimates.operator_norm)
        is_best |= is_orthogonal & ((rounding >= 0.1) | (estimates.condition > max_condition))
        return tf.where(is_best, int(Result.LEAST_SQUARES), result)

    def _transition_condition(self, dtype: tf.DType) -> float:
        if self.transition_condition is None:
            return 0.1 / math.sqrt(eps(dtype))
        return self.transition_condition


def _start(problem: Problem) -> tuple[_State, tf.Tensor | None]:
    """The state before step 1; with a preconditioner b is scaled to bᵀM⁻¹b = 1, and the scale (else None) told."""
    zeros = tf.zeros_like(problem.rhs)
    zero = tf.zeros((), zeros.dtype)
    v, w, scale = problem.rhs, (), None
    if problem.inverse is not None:
        w = problem.inverse(v)
        scale = tf.sqrt(dot(v, w))
        v, w = tf.math.divide_no_nan(v, scale), tf.math.divide_no_nan(w, scale)
    estimates = _Estimates(zero, zero + np.inf, zero + 1, zero)
    state = _State(
        iteration=tf.constant(0),
        qlp_iterations=tf.constant(0),
        result=tf.where(tf.reduce_any(problem.rhs != 0), RUNNING, int(Result.CONVERGED)),
        v_last=zeros,
        v=v,
        w=w,
        beta=zero,
        left=start_reflection(zeros),
        right=Right(*[zero] * len(Right._fields)),
        vectors=Vectors(zeros, zeros, zeros),
        estimates=estimates,
        best=start_best(zeros),
        best_estimates=estimates,
        is_past_best=tf.constant(False),
    )
    return state, scale


def _estimate(state: _State, right: Right, column: LeftColumn) -> _Estimates:
    """||A|| and the condition number from the diagonal of L, ||x_k|| = ||u_k|| (CPS, section 4).

    The first steps lack diagonal entries (they are 0 here), and one that is left out is infinite.
    """
    infinity = tf.constant(np.inf, right.gamma.dtype)
    smallest = tf.minimum(state.estimates.smallest_gamma, tf.abs(right.gamma))
    smallest = tf.minimum(smallest, tf.where(state.iteration >= 1, right.gamma_before, infinity))
    smallest = tf.minimum(smallest, tf.where(state.iteration >= 2, right.gamma_final, infinity))
    norm = tf.maximum(state.estimates.operator_norm, column.norm)
    norm = tf.maximum(norm, tf.maximum(right.gamma_final, right.gamma_before))
    condition = tf.where(smallest > 0, tf.maximum(norm / smallest, 1), infinity)
    return _Estimates(
        operator_norm=norm,
        smallest_gamma=smallest,
        condition=condition,
        solution_norm=hypot(hypot(right.norm_final, right.mu_before), right.mu),
    )


def _next_vectors(state: _State, column: LeftColumn, right: Right, advances: tf.Tensor, is_qlp: tf.Tensor) -> Vectors:
    """The vectors after step k: as they were, or by the rule of the phase."""
    v = state.w if tf.is_tensor(state.w) else state.v
    phase = tf.where(is_qlp, tf.where(state.qlp_iterations > 0, 3, 2), 1)
    vectors = tf.switch_case(
        tf.where(advances, phase, 0),
        [
            lambda: state.vectors,
            lambda: minres_update(state.vectors, v, column),
            lambda: qlp_update(transfer(state.vectors, state.right), v, right),
            lambda: qlp_update(state.vectors, v, right),
        ],
    )
    return Vectors(*vectors)
