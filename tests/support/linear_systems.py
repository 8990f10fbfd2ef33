"""Systems with known solutions, and one way to run a solver on them."""

import functools
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from ngrl import solvers

DTYPES = (np.float32, np.float64)
MODES = ("eager", "graph", "xla")


class Answer(NamedTuple):
    """A `Solution`, in NumPy."""

    value: np.ndarray
    result: solvers.Result
    iterations: int
    residual: float
    stats: Any


@functools.cache
def _compiled(description: str, solver: solvers.Solver, dtype: Any, mode: str) -> Any:
    del description  # the key: solvers with equal arguments share a trace

    def solve(matrix: tf.Tensor, rhs: tf.Tensor, damping: tf.Tensor) -> solvers.Solution:
        return solver(tf.linalg.LinearOperatorFullMatrix(matrix, is_self_adjoint=True), rhs, damping)

    if mode == "eager":
        return solve
    if mode == "xla":  # compiles anew for every shape
        return tf.function(solve, jit_compile=True)
    shapes = [tf.TensorSpec([None] * rank, dtype) for rank in (2, 1, 0)]
    return tf.function(solve, input_signature=shapes)


_SOLVERS: dict[str, solvers.Solver] = {}


def solve(
    solver: solvers.Solver,
    matrix: np.ndarray,
    rhs: np.ndarray,
    damping: float = 0.0,
    dtype: Any = np.float64,
    mode: str = "graph",
) -> Answer:
    """Runs a solver on a dense matrix, traced once per solver, dtype and mode."""
    shared = _SOLVERS.setdefault(repr(solver), solver)
    run = _compiled(repr(solver), shared, dtype, mode)
    arguments = [tf.constant(np.asarray(argument), dtype) for argument in (matrix, rhs, damping)]
    solution = run(*arguments)
    assert solution.value.dtype == dtype
    assert solution.value.shape == np.shape(rhs)
    assert solution.result.dtype == tf.int32
    assert solution.stats.iterations.dtype == tf.int32
    assert solution.stats.residual.dtype == dtype
    return Answer(
        solution.value.numpy(),
        solvers.Result(int(solution.result)),
        int(solution.stats.iterations),
        float(solution.stats.residual),
        solution.stats,
    )


def orthogonal(seed: int, size: int) -> np.ndarray:
    """A random orthogonal matrix."""
    return np.linalg.qr(np.random.default_rng(seed).normal(size=(size, size)))[0]


def symmetric(eigenvalues: Any, seed: int = 0) -> np.ndarray:
    """A dense symmetric matrix with the given eigenvalues."""
    basis = orthogonal(seed, len(eigenvalues))
    matrix = (basis * np.asarray(eigenvalues, float)) @ basis.T
    return (matrix + matrix.T) / 2


def vector(seed: int, size: int) -> np.ndarray:
    """A random vector."""
    return np.random.default_rng(seed + 1000).normal(size=size)


def minimum_length(matrix: np.ndarray, rhs: np.ndarray, rcond: float = 1e-11) -> np.ndarray:
    """The shortest least-squares solution, by the pseudo-inverse in float64."""
    return np.linalg.pinv(matrix, rcond=rcond, hermitian=True) @ rhs


def relative_error(value: np.ndarray, reference: np.ndarray) -> float:
    """`||x - x*|| / ||x*||`."""
    return float(np.linalg.norm(value - reference) / np.linalg.norm(reference))


def relative_residual(matrix: np.ndarray, value: np.ndarray, rhs: np.ndarray) -> float:
    """`||b - A x|| / ||b||`, in float64."""
    return float(np.linalg.norm(rhs - matrix @ value.astype(float)) / np.linalg.norm(rhs))
