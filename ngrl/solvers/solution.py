"""What a solver answers, and the frame every solver shares.

A solver is a callable object: `solver(operator, rhs, damping)` solves `(A + λI) x = b` for any self-adjoint
`tf.linalg.LinearOperator` A of shape [P, P]. It never raises because a system is singular, indefinite, badly
scaled or not finite: it says so in `Solution.result`.
"""

import abc
import enum
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from ngrl.solvers.system import ParameterSystem, RightHandSide, System


class Result(enum.IntEnum):
    """How a solve ended; `Solution.result` holds it as an int32 scalar."""

    CONVERGED = 0
    """The residual met the tolerance."""
    MAX_ITERATIONS = 1
    """The iteration limit came first; the value is the last iterate."""
    BREAKDOWN = 2
    """Non-positive curvature or a non-finite number; the value is the last iterate, or 0 if 0 is better."""
    STAGNATED = 3
    """The recurrence met the tolerance but the residual did not: too ill-conditioned for the dtype."""
    LEAST_SQUARES = 4
    """The system is inconsistent; the value minimises the residual."""
    EIGENVECTOR = 5
    """The value has grown into a null vector of A + λI, as far as the dtype can tell."""
    MAX_NORM = 6
    """The norm of the solution went beyond `max_norm`."""
    MAX_CONDITION = 7
    """The estimated condition number went beyond `max_condition`."""


class SolverStats(NamedTuple):
    """Numbers about one solve.

    Attributes:
      iterations: Number of iterations, one product with the operator each; int32 scalar.
      residual: `||b - (A + λI) x|| / ||b||`, computed from the value that is returned; 0 when b = 0, and 1
        (that of x = 0) when nothing finite was found.
    """

    iterations: tf.Tensor
    residual: tf.Tensor


class MinresQLPStats(NamedTuple):
    """Numbers about one solve by MINRES-QLP: those of `SolverStats`, then the method's own estimates.

    Attributes:
      iterations: Number of iterations of both phases; int32 scalar.
      residual: As in `SolverStats`.
      qlp_iterations: How many of the iterations were made in the QLP phase; int32 scalar.
      operator_norm: Estimate of `||A + λI||` from below; with a preconditioner M, of `||M^(-½) (A + λI) M^(-½)||`.
      condition: Estimate of the condition number of A + λI, of its non-null part if it is singular; or of the same
        matrix with a preconditioner.
      solution_norm: Estimate of `||x||` from the recurrence; with a preconditioner `||x||` itself.
    """

    iterations: tf.Tensor
    residual: tf.Tensor
    qlp_iterations: tf.Tensor
    operator_norm: tf.Tensor
    condition: tf.Tensor
    solution_norm: tf.Tensor


class Solution(NamedTuple):
    """A solver's answer.

    Attributes:
      value: The solution x [P], always finite.
      result: A `Result`, as an int32 scalar.
      stats: `SolverStats`, or `MinresQLPStats` from MINRES-QLP.
    """

    value: tf.Tensor
    result: tf.Tensor
    stats: Any


class Answer(NamedTuple):
    """What a solver answers to an optimizer.

    Attributes:
      solution: x, how the solve ended, and its stats.
      image: What the system makes of x; see `System`.
      system: The system that was solved.
      state: The solver's state after the solve, with the names and shapes of `Solver.slots`.
    """

    solution: Solution
    image: tf.Tensor
    system: System
    state: dict[str, tf.Tensor]


class Problem(NamedTuple):
    """One system as a solver's `_solve` sees it: `(A + λI) y = b̂` with `||b̂|| = 1` (or b̂ = 0).

    Attributes:
      operator: A.
      damping: λ, a scalar of the operator's dtype.
      rhs: b̂ = b / ||b|| [P].
      rhs_norm: ||b||, so that x = ||b|| y.
      inverse: None, or a preconditioner's M⁻¹ v, [P] to [P], M symmetric and positive definite.
      guess: None, or a vector [P] that may point to the solution; its length says nothing.
    """

    operator: tf.linalg.LinearOperator
    damping: tf.Tensor
    rhs: tf.Tensor
    rhs_norm: tf.Tensor
    inverse: Callable[[tf.Tensor], tf.Tensor] | None = None
    guess: tf.Tensor | None = None

    def product(self, vector: tf.Tensor) -> tf.Tensor:
        """`A v`, [P] to [P]."""
        return tf.ensure_shape(self.operator.matvec(vector), self.rhs.shape)

    def damped_product(self, vector: tf.Tensor) -> tf.Tensor:
        """`(A + λI) v`, [P] to [P]."""
        return self.product(vector) + self.damping * vector


