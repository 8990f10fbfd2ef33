import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from linear_systems import DTYPES, relative_error, vector

from ngrl import solvers
from ngrl.solvers import Result

ROWS, PARAMETERS = 5, 12


class DenseRows(tf.linalg.LinearOperator):
    """AᵀA of a dense A [n, P], with the row interface."""

    def __init__(self, rows):
        self.rows = tf.convert_to_tensor(rows)
        super().__init__(dtype=self.rows.dtype, is_self_adjoint=True, is_square=True)

    def _shape(self):
        return tf.TensorShape([self.rows.shape[1]] * 2)

    def _matmul(self, x, adjoint=False, adjoint_arg=False):
        return tf.matmul(self.rows, tf.matmul(self.rows, x), transpose_a=True)

    def gram(self):
        return tf.matmul(self.rows, self.rows, transpose_b=True)

    def row_matvec(self, v):
        return tf.linalg.matvec(self.rows, v)

    def row_rmatvec(self, z):
        return tf.linalg.matvec(self.rows, z, transpose_a=True)


INNER = {
    "cg": solvers.ConjugateGradient(rtol=1e-12),
    "minres": solvers.Minres(rtol=1e-12),
    "qlp": solvers.MinresQLP(rtol=1e-12),
    "cholesky": solvers.Cholesky(),
}
_FUNCTIONS = {}


def run(name, rows, coefficients, rhs, damping, dtype, compiled=False):
    """(solve_rows, __call__) of a dual solver, traced once."""

    def both(rows, coefficients, rhs, damping):
        operator = DenseRows(rows)
        dual = solvers.Dual(solver=INNER[name])
        return dual.solve_rows(operator, coefficients, damping), dual(operator, rhs, damping)

    key = (name, dtype, compiled)
    function = _FUNCTIONS.setdefault(key, tf.function(both, jit_compile=compiled))
    return function(*[tf.constant(x, dtype) for x in (rows, coefficients, rhs, damping)])


def primal(rows, rhs, damping):
    """The dense primal solution in float64."""
    return np.linalg.solve(rows.T @ rows + damping * np.eye(rows.shape[1]), rhs)


@pytest.mark.parametrize("solver", [solvers.Kfac, solvers.BlockDual, solvers.Dual, solvers.AdamDirection])
@pytest.mark.parametrize("outer", [solvers.Dual, solvers.BlockDual])
def test_solver_that_needs_more_than_a_matrix_is_refused_within(outer, solver):
    with pytest.raises(ValueError, match=f"solves with a matrix, and {outer.__name__}'s is {solver.__name__}: take"):
        outer(solver=solver())
    with pytest.raises(ValueError, match="solver must be a Solver, got 'cholesky'"):
        outer(solver="cholesky")


@settings(max_examples=25, deadline=None, derandomize=True)
@given(st.integers(0, 10**6), st.floats(-3.0, 2.0), st.sampled_from(sorted(INNER)), st.sampled_from(DTYPES))
def test_the_dual_solution_is_the_primal_one(seed, power, name, dtype):
    rows = np.random.default_rng(seed).normal(size=(ROWS, PARAMETERS))
    coefficients, rhs, damping = vector(seed, ROWS), vector(seed + 1, PARAMETERS), 10.0**power
    if dtype == np.float32:  # whose digits the full form uses up at small dampings
        damping = max(damping, 1.0)
    in_rows, full = run(name, rows, coefficients, rhs, damping, dtype)
    assert Result(int(in_rows.result)) == Result(int(full.result)) == Result.CONVERGED
    # The accuracy to be had: rounding times the condition number.
    condition = (np.linalg.norm(rows, 2) ** 2 + damping) / damping
    tolerance = 20 * np.finfo(dtype).eps * condition
    reference = primal(rows, rows.T @ coefficients, damping)
    assert relative_error(in_rows.value.numpy(), reference) < tolerance
    assert relative_error(full.value.numpy(), primal(rows, rhs, damping)) < tolerance
    # x = Aᵀz and A x = K z
    np.testing.assert_allclose(rows.T @ in_rows.dual.numpy(), in_rows.value, rtol=1e-3, atol=1e-4)
    assert relative_error(in_rows.gram_dual.numpy(), rows @ reference) < tolerance
    assert float(in_rows.stats.residual) < 1e3 * np.finfo(dtype).eps


