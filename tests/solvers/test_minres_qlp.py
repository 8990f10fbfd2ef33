import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from linear_systems import (
    DTYPES,
    MODES,
    minimum_length,
    orthogonal,
    relative_error,
    relative_residual,
    solve,
    symmetric,
    vector,
)
from test_minres import PROPERTY, SEEDS, spectra

from ngrl import solvers
from ngrl.solvers import Result

MINRES_ONLY = solvers.MinresQLP(rtol=1e-12, max_iterations=400, transition_condition=1e300)
BOTH = solvers.MinresQLP(rtol=1e-12, max_iterations=400, transition_condition=10.0)
QLP_ONLY = solvers.MinresQLP(rtol=1e-12, max_iterations=400, transition_condition=1.0)
DEFAULT = solvers.MinresQLP(max_iterations=200)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("transition_condition", [None, 1.0])
def test_the_shortest_least_squares_solution_of_diag_1_2_3_0(mode, transition_condition):
    solver = solvers.MinresQLP(transition_condition=transition_condition)
    answer = solve(solver, np.diag([1.0, 2.0, 3.0, 0.0]), np.ones(4), mode=mode)
    assert answer.result == Result.LEAST_SQUARES
    np.testing.assert_allclose(answer.value, [1.0, 1 / 2, 1 / 3, 0.0], rtol=1e-13, atol=1e-13)
    assert answer.residual == pytest.approx(0.5, rel=1e-14)


def test_the_transition_condition_decides_which_phase_an_iteration_belongs_to():
    matrix, rhs = symmetric(np.linspace(0.01, 10.0, 30)), vector(0, 30)
    answers = [solve(solver, matrix, rhs) for solver in (MINRES_ONLY, BOTH, QLP_ONLY)]
    iterations = [answer.iterations for answer in answers]
    phases = [int(answer.stats.qlp_iterations) for answer in answers]
    assert [answer.result for answer in answers] == [Result.CONVERGED] * 3
    assert phases[0] == 0
    assert 0 < phases[1] < iterations[1]
    assert phases[2] == iterations[2]
    for answer in answers:
        np.testing.assert_allclose(answer.value, np.linalg.solve(matrix, rhs), rtol=1e-8)


def test_the_transfer_between_the_phases_gives_the_same_iterate_wherever_it_happens():
    matrix, rhs = symmetric(np.linspace(-4.0, 10.0, 16)), vector(0, 16)
    for limit in (1, 2, 3, 4, 9):
        values, counts = [], set()
        for transition_condition in (1.0, 1.2, 1.5, 2.0, 3.0, 5.0, 8.0, 1e300):
            solver = solvers.MinresQLP(rtol=1e-14, max_iterations=limit, transition_condition=transition_condition)
            answer = solve(solver, matrix, rhs, mode="eager")
            values.append(answer.value)
            counts.add(int(answer.stats.qlp_iterations))
        for value in values:
            np.testing.assert_allclose(value, values[0], rtol=1e-10, atol=1e-12)
        assert {0, limit} <= counts
    assert len(counts) >= 4  # transfers at several iterations were really made


@PROPERTY
@given(spectra(12, 2), SEEDS, st.sampled_from(DTYPES))
def test_nonsingular_systems_are_solved_as_a_dense_solve_does(eigenvalues, seed, dtype):
    matrix, rhs = symmetric(eigenvalues, seed), vector(seed, 12)
    answer = solve(DEFAULT, matrix, rhs, dtype=dtype)
    assert answer.result == Result.CONVERGED
    condition = np.abs(eigenvalues).max() / np.abs(eigenvalues).min()
    error = relative_error(answer.value, np.linalg.solve(matrix, rhs))
    assert error <= condition * (1e-6 + 100 * np.finfo(dtype).eps)


@PROPERTY
@given(spectra(10, 1, zeros=3), SEEDS, st.booleans(), st.sampled_from(DTYPES))
def test_singular_systems_are_answered_as_the_pseudo_inverse_does(eigenvalues, seed, consistent, dtype):
    matrix, rhs = symmetric(eigenvalues, seed), vector(seed, 10)
    if consistent:
        rhs = matrix @ rhs
    answer = solve(DEFAULT, matrix, rhs, dtype=dtype)
    assert answer.result == (Result.CONVERGED if consistent else Result.LEAST_SQUARES)
    reference = minimum_length(matrix, rhs)
    assert relative_error(answer.value, reference) < (2e-2 if dtype == np.float32 else 1e-4)
    assert np.linalg.norm(answer.value) < 1.01 * np.linalg.norm(reference)


@PROPERTY
@given(spectra(8, 1, zeros=2), SEEDS, st.integers(-15, 15), st.integers(-15, 15))
def test_scales_do_not_matter(eigenvalues, seed, power, rhs_power):
    matrix, rhs = symmetric(eigenvalues, seed), vector(seed, 8)
    answer = solve(DEFAULT, 10.0**power * matrix, 10.0**rhs_power * rhs, dtype=np.float32)
    assert answer.result == Result.LEAST_SQUARES
    value = answer.value.astype(float) * 10.0 ** (power - rhs_power)
    assert relative_error(value, minimum_length(matrix, rhs)) < 2e-2