class Solver(abc.ABC):
    """Solves `(A + λI) x = b`. A subclass implements `_solve` and `get_config`.

    An optimizer calls `answer`. A solver that works in another space than that of the parameters, or that remembers
    something from one solve to the next, overrides it, and `slots` with it.
    """

    #: Whether it takes any self-adjoint operator, such as a matrix; else it needs a network's rows or layers.
    solves_matrices = True

    #: Whether `answer` needs a gradient given by the outputs, the derivatives of a loss.
    needs_output_gradient = False

    #: Whether the curvature is known along other steps than the solution alone, as momentum needs it.
    models_other_steps = True

    #: Whether `answer` takes gradients outside of the operator's rows only with λ > 0.
    needs_damping_outside_rows = False

    #: Slots that are the optimizer's to keep where it takes no step, even if the solver guards its state.
    step_slots: tuple[str, ...] = ()

    #: Whether `answer` itself leaves the state as it was where λ, the gradient or the curvature isn't finite. The
    #: optimizer then keeps what it returns whatever becomes of the step: a choice would copy all of the state.
    guards_state = False

    def slots(self, variables: Sequence[tf.Variable]) -> dict[str, tf.Tensor]:
        """The initial values of what the solver remembers, by name: running averages, the solution before.

        The optimizer keeps them as variables of its own, so that they are saved and restored with its other slots, and
        leaves them as they are where it takes no step.

        Args:
          variables: Those of the flat parameter vector [P], in its order.
        """
        del variables
        return {}

    def answer(
        self,
        operator: tf.linalg.LinearOperator,
        gradient: RightHandSide,
        damping: float | tf.Tensor = 0.0,
        state: Mapping[str, tf.Tensor] | None = None,
    ) -> Answer:
        """Solves `(A + λI) x = b` for a gradient, in the space of the parameters unless a subclass knows better.

        Args:
          operator: A, as for a call of the solver.
          gradient: b, as a vector or by what it is made of.
          damping: λ, a float or a scalar tensor.
          state: What the answer before this one returned, at first what `slots` gave.

        Raises:
          TypeError: As for a call of the solver.
          ValueError: As for a call of the solver.
        """
        rhs = gradient.gradient(operator)
        solution, product = self.solve_with_product(operator, rhs, damping)
        return Answer(solution, product, ParameterSystem(operator, rhs), dict(state or {}))

    def __call__(
        self, operator: tf.linalg.LinearOperator, rhs: tf.Tensor, damping: float | tf.Tensor = 0.0
    ) -> Solution:
        """Solves `(A + λI) x = b`.

        Args:
          operator: A, self-adjoint, [P, P], float32 or float64.
          rhs: b [P], of the operator's dtype.
          damping: λ, a float or a scalar tensor.

        Returns:
          A `Solution`. Failing to converge is reported in it, never raised.

        Raises:
          TypeError: `operator` is no LinearOperator, or of another dtype.
          ValueError: Shapes or dtypes do not fit.
        """
        return self.solve_with_product(operator, rhs, damping)[0]

    def solve_with_product(
        self, operator: tf.linalg.LinearOperator, rhs: tf.Tensor, damping: float | tf.Tensor = 0.0
    ) -> tuple[Solution, tf.Tensor]:
        """Like calling the solver; also gives `A x` [P] (without λ), which the residual needed anyway."""
        problem = normalised_problem(operator, rhs, damping)
        value, result, stats = self._solve(problem)
        return checked_solution(problem, value, result, stats)

    @abc.abstractmethod
    def _solve(self, problem: Problem) -> tuple[tf.Tensor, tf.Tensor, Any]:
        """Solves the normalised problem.

        Returns:
          y [P], a `Result` as an int32 scalar, and stats whose `residual` is the tolerance that CONVERGED
          claims; the caller puts the true residual in its place, and reports STAGNATED if that is far off.
        """

    @abc.abstractmethod
    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "Solver":
        """The solver that `get_config` described."""
        return cls(**config)

    def __repr__(self) -> str:
        arguments = ", ".join(f"{name}={value!r}" for name, value in self.get_config().items())
        return f"{type(self).__name__}({arguments})"


