"""Solving in output space, each layer by itself."""

from collections.abc import Mapping, Sequence
from typing import Any

import tensorflow as tf

from ngrl.configurable import configurable
from ngrl.solvers.cholesky import Cholesky
from ngrl.solvers.dual import check_row_solver
from ngrl.solvers.solution import Answer, Problem, Result, Solution, Solver, SolverStats, as_scalar
from ngrl.solvers.system import RightHandSide, RowProducts, RowSystem, System


@configurable
@tf.keras.utils.register_keras_serializable(package="ngrl")
class BlockDual(Solver):
    """Solves `(F̂ + λI) x = b` with F̂ = blockdiag(A_lᵀ A_l), by the Gram matrix A_l A_lᵀ [n, n] of each layer's rows.

    What two layers have to do with each other is left out, as K-FAC leaves it out; a layer's own block is exact, as
    K-FAC's is not. With λ = 0 it breaks down where a layer has fewer parameters than there are rows. The operator must
    offer `row_blocks()`, as `ngrl.curvature.GaussNewton` does. `stats.residual` is NaN: the residual of the true system
    would cost as much as the solve.

    Source: Ren & Goldfarb 2019 (arXiv:1906.02353), section 3, for each block of Martens & Grosse 2015, section 4.
    """

    solves_matrices = False

    needs_damping_outside_rows = True

    def __init__(self, *, solver: Solver | None = None) -> None:
        """Configures the solver.

        Args:
          solver: Solves each layer's n-by-n system; `Cholesky()` if None.

        Raises:
          ValueError: `solver` is no `Solver` of matrices, or has a setting that is for parameters alone.
        """
        solver = Cholesky() if solver is None else solver
        check_row_solver("BlockDual", solver)
        self.solver = solver

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments, the inner solver serialised."""
        return {"solver": tf.keras.utils.serialize_keras_object(self.solver)}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "BlockDual":
        """The solver that `get_config` described."""
        return cls(solver=tf.keras.utils.deserialize_keras_object(config["solver"]))

    def answer(
        self,
        operator: tf.linalg.LinearOperator,
        gradient: RightHandSide,
        damping: float | tf.Tensor = 0.0,
        state: Mapping[str, tf.Tensor] | None = None,
    ) -> Answer:
        """For b = Aᵀc the layers' A_lᵀ (A_l A_lᵀ + λI)⁻¹ c, else each layer's Woodbury identity; see `Solver.answer`.

        Raises:
          TypeError: The operator has no rows that can be taken apart.
        """
        coefficients = gradient.coefficients(operator)
        system: System
        if coefficients is None:
            rhs = gradient.gradient(operator)
            value, result, iterations = self._outside(operator, rhs, damping)
            system = RowProducts(operator, rhs)
        else:
            blocks = _blocks_of(operator)
            grams = blocks.grams()
            solutions = self._solve_each(grams, [coefficients] * len(grams), damping)
            value, result, iterations = _joined(blocks.rmatvec([solution.value for solution in solutions]), solutions)
            system = RowSystem(operator, coefficients, tf.add_n(grams))
        stats = SolverStats(iterations, tf.constant(float("nan"), value.dtype))
        return Answer(Solution(value, result, stats), operator.row_matvec(value), system, dict(state or {}))

    def _solve(self, problem: Problem) -> tuple[tf.Tensor, tf.Tensor, SolverStats]:
        """The tolerance that is claimed is none: the system solved is another."""
        value, result, iterations = self._outside(problem.operator, problem.rhs, problem.damping)
        return value, result, SolverStats(iterations, tf.constant(float("inf"), value.dtype))

    def _outside(
        self, operator: tf.linalg.LinearOperator, rhs: tf.Tensor, damping: float | tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """`x_l = (b_l - A_lᵀ (A_l A_lᵀ + λI)⁻¹ A_l b_l) / λ`; BREAKDOWN where λ isn't positive."""
        blocks = _blocks_of(operator)
        solutions = self._solve_each(blocks.grams(), blocks.matvecs(rhs), damping)
        damping = as_scalar(damping, rhs.dtype)
        remaining = rhs - blocks.rmatvec([solution.value for solution in solutions])
        value = tf.where(damping > 0, remaining / damping, tf.zeros_like(rhs))
        value, result, iterations = _joined(value, solutions)
        return value, tf.where(damping > 0, result, int(Result.BREAKDOWN)), iterations

    def _solve_each(
        self, grams: Sequence[tf.Tensor], coefficients: Sequence[tf.Tensor], damping: float | tf.Tensor
    ) -> list[Solution]:
        operators = (tf.linalg.LinearOperatorFullMatrix(g, is_self_adjoint=True, is_square=True) for g in grams)
        return [self.solver(operator, c, damping) for operator, c in zip(operators, coefficients, strict=True)]


def _joined(value: tf.Tensor, solutions: Sequence[Solution]) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """`value`, or 0 where a layer broke down; the worst of the layers' results, and the most iterations."""
    failed = ~tf.reduce_all(tf.math.is_finite(value))
    first = tf.constant(int(Result.CONVERGED))  # the first that isn't, if there is any
    for solution in reversed(solutions):
        failed |= tf.equal(solution.result, int(Result.BREAKDOWN))
        # An index into the results, found by argmin, would take XLA minutes to compile.
        first = tf.where(tf.equal(solution.result, int(Result.CONVERGED)), first, solution.result)
    result = tf.where(failed, int(Result.BREAKDOWN), first)
    iterations = tf.reduce_max(tf.stack([solution.stats.iterations for solution in solutions]))
    return tf.where(failed, tf.zeros_like(value), value), result, iterations


def _blocks_of(operator: tf.linalg.LinearOperator) -> Any:
    if not hasattr(operator, "row_blocks"):
        raise TypeError(f"BlockDual needs an operator with row_blocks(); {type(operator).__name__} has none")
    return operator.row_blocks()