@settings(PROPERTY, max_examples=10)
@given(SEEDS, st.sampled_from(DTYPES), st.sampled_from([1e-6, 1e-12]))
def test_inconsistent_systems_of_many_iterations_keep_the_best_iterate(seed, dtype, rtol):
    # Rounding takes over long before the limit of the condition number: without keeping the best iterate the
    # error here is 1e-3 in float64 and up to 0.1 in float32.
    eigenvalues = np.random.default_rng(seed).uniform(0.1, 10.0, 60)
    eigenvalues[:15] = 0.0
    matrix, rhs = symmetric(eigenvalues, seed), vector(seed, 60)
    answer = solve(solvers.MinresQLP(rtol=rtol, max_iterations=400), matrix, rhs, dtype=dtype)
    assert answer.result == Result.LEAST_SQUARES
    assert relative_error(answer.value, minimum_length(matrix, rhs)) < (
        3e-2 if dtype == np.float32 else 2e-4 if rtol == 1e-6 else 2e-6
    )


def nearly_consistent(size, seed, distance):
    """A singular matrix, indefinite for odd seeds, and a right-hand side of norm 1 off its range by `distance`."""
    rng = np.random.default_rng(seed)
    eigenvalues = rng.uniform(0.1, 10.0, size) * (rng.choice([-1, 1], size) if seed % 2 else 1)
    null = size // 4
    eigenvalues[:null] = 0.0
    matrix = symmetric(eigenvalues, seed)
    inside, outside = matrix @ vector(seed, size), orthogonal(seed, size)[:, :null] @ vector(seed + 50, null)
    rhs = inside / np.linalg.norm(inside) + distance * outside / np.linalg.norm(outside)
    return matrix, rhs, minimum_length(matrix, rhs, 1e-6)


@pytest.mark.parametrize("transition_condition", [None, 1.0])
@pytest.mark.parametrize("size", [10, 20, 60])
@pytest.mark.parametrize(
    ("dtype", "rtol", "distance"),
    [(np.float64, 1e-12, distance) for distance in (1e-11, 1e-10, 1e-9, 1e-8, 3e-8, 1e-7, 1.4e-7, 1e-6)]
    + [(np.float32, 1e-6, distance) for distance in (1e-5, 1e-4, 1e-3, 3e-3)],
)
def test_nearly_consistent_singular_systems_get_the_shortest_solution(
    dtype, rtol, distance, size, transition_condition
):
    # A null-space part of thousands to millions of times its length was left.
    solver = solvers.MinresQLP(rtol=rtol, max_iterations=400, transition_condition=transition_condition)
    for seed in range(4):
        matrix, rhs, reference = nearly_consistent(size, seed, distance)
        answer = solve(solver, matrix, rhs, dtype=dtype)
        assert answer.result == Result.LEAST_SQUARES
        assert relative_error(answer.value, reference) < (1e-12 if dtype == np.float64 else 1e-4)


@pytest.mark.parametrize(("dtype", "rtol"), [(np.float64, 1e-12), (np.float32, 1e-6)])
@pytest.mark.parametrize("solver", [solvers.Minres, solvers.MinresQLP])
def test_an_ill_conditioned_consistent_system_is_not_taken_for_an_inconsistent_one(solver, dtype, rtol):
    # It comes by just as small an ||A r|| on its way.
    digits = 8 if dtype == np.float64 else 4
    for seed in range(8):
        signs = np.random.default_rng(seed).choice([-1, 1], 30) if seed % 2 else 1
        matrix, rhs = symmetric(np.logspace(-digits, 0, 30) * signs, seed), vector(seed, 30)
        answer = solve(solver(rtol=rtol, max_iterations=400), matrix, rhs, dtype=dtype)
        assert answer.result in (Result.CONVERGED, Result.STAGNATED)
        assert relative_error(answer.value, np.linalg.solve(matrix, rhs)) < 10 * 10**digits * np.finfo(dtype).eps


# Of 60 unknowns one of these systems still ends with 2e5 times the solution's length; `MinresQLP` solves it.
@pytest.mark.parametrize("size", [10, 20, pytest.param(60, marks=pytest.mark.xfail(reason="known limit of MINRES"))])
def test_minres_leaves_no_large_null_space_part_in_nearly_consistent_systems(size):
    for dtype, rtol, distances in ((np.float64, 1e-12, (1e-11, 1e-9, 1e-7)), (np.float32, 1e-6, (1e-5, 1e-4, 1e-3))):
        for distance in distances:
            for seed in range(4):
                matrix, rhs, reference = nearly_consistent(size, seed, distance)
                answer = solve(solvers.Minres(rtol=rtol, max_iterations=400), matrix, rhs, dtype=dtype)
                assert answer.result == Result.LEAST_SQUARES
                assert relative_error(answer.value, reference) < (3e-5 if dtype == np.float64 else 0.2)


