"""The contract: every solver on every class of system, both dtypes, eager, graph and XLA."""

import numpy as np
import pytest
import tensorflow as tf
from linear_systems import (
    DTYPES,
    MODES,
    minimum_length,
    relative_error,
    relative_residual,
    solve,
    symmetric,
    vector,
)

from ngrl import solvers
from ngrl.solvers import Result

SOLVERS = {
    "cg": solvers.ConjugateGradient(),
    "minres": solvers.Minres(),
    "qlp": solvers.MinresQLP(),
    "cholesky": solvers.Cholesky(),
}

SIZE = 8
_EIGENVALUES = np.array([0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0])
_SIGNS = np.array([1, -1, 1, 1, -1, 1, 1, -1])
_RANGE = np.array([0, 0, 1, 1, 1, 1, 1, 1])
_RHS = vector(0, SIZE)
_DEFINITE = symmetric(_EIGENVALUES)
_INDEFINITE = symmetric(_EIGENVALUES * _SIGNS)
_SEMIDEFINITE = symmetric(_EIGENVALUES * _RANGE)
_SINGULAR = symmetric(_EIGENVALUES * _SIGNS * _RANGE)
_BAD_SCALES = np.diag(10.0 ** np.linspace(-1, 1, SIZE))

SYSTEMS = {
    "definite": (_DEFINITE, _RHS),
    "indefinite": (_INDEFINITE, _RHS),
    "semidefinite consistent": (_SEMIDEFINITE, _SEMIDEFINITE @ _RHS),
    "semidefinite inconsistent": (_SEMIDEFINITE, _RHS),
    "singular consistent": (_SINGULAR, _SINGULAR @ _RHS),
    "singular inconsistent": (_SINGULAR, _RHS),
    "badly scaled": (1e12 * _BAD_SCALES @ _DEFINITE @ _BAD_SCALES, 1e-15 * _RHS),
    "negative": (-_DEFINITE, _RHS),
    "identity": (np.eye(SIZE), _RHS),
    "zero": (np.zeros((SIZE, SIZE)), _RHS),
    "zero rhs": (_DEFINITE, np.zeros(SIZE)),
    "nan operator": (np.full((SIZE, SIZE), np.nan), _RHS),
    "one nan": (np.where(np.eye(SIZE)[0] > 0, np.nan, _DEFINITE), _RHS),
    "infinite operator": (np.full((SIZE, SIZE), np.inf), _RHS),
    "nan rhs": (_DEFINITE, np.where(np.eye(SIZE)[3] > 0, np.nan, _RHS)),
    "infinite rhs": (_DEFINITE, np.where(np.eye(SIZE)[3] > 0, np.inf, _RHS)),
    "all nan, zero rhs": (np.full((SIZE, SIZE), np.nan), np.zeros(SIZE)),
}

_LETTERS = {"C": Result.CONVERGED, "B": Result.BREAKDOWN, "L": Result.LEAST_SQUARES}
#: What each solver answers for the first ten systems, in their order.
TABLE = {
    # definite, indefinite, semidefinite: consistent, inconsistent, singular: the same two, badly scaled, ..., zero
    "cg": "C B CB BB C B C B",
    "minres": "C C CL CL C C C L",
    "qlp": "C C CL CL C C C L",
    "cholesky": "C B BB BB C B C B",
}
#: And all of them for the rest.
_REST = "C BBBBB C"
CELLS = [
    pytest.param(solver, system, _LETTERS[letter], id=f"{solver}-{system.replace(' ', '_')}")
    for solver in SOLVERS
    for system, letter in zip(SYSTEMS, (TABLE[solver] + _REST).replace(" ", ""), strict=True)
]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("solver", "system", "expected"), CELLS)
def test_each_solver_says_what_became_of_each_class_of_system(solver, system, expected, dtype):
    matrix, rhs = SYSTEMS[system]
    answer = solve(SOLVERS[solver], matrix, rhs, dtype=dtype)
    assert answer.result == expected
    assert np.all(np.isfinite(answer.value))
    assert np.isfinite(answer.residual)
    if not rhs.any():
        assert not answer.value.any()
        assert (answer.iterations, answer.residual) == (0, 0.0)
    elif not (np.all(np.isfinite(matrix)) and np.all(np.isfinite(rhs))):
        assert not answer.value.any()
        assert answer.residual == 1.0
    else:
        residual = relative_residual(matrix, answer.value, rhs)
        assert answer.residual == pytest.approx(residual, rel=1e-2, abs=100 * float(np.finfo(dtype).eps))
        _check_value(matrix, rhs, answer, solver, 1e-3 if dtype == np.float32 else 1e-5)