def test_digits_lost_to_a_small_damping_are_reported():
    rows = np.random.default_rng(0).normal(size=(ROWS, PARAMETERS))
    rhs = vector(1, PARAMETERS)
    in_rows, full = run("cg", rows, vector(0, ROWS), rhs, 1e-3, np.float32)
    residual = np.linalg.norm(rhs - (rows.T @ rows + 1e-3 * np.eye(PARAMETERS)) @ full.value.numpy())
    assert Result(int(full.result)) == Result.STAGNATED
    assert float(full.stats.residual) == pytest.approx(residual / np.linalg.norm(rhs), rel=0.1)
    assert Result(int(in_rows.result)) == Result.CONVERGED  # the form without the subtraction


@pytest.mark.parametrize(
    ("name", "dtype"), [("cg", np.float32), ("cg", np.float64), ("qlp", np.float64), ("cholesky", np.float32)]
)
def test_xla_agrees_with_the_primal_solution(name, dtype):
    rows = np.random.default_rng(0).normal(size=(ROWS, PARAMETERS))
    coefficients, rhs = vector(0, ROWS), vector(1, PARAMETERS)
    in_rows, full = run(name, rows, coefficients, rhs, 0.3, dtype, compiled=True)
    tolerance = 1e-4 if dtype == np.float32 else 1e-11
    assert relative_error(in_rows.value.numpy(), primal(rows, rows.T @ coefficients, 0.3)) < tolerance
    assert relative_error(full.value.numpy(), primal(rows, rhs, 0.3)) < tolerance


def test_many_more_rows_than_parameters_are_no_obstacle():
    rows = np.random.default_rng(0).normal(size=(20, 4))
    coefficients = vector(0, 20)
    solution = solvers.Dual().solve_rows(DenseRows(rows), coefficients, 1e-2)
    assert relative_error(solution.value.numpy(), primal(rows, rows.T @ coefficients, 1e-2)) < 1e-4


def test_without_damping_a_right_hand_side_in_the_row_space_has_the_shortest_solution():
    rows = np.random.default_rng(0).normal(size=(ROWS, PARAMETERS))
    rows[-1] = 0.0  # a masked row
    coefficients = vector(0, ROWS) * (rows[:, 0] != 0)
    dual = solvers.Dual(solver=solvers.MinresQLP(rtol=1e-12))
    solution = dual.solve_rows(DenseRows(rows), coefficients)
    assert Result(int(solution.result)) == Result.CONVERGED
    reference = np.linalg.lstsq(rows.T @ rows, rows.T @ coefficients, rcond=1e-10)[0]
    assert relative_error(solution.value.numpy(), reference) < 1e-8


@pytest.mark.parametrize("damping", [0.0, -1.0])
def test_the_full_form_needs_damping(damping):
    rows = np.random.default_rng(0).normal(size=(ROWS, PARAMETERS))
    solution = solvers.Dual()(DenseRows(rows), vector(0, PARAMETERS), damping)
    assert Result(int(solution.result)) == Result.BREAKDOWN
    assert not solution.value.numpy().any()


def test_a_right_hand_side_outside_the_row_space_is_divided_by_the_damping():
    rows = np.eye(2, 4)
    solution = solvers.Dual()(DenseRows(rows), [0.0, 0.0, 3.0, 4.0], 2.0)
    assert Result(int(solution.result)) == Result.CONVERGED
    np.testing.assert_allclose(solution.value, [0.0, 0.0, 1.5, 2.0], rtol=1e-14)