def test_the_value_is_moderate_at_any_iteration_limit():
    # It reached 1e10 times the solution's norm between the best iterate and the limit of the condition number.
    eigenvalues = np.random.default_rng(0).uniform(0.1, 10.0, 60)
    eigenvalues[:15] = 0.0
    for seed in range(6):
        matrix, rhs = symmetric(eigenvalues, seed), vector(seed, 60)
        answer = solve(solvers.MinresQLP(rtol=1e-12, max_iterations=40), matrix, rhs)
        assert np.linalg.norm(answer.value) < 100 * np.linalg.norm(minimum_length(matrix, rhs))


@pytest.mark.parametrize("solver", [MINRES_ONLY, BOTH, QLP_ONLY])
def test_the_estimates_are_those_of_the_matrix_and_the_solution(solver):
    matrix, rhs = symmetric(np.linspace(-2.0, 9.0, 20)), 1e3 * vector(0, 20)
    answer = solve(solver, matrix, rhs)
    singular_values = np.linalg.svd(matrix, compute_uv=False)
    assert 0.8 * singular_values[0] < float(answer.stats.operator_norm) <= 1.0001 * singular_values[0]
    condition = singular_values[0] / singular_values[-1]
    assert condition / 3 < float(answer.stats.condition) < condition * 1.5
    assert float(answer.stats.solution_norm) == pytest.approx(np.linalg.norm(answer.value), rel=1e-8)


def test_the_condition_of_a_singular_matrix_is_that_of_its_other_part():
    answer = solve(DEFAULT, np.diag([1.0, 2.0, 3.0, 0.0]), np.ones(4))
    assert 2.0 < float(answer.stats.condition) < 10.0


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_norm_of_the_value_stays_within_its_limit(dtype):
    matrix, rhs = np.diag([1.0, 0.5, 1e-3]), np.ones(3)
    answer = solve(solvers.MinresQLP(max_norm=10.0), matrix, rhs, dtype=dtype, mode="eager")
    assert answer.result == Result.MAX_NORM
    assert np.linalg.norm(answer.value) <= 10.0
    assert relative_residual(matrix, answer.value, rhs) < 0.7
    free = solve(solvers.MinresQLP(max_norm=2000.0), matrix, rhs, dtype=dtype, mode="eager")
    assert free.result == Result.CONVERGED


def test_the_last_iterate_within_the_norm_limit_is_the_answer():
    matrix, rhs = np.diag([1.0, 0.5, 0.25]), np.ones(3)
    answer = solve(solvers.MinresQLP(max_norm=3.0), matrix, rhs, mode="eager")
    before = solve(solvers.MinresQLP(max_iterations=answer.iterations - 1), matrix, rhs, mode="eager")
    assert answer.result == Result.MAX_NORM
    assert 1.0 < np.linalg.norm(answer.value) <= 3.0
    np.testing.assert_allclose(answer.value, before.value, rtol=1e-14)


def test_the_norm_limit_is_one_of_the_value_not_of_the_scaled_one():
    matrix, rhs = np.eye(3), 1e6 * np.ones(3)
    for limit, result in ((1e5, Result.MAX_NORM), (1e7, Result.CONVERGED)):
        assert solve(solvers.MinresQLP(max_norm=limit), matrix, rhs, mode="eager").result == result


def test_a_condition_number_beyond_its_limit_is_reported_and_its_direction_left_out():
    matrix, rhs = np.diag([1.0, 0.5, 1e-5]), np.ones(3)
    answer = solve(solvers.MinresQLP(rtol=1e-12, max_condition=1e3), matrix, rhs, mode="eager")
    assert answer.result == Result.MAX_CONDITION
    np.testing.assert_allclose(answer.value, [1.0, 2.0, 0.0], atol=1e-3)
    assert float(answer.stats.condition) <= 1e3
    free = solve(solvers.MinresQLP(rtol=1e-12), matrix, rhs, mode="eager")
    assert free.result == Result.CONVERGED
    np.testing.assert_allclose(free.value, [1.0, 2.0, 1e5], rtol=1e-8)


def test_without_its_safeguards_it_ends_at_an_eigenvector():
    eigenvalues = np.random.default_rng(0).uniform(0.1, 10.0, 60)
    eigenvalues[:15] = 0.0
    matrix, rhs = symmetric(eigenvalues), vector(0, 60)
    solver = solvers.MinresQLP(rtol=1e-15, max_iterations=400, max_condition=1e300, transition_condition=1e300)
    answer = solve(solver, matrix, rhs)
    assert answer.result == Result.EIGENVECTOR
    direction = answer.value / np.linalg.norm(answer.value)
    assert np.linalg.norm(matrix @ direction) < 1e-12


def test_a_small_eigenvalue_that_matters_is_not_taken_for_zero():
    answer = solve(solvers.MinresQLP(), np.diag([1e-7, 1.0]), np.ones(2))
    assert answer.result == Result.CONVERGED
    np.testing.assert_allclose(answer.value, [1e7, 1.0], rtol=1e-6)
