import numpy as np
import pytest
import scipy.sparse.linalg
from hypothesis import given, settings
from hypothesis import strategies as st
from linear_systems import (
    DTYPES,
    minimum_length,
    relative_error,
    relative_residual,
    solve,
    symmetric,
    vector,
)

from ngrl import solvers
from ngrl.solvers import Result

SEEDS = st.integers(0, 10**6)
PROPERTY = settings(max_examples=25, deadline=None, derandomize=True)
SOLVER = solvers.Minres(max_iterations=200)


@st.composite
def spectra(draw, size, decades, zeros=0):
    """Eigenvalues of either sign that span at most so many decades, some of them 0."""
    powers = draw(st.lists(st.floats(-decades, 0.0), min_size=size, max_size=size))
    signs = draw(st.lists(st.sampled_from([-1.0, 1.0]), min_size=size, max_size=size))
    eigenvalues = np.array(signs) * 10.0 ** np.array(powers)
    eigenvalues[:zeros] = 0.0
    return eigenvalues


@PROPERTY
@given(spectra(12, 2), SEEDS, st.sampled_from(DTYPES))
def test_indefinite_systems_are_solved_as_a_dense_solve_does(eigenvalues, seed, dtype):
    matrix, rhs = symmetric(eigenvalues, seed), vector(seed, 12)
    answer = solve(SOLVER, matrix, rhs, dtype=dtype)
    reference = np.linalg.solve(matrix, rhs)
    assert answer.result == Result.CONVERGED
    condition = np.abs(eigenvalues).max() / np.abs(eigenvalues).min()
    assert relative_error(answer.value, reference) <= condition * (1e-6 + 100 * np.finfo(dtype).eps)


@PROPERTY
@given(spectra(12, 1), SEEDS, st.integers(1, 10))
def test_each_residual_is_that_of_scipy(eigenvalues, seed, iterations):
    matrix, rhs = symmetric(eigenvalues, seed), vector(seed, 12)
    answer = solve(solvers.Minres(rtol=1e-12, max_iterations=iterations), matrix, rhs)
    reference, _ = scipy.sparse.linalg.minres(matrix, rhs, rtol=1e-14, maxiter=iterations)
    assert answer.residual == pytest.approx(relative_residual(matrix, reference, rhs), rel=1e-5, abs=1e-10)


@PROPERTY
@given(spectra(10, 1, zeros=3), SEEDS, st.sampled_from(DTYPES))
def test_singular_consistent_systems_are_solved_with_the_shortest_solution(eigenvalues, seed, dtype):
    matrix = symmetric(eigenvalues, seed)
    rhs = matrix @ vector(seed, 10)
    answer = solve(SOLVER, matrix, rhs, dtype=dtype)
    assert answer.result == Result.CONVERGED
    assert relative_error(answer.value, minimum_length(matrix, rhs)) < (1e-2 if dtype == np.float32 else 1e-4)


@PROPERTY
@given(spectra(10, 1, zeros=3), SEEDS, st.sampled_from(DTYPES))
def test_inconsistent_systems_end_at_the_smallest_residual_with_a_moderate_value(eigenvalues, seed, dtype):
    matrix, rhs = symmetric(eigenvalues, seed), vector(seed, 10)
    answer = solve(SOLVER, matrix, rhs, dtype=dtype)
    reference = minimum_length(matrix, rhs)
    assert answer.result == Result.LEAST_SQUARES
    best = relative_residual(matrix, reference, rhs)
    assert relative_residual(matrix, answer.value, rhs) == pytest.approx(best, rel=1e-4)
    assert np.linalg.norm(answer.value) < 1e4 * np.linalg.norm(reference)


def test_the_residual_never_grows():
    matrix, rhs = symmetric(np.linspace(-3.0, 4.0, 20)), vector(0, 20)
    residuals = [
        solve(solvers.Minres(rtol=0.0, max_iterations=limit), matrix, rhs, mode="eager").residual
        for limit in range(1, 21)
    ]
    assert np.all(np.diff(residuals) <= 1e-14)
    assert residuals[-1] < 1e-9


def test_what_scipy_calls_solved_is_called_least_squares_and_stays_small():
    matrix, rhs = np.diag([1.0, 2.0, 3.0, 0.0]), np.ones(4)
    answer = solve(solvers.Minres(), matrix, rhs)
    assert answer.result == Result.LEAST_SQUARES
    np.testing.assert_allclose(answer.value[:3], [1.0, 1 / 2, 1 / 3], rtol=1e-10)
    assert abs(answer.value[3]) < 10.0