def normalised_problem(operator: tf.linalg.LinearOperator, rhs: tf.Tensor, damping: float | tf.Tensor) -> Problem:
    """Checks the arguments and scales the right-hand side to norm 1.

    Squares of a right-hand side of 1e-25 are 0 in float32; those of a unit vector are safe, and every
    tolerance becomes a plain number.
    """
    if not isinstance(operator, tf.linalg.LinearOperator):
        raise TypeError(f"operator must be a tf.linalg.LinearOperator, got {type(operator).__name__}")
    dtype = operator.dtype
    if dtype not in (tf.float32, tf.float64):
        raise TypeError(f"operator must be of dtype float32 or float64, got {dtype.name}")
    rhs = tf.convert_to_tensor(rhs, dtype=dtype)
    if rhs.shape.rank != 1 or operator.shape.rank != 2:
        raise ValueError(
            f"rhs must be a vector [P] for an operator [P, P], got shapes {rhs.shape} and {operator.shape}"
        )
    for dimension in operator.shape:
        if not rhs.shape.is_compatible_with([dimension]):
            raise ValueError(f"rhs of shape {rhs.shape} does not fit an operator of shape {operator.shape}")
    damping = as_scalar(damping, dtype)
    if damping.shape.rank != 0:
        raise ValueError(f"damping must be a scalar, got shape {damping.shape}")
    largest = tf.reduce_max(tf.abs(rhs))
    # Subnormal numbers are flushed to 0 by some kernels and not by others: a rhs made of them is a zero rhs.
    largest = tf.where(largest < np.finfo(dtype.as_numpy_dtype).tiny, tf.zeros_like(largest), largest)
    scaled = tf.math.divide_no_nan(rhs, largest)
    # Its largest entry is 1, so that its squares neither overflow nor vanish.
    norm = tf.norm(scaled)
    return Problem(operator, damping, tf.math.divide_no_nan(scaled, norm), largest * norm)


def checked_solution(problem: Problem, value: tf.Tensor, result: tf.Tensor, stats: Any) -> tuple[Solution, tf.Tensor]:
    """Computes the residual of what a solver found, and scales it back to the caller's right-hand side."""
    product = problem.product(value)
    # r = b̂ - A y - λ y; not finite as soon as anything in b̂, y or A y isn't.
    residual = safe_norm(problem.rhs - product - problem.damping * value)
    largest = tf.reduce_max(tf.abs(value))
    is_zero = tf.equal(problem.rhs_norm, 0)
    is_finite = (
        tf.math.is_finite(residual)
        & tf.math.is_finite(problem.rhs_norm * largest)
        & tf.math.is_finite(problem.rhs_norm)
    )
    # A breakdown may come after the iterates ran away: nothing is better than they are then.
    usable = is_finite & ~is_zero & ~((result == Result.BREAKDOWN) & (residual > 1))
    # Rounding alone leaves residuals of about eps · ||A|| ||y||: only clear failures are called stagnation.
    dtype = value.dtype
    limit = tf.maximum(10 * tf.cast(stats.residual, dtype), tf.constant(math.sqrt(eps(dtype)), dtype))
    result = tf.where((result == Result.CONVERGED) & (residual > limit), int(Result.STAGNATED), result)
    result = tf.where(is_finite, result, int(Result.BREAKDOWN))
    result = tf.where(is_zero, int(Result.CONVERGED), result)
    residual = tf.where(usable, residual, tf.where(is_zero, tf.zeros_like(residual), tf.ones_like(residual)))
    value = tf.where(usable, problem.rhs_norm * value, tf.zeros_like(value))
    product = tf.where(usable, problem.rhs_norm * product, tf.zeros_like(product))
    iterations = tf.where(is_zero, 0, stats.iterations)
    return Solution(value, result, stats._replace(iterations=iterations, residual=residual)), product


def eps(dtype: tf.DType) -> float:
    """The unit roundoff of a dtype as NumPy defines it: 2⁻⁵² for float64, 2⁻²³ for float32."""
    return float(np.finfo(dtype.as_numpy_dtype).eps)


def as_scalar(value: float | tf.Tensor, dtype: tf.DType) -> tf.Tensor:
    """A float or a tensor of any dtype as a tensor of this one."""
    if isinstance(value, (tf.Tensor, tf.Variable)):
        return tf.cast(value, dtype)
    # Straight to the dtype: a detour by float32 would cost 0.1 half its digits.
    return tf.convert_to_tensor(value, dtype=dtype)


def flat_zeros(variables: Sequence[tf.Variable]) -> tf.Tensor:
    """Zeros [P], one for each number of the variables: the initial value of a slot that holds a solution."""
    return tf.zeros([sum(variable.shape.num_elements() for variable in variables)], variables[0].dtype)


def damped(matrix: tf.Tensor, damping: tf.Tensor) -> tf.Tensor:
    """`A + λI` for a dense matrix A [n, n]."""
    return tf.linalg.set_diag(matrix, tf.linalg.diag_part(matrix) + damping)


def dot(x: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
    """`xᵀy`, two vectors [P] to a scalar."""
    return tf.tensordot(x, y, 1)


def safe_norm(x: tf.Tensor) -> tf.Tensor:
    """`||x||` without the overflow and underflow of squares; NaN or infinite if an entry of x is."""
    largest = tf.reduce_max(tf.abs(x))
    return largest * tf.norm(tf.math.divide_no_nan(x, largest))


def effective_rtol(rtol: float, dtype: tf.DType) -> float:
    """`rtol`, but no smaller than the dtype can tell: 4 eps."""
    return max(rtol, 4 * eps(dtype))