def _check_value(matrix, rhs, answer, solver, tolerance):
    reference = minimum_length(matrix, rhs)
    if answer.result == Result.CONVERGED:
        product_size = np.linalg.norm(matrix, 2) * np.linalg.norm(answer.value.astype(float))
        rounding = 10 * np.finfo(answer.value.dtype).eps * product_size / np.linalg.norm(rhs)
        assert relative_residual(matrix, answer.value, rhs) < 1e-6 + rounding
        assert relative_error(answer.value, reference) < tolerance
    elif answer.result == Result.LEAST_SQUARES:
        best = relative_residual(matrix, reference, rhs)
        assert relative_residual(matrix, answer.value, rhs) == pytest.approx(best, rel=1e-6)
        if solver == "qlp" and reference.any():  # the others may add a null vector
            assert relative_error(answer.value, reference) < tolerance
    else:
        assert answer.residual <= 1.0  # no worse than doing nothing


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("solver", SOLVERS)
def test_eager_graph_and_xla_agree(solver, dtype):
    tolerance = 2e-4 if dtype == np.float32 else 1e-6
    names = ["definite", "indefinite", "semidefinite inconsistent", "one nan", "nan rhs", "zero rhs", "zero"]
    for name in names:
        matrix, rhs = SYSTEMS[name]
        eager, graph, xla = (solve(SOLVERS[solver], matrix, rhs, 0.0, dtype, mode) for mode in MODES)
        assert eager.result == graph.result == xla.result, name
        if eager.result in (Result.CONVERGED, Result.LEAST_SQUARES):
            np.testing.assert_allclose(graph.value, eager.value, rtol=tolerance, atol=tolerance)
            np.testing.assert_allclose(xla.value, eager.value, rtol=tolerance, atol=tolerance)
            assert abs(eager.iterations - xla.iterations) <= 1


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("solver", SOLVERS)
def test_damping_adds_a_multiple_of_the_identity(solver, dtype):
    answer = solve(SOLVERS[solver], _INDEFINITE, _RHS, 7.3, dtype)
    reference = np.linalg.solve(_INDEFINITE + 7.3 * np.eye(SIZE), _RHS)
    assert answer.result == Result.CONVERGED
    assert relative_error(answer.value, reference) < 2e-5


def test_a_python_damping_keeps_the_digits_of_float64():
    operator = tf.linalg.LinearOperatorDiag(tf.zeros(1, tf.float64))
    solution = solvers.Cholesky()(operator, [1.0], 0.1)
    assert solution.value.numpy()[0] == pytest.approx(10.0, rel=1e-14)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("scale", [1e-30, 1e-6, 1e6, 1e30])
def test_the_scale_of_the_right_hand_side_changes_nothing_but_the_scale(solver, dtype, scale):
    plain = solve(SOLVERS[solver], _DEFINITE, _RHS, dtype=dtype)
    scaled = solve(SOLVERS[solver], _DEFINITE, scale * _RHS, dtype=dtype)
    assert scaled.result == Result.CONVERGED
    assert relative_error(scaled.value.astype(float), scale * plain.value.astype(float)) < 1e-5


@pytest.mark.parametrize("solver", ["cg", "minres", "qlp"])
@pytest.mark.parametrize("scale", [1e-28, 1e28])
def test_an_operator_whose_squares_leave_float32_is_solved(solver, scale):
    answer = solve(SOLVERS[solver], scale * _DEFINITE, _RHS, dtype=np.float32)
    assert answer.result == Result.CONVERGED
    assert relative_error(scale * answer.value.astype(float), np.linalg.solve(_DEFINITE, _RHS)) < 1e-4


@pytest.mark.parametrize("name", ["cg", "minres", "qlp"])
def test_the_iteration_limit_is_kept_and_reported(name):
    solver = type(SOLVERS[name])(max_iterations=3)
    answer = solve(solver, _DEFINITE, _RHS, mode="eager")
    assert (answer.result, answer.iterations) == (Result.MAX_ITERATIONS, 3)
    assert 0 < answer.residual < 1
    assert relative_residual(_DEFINITE, answer.value, _RHS) == pytest.approx(answer.residual, rel=1e-9)


