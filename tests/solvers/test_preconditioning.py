"""K-FAC as preconditioner: the same solutions in fewer iterations, and what it refuses."""

import numpy as np
import pytest
import tensorflow as tf
from small_stacks import compiled, linearised, network

from ngrl.curvature import GaussNewton
from ngrl.optimizers import NaturalGradient
from ngrl.solvers import ConjugateGradient, Dual, Kfac, MinresQLP, OutputGradient, ParameterGradient, Result

SOLVERS = {
    "cg": lambda **options: ConjugateGradient(rtol=1e-11, max_iterations=500, **options),
    "qlp": lambda **options: MinresQLP(rtol=1e-12, max_iterations=500, **options),
    "qlp from the start": lambda **o: MinresQLP(rtol=1e-12, max_iterations=500, transition_condition=1.0, **o),
}
DAMPING = 1e-4


def ill_conditioned():
    """A Dense network on inputs of scales from 1/100 to 10, in which each counts alike."""
    scales = np.array([0.01, 0.1, 1.0, 10.0])
    stack = network((4, 6, 3))
    stack.variables[0].assign(stack.variables[0] / scales[:, np.newaxis] / 2)
    return linearised(stack, inputs=scales * np.random.default_rng(1).normal(size=(300, 4)))


def test_preconditioner_that_needs_a_loss_is_refused():
    with pytest.raises(ValueError, match='another kind of Kfac than "empirical"'):
        ConjugateGradient(preconditioner=Kfac(kind="empirical"))


def test_preconditioner_with_a_model_of_steps_is_refused():
    with pytest.raises(ValueError, match="quadratic_model is for Kfac as the solver"):
        ConjugateGradient(preconditioner=Kfac(quadratic_model="factored"))


def test_a_limit_of_the_norm_is_refused_beside_a_preconditioner():
    with pytest.raises(ValueError, match=r"max_norm.*preconditioner"):
        MinresQLP(max_norm=1.0, preconditioner=Kfac())


@pytest.mark.parametrize("name", ["qlp", "qlp from the start"])
@pytest.mark.parametrize("preconditioner", [None, Kfac(), Kfac(inverse="exact")], ids=["none", "factored", "exact"])
def test_the_norm_of_the_solution_is_that_of_the_value(name, preconditioner):
    operator = ill_conditioned()
    rhs = 7.0 * np.random.default_rng(5).normal(size=operator.shape[0])
    solution = SOLVERS[name](preconditioner=preconditioner)(operator, rhs, 1e-2)
    np.testing.assert_allclose(solution.stats.solution_norm, np.linalg.norm(solution.value), rtol=1e-6)


@pytest.mark.parametrize(("name", "mode"), [*((name, "graph") for name in SOLVERS), ("qlp", "xla")])
def test_solution_is_the_dense_one_in_fewer_iterations(name, mode):
    operator = ill_conditioned()
    size = operator.shape[0]
    matrix = operator.to_dense().numpy() + DAMPING * np.eye(size)
    rhs = np.random.default_rng(5).normal(size=size)
    expected = np.linalg.solve(matrix, rhs)

    def solve(preconditioner):
        inputs, variables = operator.parameters["inputs"], operator.parameters["variables"]

        def run():
            again = GaussNewton(operator.parameters["forward"], variables, inputs)
            return SOLVERS[name](preconditioner=preconditioner)(again, rhs, DAMPING)

        return compiled(run, mode)()

    plain, preconditioned = solve(None), solve(Kfac())
    for solution in (plain, preconditioned):
        np.testing.assert_allclose(solution.value, expected, rtol=1e-6, atol=1e-6 * np.abs(expected).max())
    assert preconditioned.result == Result.CONVERGED
    assert int(preconditioned.stats.iterations) < int(plain.stats.iterations) / 2
    assert float(preconditioned.stats.residual) < 1e-8


@pytest.mark.parametrize("name", SOLVERS)
def test_one_iteration_is_enough_where_kfac_is_exact(name):
    operator = linearised(network((3, 2)))  # a linear layer with squared error
    rhs = np.arange(1.0, 9.0)
    found = SOLVERS[name](preconditioner=Kfac(inverse="exact"))(operator, rhs, 0.3)
    np.testing.assert_allclose(found.value, np.linalg.solve(operator.to_dense() + 0.3 * np.eye(8), rhs), rtol=1e-9)
    assert int(found.stats.iterations) <= 2


@pytest.mark.parametrize("name", ["cg", "qlp"])
def test_optimizer_keeps_the_preconditioner_s_running_averages(name):
    stack = network((3, 4, 2), activation="relu")
    solver = SOLVERS[name](preconditioner=Kfac(decay=0.5, period=2))
    optimizer = NaturalGradient(0.1, solver=solver, damping=0.1)
    kfac, expected = Kfac(decay=0.5, period=2), {}
    for number in range(3):
        operator = linearised(stack, seed=number)
        pull = tf.constant(np.random.default_rng(number).normal(size=(5, 2)))
        gradient = ParameterGradient(operator.vjp(pull))
        dense = operator.to_dense().numpy() + 0.1 * np.eye(operator.shape[0])
        before = np.concatenate([v.numpy().ravel() for v in stack.variables])
        step = np.linalg.solve(dense, operator.vjp(pull))
        expected = kfac.answer(operator, gradient, 0.1, expected or kfac.slots(stack.variables)).state
        optimizer.apply_output_gradient(pull, operator)
        after = np.concatenate([v.numpy().ravel() for v in stack.variables])
        np.testing.assert_allclose(after - before, -0.1 * step, rtol=1e-6, atol=1e-9)
    slots = [v.numpy() for v in optimizer.variables]
    for key, value in expected.items():
        same = [slot for slot in slots if slot.shape == value.shape]
        assert any(np.allclose(value, slot, rtol=1e-9, atol=1e-12) for slot in same), key


@pytest.mark.parametrize("name", SOLVERS)
def test_a_singular_preconditioner_breaks_down_instead_of_moving(name):
    operator = linearised(network((3, 2)), inputs=np.zeros((4, 3)))
    solver = SOLVERS[name](preconditioner=Kfac())
    slots = solver.slots(operator.parameters["variables"])
    answer = solver.answer(operator, OutputGradient(tf.ones([4, 2], tf.float64)), 0.0, slots)
    assert answer.solution.result == Result.BREAKDOWN
    assert not np.any(answer.solution.value)
    assert not any(np.any(value) for value in answer.state.values())


def test_bad_input_is_answered_in_one_line():
    for solver in (ConjugateGradient, MinresQLP):
        with pytest.raises(ValueError, match="preconditioner must be None or a Kfac"):
            solver(preconditioner=Dual())
        with pytest.raises(TypeError, match="kronecker_layers"):
            solver(preconditioner=Kfac())(
                tf.linalg.LinearOperatorIdentity(3, dtype=tf.float64, is_self_adjoint=True), np.ones(3), 1.0
            )
        again = solver.from_config(solver(preconditioner=Kfac(period=3)).get_config())
        assert again.preconditioner.period == 3
        stack, other = network(), network((3, 5, 2))
        with pytest.raises(ValueError, match="other variables"):
            solver(preconditioner=Kfac()).answer(
                linearised(stack), OutputGradient(tf.ones([5, 2], tf.float64)), 1.0, Kfac().slots(other.variables[2:])
            )
    with pytest.raises(ValueError, match="can't precondition"):
        Dual(solver=ConjugateGradient(preconditioner=Kfac()))
