"""Solving in output space: n rows instead of P parameters."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import tensorflow as tf

from ngrl.checks import check_number
from ngrl.configurable import configurable
from ngrl.solvers.conjugate_gradient import ConjugateGradient
from ngrl.solvers.solution import Answer, Problem, Result, Solution, Solver, flat_zeros
from ngrl.solvers.system import ParameterSystem, RightHandSide, RowSystem


class DualSolution(NamedTuple):
    """The answer of `Dual.solve_rows`.

    Attributes:
      value: x = Aᵀz [P].
      dual: z [n], the solution of (AAᵀ + λI) z = c.
      gram: AAᵀ [n, n].
      gram_dual: (AAᵀ) z = A x [n]; for a Gauss-Newton operator the change of the scaled outputs along x.
      result: A `Result` of the inner solver, as an int32 scalar.
      stats: The inner solver's stats; the residual is that of the dual system.
    """

    value: tf.Tensor
    dual: tf.Tensor
    gram: tf.Tensor
    gram_dual: tf.Tensor
    result: tf.Tensor
    stats: Any


@configurable
@tf.keras.utils.register_keras_serializable(package="ngrl")
class Dual(Solver):
    """Solves `(AᵀA + λI) x = b` through the Gram matrix AAᵀ [n, n] of the operator's rows A [n, P].

    The operator must offer `gram()`, `row_matvec(v)` = A v and `row_rmatvec(z)` = Aᵀ z, as the operators of
    `ngrl.curvature` do.

    With `momentum` μ the solution v of an optimizer's step before is remembered, and what the rows leave undetermined
    stays with μv: `x = μv + Aᵀ(AAᵀ + λI)⁻¹(c − μ A v)`, the minimum of ‖A x − c‖² + λ‖x − μv‖².

    Source: the Woodbury identity; Ren & Goldfarb 2019 (arXiv:1906.02353), section 3. Momentum: SPRING, Goldshlager,
    Abrahamsen & Lin 2024 (arXiv:2401.10190), section 3.
    """

    solves_matrices = False

    needs_damping_outside_rows = True

    def __init__(self, *, solver: Solver | None = None, momentum: float = 0.0) -> None:
        """Configures the solver.

        Args:
          solver: Solves the n-by-n system; `ConjugateGradient()` if None.
          momentum: μ in [0, 1), how much of the solution before is kept where the rows don't say otherwise.

        Raises:
          ValueError: `solver` is no `Solver` of matrices, or has a setting that is for parameters alone, or μ is out of
            its range.
        """
        if solver is None:
            solver = ConjugateGradient()
        check_row_solver("Dual", solver)
        self.solver = solver
        self.momentum = check_number("momentum", momentum, "[0, 1)")

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments, the inner solver serialised."""
        return {"solver": tf.keras.utils.serialize_keras_object(self.solver), "momentum": self.momentum}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "Dual":
        """The solver that `get_config` described."""
        solver = config["solver"]
        if isinstance(solver, dict):
            solver = tf.keras.utils.deserialize_keras_object(solver)
        return cls(**{**config, "solver": solver})

    def __repr__(self) -> str:
        momentum = f", momentum={self.momentum!r}" if self.momentum else ""
        return f"Dual(solver={self.solver!r}{momentum})"

    def slots(self, variables: Sequence[tf.Variable]) -> dict[str, tf.Tensor]:
        """With momentum the solution before, v [P]; see `Solver.slots`."""
        return {"solution": flat_zeros(variables)} if self.momentum else {}

    def answer(
        self,
        operator: tf.linalg.LinearOperator,
        gradient: RightHandSide,
        damping: float | tf.Tensor = 0.0,
        state: Mapping[str, tf.Tensor] | None = None,
    ) -> Answer:
        """In the space of the rows where b lies in it, else by Woodbury's full form; see `Solver.answer`."""
        coefficients = gradient.coefficients(operator)
        kept = self.momentum * state["solution"] if self.momentum and state else None  # μv
        if coefficients is None:
            answer = self._answer_outside(operator, gradient.gradient(operator), damping, kept)
        else:
            answer = self._answer_in_rows(operator, coefficients, damping, kept)
        return answer._replace(state={"solution": answer.solution.value} if self.momentum else dict(state or {}))

    def _answer_in_rows(
        self,
        operator: tf.linalg.LinearOperator,
        coefficients: tf.Tensor,
        damping: float | tf.Tensor,
        kept: tf.Tensor | None,
    ) -> Answer:
        """`x = μv + Aᵀ(AAᵀ + λI)⁻¹(c − μ A v)`, whose image is A x; without μv where it is None."""
        image = None if kept is None else operator.row_matvec(kept)
        rows = self.solve_rows(operator, coefficients if image is None else coefficients - image, damping)
        system = RowSystem(operator, coefficients, rows.gram)
        if kept is None:
            return Answer(Solution(rows.value, rows.result, rows.stats), rows.gram_dual, system, {})
        return Answer(Solution(kept + rows.value, rows.result, rows.stats), image + rows.gram_dual, system, {})

    def _answer_outside(
        self, operator: tf.linalg.LinearOperator, rhs: tf.Tensor, damping: float | tf.Tensor, kept: tf.Tensor | None
    ) -> Answer:
        """`(AᵀA + λI) x = b + λμv`, which is the same for a b that needn't lie in the row space."""
        shifted = rhs if kept is None else rhs + damping * kept
        solution, product = self.solve_with_product(operator, shifted, damping)
        return Answer(solution, product, ParameterSystem(operator, rhs), {})

    def solve_rows(
        self,
        operator: tf.linalg.LinearOperator,
        coefficients: tf.Tensor,
        damping: float | tf.Tensor = 0.0,
    ) -> DualSolution:
        """Solves `(AᵀA + λI) x = Aᵀc`, for a right-hand side in the row space.

        `x = Aᵀz` with `(AAᵀ + λI) z = c`; multiply the second equation by Aᵀ to see it. Nothing of size P is
        touched but the final product, and λ = 0 is allowed.

        Args:
          operator: With rows A [n, P].
          coefficients: c [n].
          damping: λ, a float or a scalar tensor.

        Raises:
          TypeError: The operator has no rows.
        """
        gram = _gram_operator(operator)
        solution, gram_dual = self.solver.solve_with_product(gram, coefficients, damping)
        value = operator.row_rmatvec(solution.value)
        # NaN in a row reaches x even when z = 0.
        is_finite = tf.reduce_all(tf.math.is_finite(value))
        value = tf.where(is_finite, value, tf.zeros_like(value))
        result = tf.where(is_finite, solution.result, int(Result.BREAKDOWN))
        return DualSolution(value, solution.value, gram.to_dense(), gram_dual, result, solution.stats)

    def _solve(self, problem: Problem) -> tuple[tf.Tensor, tf.Tensor, Any]:
        """`x = (b - Aᵀ (AAᵀ + λI)⁻¹ A b) / λ`.

        The subtraction cancels, which costs about log10(||A||² / λ) digits: `solve_rows` doesn't.
        """
        gram = _gram_operator(problem.operator)
        rows = problem.operator.row_matvec(problem.rhs)
        solution = self.solver(gram, rows, problem.damping)
        is_positive = problem.damping > 0
        projected = problem.rhs - problem.operator.row_rmatvec(solution.value)
        value = tf.where(is_positive, projected / problem.damping, tf.zeros_like(projected))
        result = tf.where(is_positive, solution.result, int(Result.BREAKDOWN))
        return value, result, solution.stats