@pytest.mark.parametrize("name", ["cg", "minres", "qlp"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_tolerance_below_the_dtype_is_met_as_far_as_the_dtype_goes(name, dtype):
    solver = type(SOLVERS[name])(rtol=0.0)
    answer = solve(solver, _DEFINITE, _RHS, dtype=dtype, mode="eager")
    assert answer.result == Result.CONVERGED
    assert answer.residual < 50 * np.finfo(dtype).eps


@pytest.mark.parametrize("name", ["cg", "minres", "qlp"])
def test_a_looser_tolerance_stops_earlier(name):
    solver = type(SOLVERS[name])
    loose = solve(solver(rtol=0.1), _DEFINITE, _RHS, mode="eager")
    tight = solve(solver(rtol=1e-9), _DEFINITE, _RHS, mode="eager")
    assert loose.result == tight.result == Result.CONVERGED
    assert loose.iterations < tight.iterations
    assert 1e-9 < loose.residual <= 0.1


@pytest.mark.parametrize("name", ["cg", "minres", "qlp"])
def test_an_eigenvector_is_solved_in_one_iteration(name):
    answer = solve(SOLVERS[name], np.diag([3.0, 5.0, 7.0]), np.array([0.0, 2.0, 0.0]))
    assert (answer.result, answer.iterations) == (Result.CONVERGED, 1)
    np.testing.assert_allclose(answer.value, [0.0, 0.4, 0.0], rtol=1e-14)


@pytest.mark.parametrize("name", ["minres", "qlp"])
def test_a_null_vector_has_the_least_squares_solution_zero(name):
    answer = solve(SOLVERS[name], np.diag([3.0, 0.0, 7.0]), np.array([0.0, 2.0, 0.0]))
    assert (answer.result, answer.residual) == (Result.LEAST_SQUARES, 1.0)
    assert not answer.value.any()


@pytest.mark.parametrize("solver", SOLVERS)
def test_any_linear_operator_will_do(solver):
    operator = tf.linalg.LinearOperatorKronecker(
        [
            tf.linalg.LinearOperatorDiag(tf.constant([1.0, 2.0], tf.float64)),
            tf.linalg.LinearOperatorToeplitz(*[tf.constant([3.0, 1.0], tf.float64)] * 2),
        ]
    )
    rhs = np.arange(1.0, 5.0)
    solution = SOLVERS[solver](operator, rhs)
    np.testing.assert_allclose(solution.value, np.linalg.solve(operator.to_dense(), rhs), rtol=1e-5)


@pytest.mark.parametrize("solver", SOLVERS)
def test_the_product_that_comes_along_is_that_of_the_undamped_operator(solver):
    operator = tf.linalg.LinearOperatorFullMatrix(_DEFINITE)
    solution, product = SOLVERS[solver].solve_with_product(operator, _RHS, 0.5)
    np.testing.assert_allclose(product, _DEFINITE @ solution.value.numpy(), rtol=1e-10)


@pytest.mark.parametrize(
    ("operator", "rhs", "damping", "error", "message"),
    [
        (np.eye(2), [1.0, 1.0], 0.0, TypeError, "LinearOperator"),
        (tf.linalg.LinearOperatorIdentity(2, dtype=tf.complex64), [1.0, 1.0], 0.0, TypeError, "complex64"),
        (tf.linalg.LinearOperatorIdentity(2), [1.0, 1.0, 1.0], 0.0, ValueError, "does not fit"),
        (tf.linalg.LinearOperatorIdentity(2), [[1.0, 1.0]], 0.0, ValueError, "vector"),
        (tf.linalg.LinearOperatorIdentity(2), [1.0, 1.0], [0.0, 0.0], ValueError, "damping"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(operator, rhs, damping, error, message):
    with pytest.raises(error, match=message):
        solvers.ConjugateGradient()(operator, rhs, damping)


def test_a_rhs_of_another_dtype_is_refused():
    with pytest.raises(ValueError, match="float64"):
        solvers.ConjugateGradient()(tf.linalg.LinearOperatorIdentity(2), tf.ones(2, tf.float64))


@pytest.mark.parametrize(
    ("solver", "arguments", "name"),
    [
        (solvers.ConjugateGradient, {"rtol": -1e-6}, "rtol"),
        (solvers.ConjugateGradient, {"rtol": "small"}, "rtol"),
        (solvers.ConjugateGradient, {"max_iterations": 0}, "max_iterations"),
        (solvers.Minres, {"max_iterations": 2.5}, "max_iterations"),
        (solvers.Minres, {"rtol": float("nan")}, "rtol"),
        (solvers.MinresQLP, {"max_norm": 0.0}, "max_norm"),
        (solvers.MinresQLP, {"max_condition": 0.5}, "max_condition"),
        (solvers.MinresQLP, {"transition_condition": True}, "transition_condition"),
        (solvers.Dual, {"solver": "cg"}, "solver"),
        (solvers.Dual, {"solver": solvers.Dual()}, "solver"),
    ],
)
def test_a_bad_argument_is_named(solver, arguments, name):
    with pytest.raises(ValueError, match=f"^{name} must be"):
        solver(**arguments)


@pytest.mark.parametrize(
    "solver",
    [
        solvers.ConjugateGradient(rtol=1e-3, max_iterations=7),
        solvers.Minres(rtol=1e-4, max_iterations=8),
        solvers.MinresQLP(rtol=1e-5, max_iterations=9, max_norm=3.0, max_condition=1e9, transition_condition=12.0),
        solvers.Cholesky(),
        solvers.Dual(solver=solvers.MinresQLP(rtol=1e-5)),
    ],
    ids=lambda solver: type(solver).__name__,
)
def test_the_configuration_round_trips_through_keras(solver):
    serialised = tf.keras.utils.serialize_keras_object(solver)
    for copy in (
        type(solver).from_config(solver.get_config()),
        tf.keras.utils.deserialize_keras_object(serialised),
    ):
        assert type(copy) is type(solver)
        assert copy.get_config() == solver.get_config()
        assert repr(copy) == repr(solver)
