import numpy as np
import pytest
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