def check_row_solver(owner: str, solver: Solver) -> None:
    """Check that a solver can solve for coefficients of rows, and has no setting that is for parameters alone.

    Raises:
      ValueError: It can't, or has one, which it would ignore.
    """
    if not isinstance(solver, Solver):
        raise ValueError(f"solver must be a Solver, got {solver!r}")
    if not solver.solves_matrices:
        raise ValueError(
            f"solver must be one that solves with a matrix, and {owner}'s is {type(solver).__name__}: take "
            "ConjugateGradient, Minres, MinresQLP or Cholesky"
        )
    if getattr(solver, "preconditioner", None) is not None:
        raise ValueError(f"{owner}'s solver works on rows, where K-FAC can't precondition: take it without {owner}")
    if getattr(solver, "warm_start", False):
        raise ValueError(f"{owner}'s solver works on rows, others in each step: take warm_start without {owner}")


def _gram_operator(operator: tf.linalg.LinearOperator) -> tf.linalg.LinearOperator:
    """The Gram matrix AAᵀ as an operator [n, n].

    Raises:
      TypeError: The operator lacks one of the three methods.
    """
    missing = [name for name in ("gram", "row_matvec", "row_rmatvec") if not hasattr(operator, name)]
    if missing:
        raise TypeError(
            f"Dual needs an operator with rows; {type(operator).__name__} has no {', '.join(missing)}: "
            "use a solver such as ConjugateGradient directly"
        )
    return tf.linalg.LinearOperatorFullMatrix(operator.gram(), is_self_adjoint=True, is_square=True)
