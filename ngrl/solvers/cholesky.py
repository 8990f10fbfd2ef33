"""Solving directly, by a Cholesky factorisation of the dense matrix."""

from typing import Any

import tensorflow as tf

from ngrl.configurable import configurable
from ngrl.solvers import blocked_cholesky
from ngrl.solvers.solution import Problem, Result, Solver, SolverStats, damped, effective_rtol, eps
from ngrl.xla import is_traced_for_xla


@configurable
@tf.keras.utils.register_keras_serializable(package="ngrl")
class Cholesky(Solver):
    """`A + λI = L Lᵀ` from `operator.to_dense()`: O(P³) operations and P² numbers, for small P or a dual.

    A matrix that is not positive definite, to the dtype's accuracy, ends with BREAKDOWN and the value 0: a
    pivot of at most 10 eps times its diagonal entry is rounding, not information. `stats.iterations` is 1.

    Eagerly and in graphs LAPACK factorises; under XLA, in blocks, products that are about as fast.
    """

    def get_config(self) -> dict[str, Any]:
        """No arguments."""
        return {}

    def _solve(self, problem: Problem) -> tuple[tf.Tensor, tf.Tensor, SolverStats]:
        dtype = problem.rhs.dtype
        matrix = damped(tf.convert_to_tensor(problem.operator.to_dense()), problem.damping)
        solve = _lapack
        if matrix.shape.is_fully_defined() and is_traced_for_xla():
            solve = blocked_cholesky.solve
        value, pivots = solve(matrix, problem.rhs)
        is_definite = tf.reduce_all(pivots > 10 * eps(dtype) * tf.linalg.diag_part(matrix))
        value = tf.where(is_definite, value, tf.zeros_like(value))
        result = tf.where(is_definite, int(Result.CONVERGED), int(Result.BREAKDOWN))
        return value, result, SolverStats(tf.constant(1), tf.constant(effective_rtol(0.0, dtype), dtype))


def _lapack(matrix: tf.Tensor, rhs: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """The solution [n] and the pivots [n], NaN where it fails: `tf.linalg.cholesky` raises nothing."""
    factor = tf.linalg.cholesky(matrix)
    return tf.linalg.cholesky_solve(factor, rhs[:, tf.newaxis])[:, 0], tf.square(tf.linalg.diag_part(factor))