@pytest.mark.parametrize("dtype", DTYPES)
def test_nan_rows_or_coefficients_are_a_breakdown_with_finite_values(dtype):
    rows = np.random.default_rng(0).normal(size=(ROWS, PARAMETERS))
    bad = np.where(np.arange(ROWS) == 2, np.nan, 1.0)
    for rows_, coefficients in ((rows, bad), (rows * bad[:, None], np.ones(ROWS))):
        in_rows, full = run("cg", rows_, coefficients, np.full(PARAMETERS, np.nan), 0.1, dtype)
        assert Result(int(in_rows.result)) == Result(int(full.result)) == Result.BREAKDOWN
        assert np.all(np.isfinite(in_rows.value))
        assert np.all(np.isfinite(full.value))


def test_no_gradient_no_step():
    rows = np.random.default_rng(0).normal(size=(ROWS, PARAMETERS))
    solution = solvers.Dual().solve_rows(DenseRows(rows), np.zeros(ROWS), 0.1)
    assert Result(int(solution.result)) == Result.CONVERGED
    assert not solution.value.numpy().any()
    assert int(solution.stats.iterations) == 0


def test_an_operator_without_rows_is_refused_by_what_it_lacks():
    operator = tf.linalg.LinearOperatorIdentity(3)
    with pytest.raises(TypeError, match="gram, row_matvec, row_rmatvec"):
        solvers.Dual()(operator, tf.ones(3), 1.0)
    with pytest.raises(TypeError, match="gram"):
        solvers.Dual().solve_rows(operator, tf.ones(3), 1.0)


@pytest.mark.parametrize("jit_compile", [None, False, True], ids=["eager", "graph", "xla"])
@pytest.mark.parametrize("in_rows", [True, False], ids=["output gradient", "parameter gradient"])
def test_solutions_with_momentum_are_those_of_a_dense_regression_towards_the_solution_before(in_rows, jit_compile):
    dual = solvers.Dual(solver=solvers.Cholesky(), momentum=0.9)
    generator = np.random.default_rng(4)

    def answer(rows, coefficients, before):
        operator = DenseRows(rows)
        gradient = solvers.RowCombination(coefficients)
        if not in_rows:
            gradient = solvers.ParameterGradient(gradient.gradient(operator))
        found = dual.answer(operator, gradient, 0.3, {"solution": before})
        value, system = found.solution.value, found.system
        return value, found.state["solution"], system.slope(value, found.image), system.curvature(value, found.image)

    solve = answer if jit_compile is None else tf.function(answer, jit_compile=jit_compile)
    remembered, expected = tf.zeros(PARAMETERS, tf.float64), np.zeros(PARAMETERS)
    for _ in range(3):
        rows, coefficients = generator.normal(size=(ROWS, PARAMETERS)), generator.normal(size=ROWS)
        value, remembered, slope, curvature = solve(tf.constant(rows), tf.constant(coefficients), remembered)
        # ‖A x − c‖² + λ ‖x − μv‖² as one least-squares problem
        stacked = np.concatenate([rows, np.sqrt(0.3) * np.eye(PARAMETERS)])
        wanted = np.concatenate([coefficients, np.sqrt(0.3) * 0.9 * expected])
        expected = np.linalg.lstsq(stacked, wanted, rcond=None)[0]
        np.testing.assert_allclose(value, expected, rtol=1e-9, atol=1e-12)
        np.testing.assert_array_equal(value, remembered)
        np.testing.assert_allclose(slope, coefficients @ rows @ expected, rtol=1e-9)
        np.testing.assert_allclose(curvature, np.sum((rows @ expected) ** 2), rtol=1e-9)


def test_momentum_is_in_the_config_and_checked():
    dual = tf.keras.utils.deserialize_keras_object(
        tf.keras.utils.serialize_keras_object(solvers.Dual(solver=solvers.Cholesky(), momentum=0.9))
    )
    assert (dual.momentum, type(dual.solver)) == (0.9, solvers.Cholesky)
    with pytest.raises(ValueError, match=r"momentum must lie in \[0, 1\), got 1.0"):
        solvers.Dual(momentum=1.0)
