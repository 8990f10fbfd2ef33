import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st
from linear_systems import DTYPES, MODES, relative_error, solve, symmetric, vector
from test_conjugate_gradient import PROPERTY, SEEDS, positive_eigenvalues

from ngrl import solvers
from ngrl.solvers import Result


@PROPERTY
@given(positive_eigenvalues(9, 3), SEEDS, st.sampled_from(DTYPES))
def test_definite_systems_are_solved_to_the_accuracy_of_the_dtype(eigenvalues, seed, dtype):
    matrix, rhs = symmetric(eigenvalues, seed), vector(seed, 9)
    answer = solve(solvers.Cholesky(), matrix, rhs, dtype=dtype)
    condition = eigenvalues.max() / eigenvalues.min()
    assert (answer.result, answer.iterations) == (Result.CONVERGED, 1)
    error = relative_error(answer.value, np.linalg.solve(matrix, rhs))
    assert error < 50 * condition * np.finfo(dtype).eps


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "matrix",
    [np.diag([1.0, 0.0]), np.diag([1.0, -1.0]), None],
    ids=["singular", "indefinite", "singular up to rounding"],
)
def test_a_failing_factorisation_is_a_breakdown_with_the_value_zero(matrix, dtype, mode):
    if matrix is None:
        matrix = np.array([[1.0, 1.0], [1.0, 1.0 + 4 * np.finfo(dtype).eps]])
    answer = solve(solvers.Cholesky(), matrix, np.array([1.0, 2.0]), dtype=dtype, mode=mode)
    assert answer.result == Result.BREAKDOWN
    assert not answer.value.any()


def test_scales_of_the_variables_do_not_matter():
    scales = np.diag(10.0 ** np.arange(-8.0, 9.0, 2.0))
    matrix = symmetric(np.linspace(1.0, 2.0, 9))
    answer = solve(solvers.Cholesky(), scales @ matrix @ scales, scales @ np.ones(9))
    assert answer.result == Result.CONVERGED
    np.testing.assert_allclose(scales @ answer.value, np.linalg.solve(matrix, np.ones(9)), rtol=1e-9)


def test_damping_makes_a_singular_matrix_definite():
    answer = solve(solvers.Cholesky(), np.diag([1.0, 0.0]), np.ones(2), damping=0.5)
    assert answer.result == Result.CONVERGED
    np.testing.assert_allclose(answer.value, [1 / 1.5, 2.0], rtol=1e-14)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", [1, 31, 32, 33, 257])  # less than a block, whole blocks, an incomplete one
@pytest.mark.parametrize("digits", [0, 3, 5])
def test_xla_solves_as_accurately_as_lapack(size, digits, dtype):
    eigenvalues = np.logspace(0, -digits, size)
    matrix = symmetric(eigenvalues, size).astype(dtype).astype(float)
    rhs = vector(size, size).astype(dtype).astype(float)
    answers = [solve(solvers.Cholesky(), matrix, rhs, dtype=dtype, mode=mode) for mode in ("xla", "graph")]
    for answer in answers:
        assert answer.result in (Result.CONVERGED, Result.STAGNATED)
        value = answer.value.astype(float)
        scale = np.linalg.norm(matrix, 2) * np.linalg.norm(value) + np.linalg.norm(rhs)
        assert np.linalg.norm(rhs - matrix @ value) < 2 * np.finfo(dtype).eps * scale
        error = relative_error(value, np.linalg.solve(matrix, rhs))
        assert error < 10 * 10**digits * np.finfo(dtype).eps


def _operations(function):
    graph = function.get_concrete_function(tf.TensorSpec([70, 70]), tf.TensorSpec([70])).graph.as_graph_def()
    nodes = [*graph.node, *(node for inner in graph.library.function for node in inner.node_def)]
    return {node.op for node in nodes}


def test_only_xla_is_spared_lapacks_operation():
    def solution(matrix, rhs):
        return solvers.Cholesky()(tf.linalg.LinearOperatorFullMatrix(matrix, is_self_adjoint=True), rhs).value

    def in_a_loop(matrix, rhs):
        return tf.while_loop(lambda i, x: i < 2, lambda i, x: (i + 1, solution(matrix, x)), (0, rhs))[1]

    def in_a_function(matrix, rhs):
        return tf.function(solution)(matrix, rhs)

    for function in (solution, in_a_loop, in_a_function):
        assert "Cholesky" in _operations(tf.function(function))
        assert "Cholesky" not in _operations(tf.function(function, jit_compile=True))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("place", [0, 31, 32, 69])
@pytest.mark.parametrize("entry", [-1.0, 0.0, np.nan])
def test_a_bad_pivot_in_any_block_is_a_breakdown(entry, place, dtype, mode):
    diagonal = np.linspace(1.0, 2.0, 70)
    diagonal[place] = entry
    answer = solve(solvers.Cholesky(), np.diag(diagonal), np.ones(70), dtype=dtype, mode=mode)
    assert answer.result == Result.BREAKDOWN
    assert not answer.value.any()
