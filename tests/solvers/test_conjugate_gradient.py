import numpy as np
import pytest
import scipy.sparse.linalg
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from linear_systems import DTYPES, relative_error, relative_residual, solve, symmetric, vector

from ngrl import solvers
from ngrl.solvers import Result

SEEDS = st.integers(0, 10**6)
PROPERTY = settings(max_examples=25, deadline=None, derandomize=True)


def positive_eigenvalues(size, decades):
    """Lists of positive numbers that span at most so many decades."""
    return st.lists(st.floats(-decades, 0.0), min_size=size, max_size=size).map(lambda x: 10.0 ** np.array(x))


@PROPERTY
@given(positive_eigenvalues(12, 3), SEEDS, st.sampled_from(DTYPES))
def test_definite_systems_are_solved_as_a_dense_solve_does(eigenvalues, seed, dtype):
    matrix, rhs = symmetric(eigenvalues, seed), vector(seed, 12)
    answer = solve(solvers.ConjugateGradient(), matrix, rhs, dtype=dtype)
    reference = np.linalg.solve(matrix, rhs)
    assert answer.result == Result.CONVERGED
    # ||x - x*|| / ||x*|| <= cond(A) ||r|| / ||b||
    condition = eigenvalues.max() / eigenvalues.min()
    assert relative_error(answer.value, reference) <= condition * (1e-6 + 20 * np.finfo(dtype).eps)


@PROPERTY
@given(positive_eigenvalues(12, 1), SEEDS, st.integers(1, 11))
def test_each_iterate_is_that_of_scipy(eigenvalues, seed, iterations):
    matrix, rhs = symmetric(eigenvalues, seed), vector(seed, 12)
    solver = solvers.ConjugateGradient(rtol=1e-13, max_iterations=iterations)
    answer = solve(solver, matrix, rhs)
    reference, _ = scipy.sparse.linalg.cg(matrix, rhs, rtol=1e-13, maxiter=iterations)
    assert relative_error(answer.value, reference) < 1e-6


@PROPERTY
@given(positive_eigenvalues(6, 2), SEEDS, st.integers(-18, 18), st.integers(-18, 18))
def test_scales_of_operator_and_right_hand_side_do_not_matter(eigenvalues, seed, power, rhs_power):
    matrix, rhs = symmetric(eigenvalues, seed), vector(seed, 6)
    answer = solve(solvers.ConjugateGradient(), 10.0**power * matrix, 10.0**rhs_power * rhs, dtype=np.float32)
    assert answer.result == Result.CONVERGED
    value = answer.value.astype(float) * 10.0 ** (power - rhs_power)
    assert relative_error(value, np.linalg.solve(matrix, rhs)) < 1e-3


@PROPERTY
@given(
    st.lists(
        st.one_of(st.floats(-1e30, 1e30), st.sampled_from([0.0, np.nan, np.inf, -np.inf])),
        min_size=12,
        max_size=12,
    ),
    st.sampled_from(["cg", "minres", "qlp", "cholesky"]),
    st.sampled_from(DTYPES),
)
def test_whatever_the_numbers_are_the_value_is_finite_and_success_is_true(numbers, name, dtype):
    solver = {
        "cg": solvers.ConjugateGradient(),
        "minres": solvers.Minres(),
        "qlp": solvers.MinresQLP(),
        "cholesky": solvers.Cholesky(),
    }[name]
    with np.errstate(all="ignore"):
        matrix = np.array(numbers[:9]).reshape(3, 3).astype(dtype)
        matrix = np.tril(matrix) + np.tril(matrix, -1).T
    rhs = np.array(numbers[9:]).astype(dtype)
    answer = solve(solver, matrix, rhs, dtype=dtype)
    assert np.all(np.isfinite(answer.value))
    assert np.isfinite(answer.residual)
    is_finite = np.all(np.isfinite(matrix)) and np.all(np.isfinite(rhs))
    is_zero = np.all(np.abs(rhs) < np.finfo(dtype).tiny)  # False for NaN; subnormal numbers count as 0
    if not is_zero and not is_finite:
        assert answer.result == Result.BREAKDOWN
    if answer.result == Result.CONVERGED and not is_zero:
        assert answer.residual < 1e-3


@pytest.mark.parametrize("mode", ["graph", "xla"])
def test_negative_curvature_ends_the_iteration_before_it_is_divided_by(mode):
    # From (1, 1, 1), the second direction of diag(4, 2, -1) has negative curvature.
    answer = solve(solvers.ConjugateGradient(), np.diag([4.0, 2.0, -1.0]), np.ones(3), mode=mode)
    first = solve(solvers.ConjugateGradient(max_iterations=1), np.diag([4.0, 2.0, -1.0]), np.ones(3))
    assert (answer.result, answer.iterations) == (Result.BREAKDOWN, 2)
    expected = first.value if first.residual <= 1 else np.zeros(3)
    np.testing.assert_allclose(answer.value, expected, rtol=1e-12)


def test_an_inconsistent_semidefinite_system_does_not_run_away():
    matrix = symmetric(np.concatenate([np.zeros(10), np.linspace(0.1, 10, 30)]))
    rhs = vector(0, 40)
    answer = solve(solvers.ConjugateGradient(max_iterations=1000), matrix, rhs)
    assert answer.result == Result.BREAKDOWN
    assert relative_residual(matrix, answer.value, rhs) <= 1.0


def test_a_system_beyond_the_dtype_is_not_called_solved():
    matrix = symmetric(10.0 ** np.linspace(-9, 0, 12))
    answer = solve(solvers.ConjugateGradient(max_iterations=1000), matrix, vector(0, 12), dtype=np.float32)
    assert answer.result in (Result.STAGNATED, Result.BREAKDOWN, Result.MAX_ITERATIONS)
    assert answer.residual > 1e-4


def test_one_product_is_made_an_iteration_and_one_for_the_residual():
    count = tf.Variable(0)

    class Counting(tf.linalg.LinearOperatorFullMatrix):
        def _matmul(self, x, adjoint=False, adjoint_arg=False):
            count.assign_add(1)
            return super()._matmul(x, adjoint, adjoint_arg)

    operator = Counting(np.diag([1.0, 2.0, 3.0, 4.0]))
    solution = solvers.ConjugateGradient(rtol=1e-12)(operator, np.ones(4))
    assert int(solution.stats.iterations) == 4
    assert int(count) == 5
