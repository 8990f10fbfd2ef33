"""Conjugate gradients that begin at the solution of an optimizer's step before."""

import numpy as np
import pytest
import tensorflow as tf
from small_stacks import compiled, linearised, network

from ngrl.optimizers import BacktrackingLineSearch, NaturalGradient
from ngrl.solvers import BlockDual, ConjugateGradient, Dual, Kfac, ParameterGradient, Result


def operator_of(matrix):
    return tf.linalg.LinearOperatorFullMatrix(tf.constant(matrix), is_self_adjoint=True, is_square=True)


def spd(rng, size=40):
    q = np.linalg.qr(rng.normal(size=(size, size)))[0]
    return q * np.geomspace(1e-3, 10.0, size) @ q.T


@pytest.mark.parametrize("mode", ["eager", "graph", "xla"])
def test_warm_start_begins_at_the_best_multiple_of_the_solution_before(mode):
    rng = np.random.default_rng(7)
    matrix, rhs, v = spd(rng), rng.normal(size=40), rng.normal(size=40)
    v += 3 * rhs
    a = matrix + 0.1 * np.eye(40)
    # Conjugate gradients from s v, in two lines.
    s = v @ rhs / (v @ a @ v)
    r = rhs - s * a @ v
    expected = s * v + (r @ r) / (r @ a @ r) * r
    solver = ConjugateGradient(max_iterations=2, warm_start=True)

    def run():
        gradient = ParameterGradient(tf.constant(rhs))
        answer = solver.answer(operator_of(matrix), gradient, 0.1, {"solution": tf.constant(v)})
        return answer.solution, answer.state

    solution, state = compiled(run, mode)()
    np.testing.assert_allclose(solution.value, expected, rtol=1e-10)
    np.testing.assert_array_equal(state["solution"], solution.value)
    assert int(solution.stats.iterations) == 2


@pytest.mark.parametrize("preconditioner", [None, Kfac()], ids=["plain", "kfac"])
def test_warm_start_needs_fewer_products_where_a_system_is_like_the_one_before(preconditioner):
    operator = linearised(network((4, 6, 3)))
    gradient = ParameterGradient(operator.vjp(tf.constant(np.random.default_rng(3).normal(size=(5, 3)))))
    solver = ConjugateGradient(rtol=1e-6, max_iterations=500, preconditioner=preconditioner, warm_start=True)
    first = solver.answer(operator, gradient, 1e-4, solver.slots(operator.parameters["variables"]))
    cold = ConjugateGradient(rtol=1e-6, max_iterations=500, preconditioner=preconditioner)
    np.testing.assert_array_equal(first.solution.value, cold(operator, gradient.gradient(operator), 1e-4).value)
    again = solver.answer(operator, gradient, 1.01e-4, first.state)
    assert again.solution.result == Result.CONVERGED
    assert int(again.solution.stats.iterations) < int(first.solution.stats.iterations) / 1.5
    dense = operator.to_dense().numpy() + 1.01e-4 * np.eye(operator.shape[0])
    rest = dense @ again.solution.value.numpy() - gradient.gradient(operator)
    assert np.linalg.norm(rest) < 2e-6 * np.linalg.norm(gradient.gradient(operator))


@pytest.mark.parametrize(
    "v",
    [[0.0, 0.0, 0.0], [0.0, 0.0, 1.0], [1.0, -1.0, 0.0]],
    ids=["nothing", "without curvature", "along the valley"],
)
def test_solution_before_that_would_not_help_is_left_alone(v):
    matrix, rhs = np.diag([1.0, 2.0, 0.0]), np.array([1.0, 1.0, 0.0])
    solver = ConjugateGradient(rtol=1e-9, warm_start=True)
    answer = solver.answer(
        operator_of(matrix), ParameterGradient(tf.constant(rhs)), 0.0, {"solution": tf.constant(np.array(v))}
    )
    np.testing.assert_allclose(answer.solution.value, [1.0, 0.5, 0.0], atol=1e-8)


def test_warm_start_remembers_nothing_of_a_breakdown():
    v = np.array([1.0, 2.0])
    solver = ConjugateGradient(warm_start=True)
    for matrix in (np.diag([1.0, np.nan]), np.diag([-1.0, -1.0])):
        answer = solver.answer(
            operator_of(matrix), ParameterGradient(tf.ones([2], tf.float64)), 0.0, {"solution": tf.constant(v)}
        )
        assert answer.solution.result == Result.BREAKDOWN
        np.testing.assert_array_equal(answer.state["solution"], v)
    assert ConjugateGradient.from_config(solver.get_config()).warm_start


@pytest.mark.parametrize("preconditioner", [None, Kfac()], ids=["plain", "kfac"])
def test_warm_start_remembers_nothing_of_a_step_that_failed(preconditioner):
    stack = network()
    optimizer = NaturalGradient(
        solver=ConjugateGradient(warm_start=True, preconditioner=preconditioner),
        damping=0.1,
        max_kl=0.1,
        line_search=BacktrackingLineSearch(),
    )

    def kept():
        return [v.numpy() for v in optimizer.variables if v.name.startswith("solver/solution")]

    for losses in ((5.0, 5.0), (5.0, 4.0), (5.0, 5.0)):  # as it was, better, as it was
        before = kept()
        stats = optimizer.apply_output_gradient(
            tf.ones([5, 2], tf.float64),
            linearised(stack),
            loss=losses[0],
            loss_fn=lambda losses=losses: losses[1],
            divergence_fn=lambda: 0.0,
        )
        failed = losses[0] == losses[1]
        assert (stats.step_norm == 0) == failed
        (value,) = kept()
        assert np.array_equal(value, before[0] if before else np.zeros_like(value)) == failed


def test_warm_start_needs_an_iteration_besides_the_guess():
    with pytest.raises(ValueError, match="max_iterations must be an integer of at least 2, got 1"):
        ConjugateGradient(max_iterations=1, warm_start=True)
    assert ConjugateGradient(max_iterations=1).max_iterations == 1


@pytest.mark.parametrize("owner", [Dual, BlockDual])
@pytest.mark.parametrize("setting", [{"warm_start": True}, {"preconditioner": Kfac()}], ids=["warm", "preconditioned"])
def test_solvers_of_rows_refuse_what_is_for_parameters_alone(owner, setting):
    with pytest.raises(ValueError, match=f"^{owner.__name__}'s solver works on rows.*without {owner.__name__}$"):
        owner(solver=ConjugateGradient(**setting))
