"""What a solver remembers lives with the optimizer: saved, restored, and untouched by steps that are not taken."""

import numpy as np
import pytest
import tensorflow as tf

from ngrl.curvature import GaussNewton, SquaredError
from ngrl.optimizers import BacktrackingLineSearch, NaturalGradient
from ngrl.solvers import Answer, Cholesky, ConjugateGradient, Dual, ParameterSystem

ROWS = np.random.default_rng(3).normal(size=(7, 3))


class AveragedCurvature(Cholesky):
    """Solves for a running average of the curvature, as K-FAC does: defined outside of ngrl, with state of its own."""

    def slots(self, variables):
        size = sum(variable.shape.num_elements() for variable in variables)
        return {"average": tf.zeros([size, size], tf.float64), "count": tf.zeros([], tf.int32)}

    def answer(self, operator, gradient, damping=0.0, state=None):
        count = state["count"] + 1
        average = state["average"] + (operator.to_dense() - state["average"]) / tf.cast(count, tf.float64)
        averaged = tf.linalg.LinearOperatorFullMatrix(average, is_self_adjoint=True, is_square=True)
        rhs = gradient.gradient(operator)
        solution, product = self.solve_with_product(averaged, rhs, damping)
        return Answer(solution, product, ParameterSystem(averaged, rhs), {"average": average, "count": count})


def operator(scale):
    rows = scale * tf.constant(ROWS)
    return tf.linalg.LinearOperatorFullMatrix(tf.matmul(rows, rows, transpose_a=True), is_self_adjoint=True)


def step(optimizer, variable, gradient, scale, **functions):
    pairs = [(tf.convert_to_tensor(gradient, tf.float64), variable)]
    return optimizer.apply_natural_gradient(pairs, operator(scale), **functions)


@pytest.mark.parametrize("jit_compile", [None, False, True], ids=["eager", "graph", "xla"])
def test_steps_with_a_running_average_of_the_curvature_are_those_computed_by_hand(jit_compile):
    variable = tf.Variable(np.zeros(3), dtype=tf.float64)
    optimizer = NaturalGradient(1.0, solver=AveragedCurvature(), damping=0.5)
    optimizer.build([variable])
    take = lambda g, scale: step(optimizer, variable, g, scale)  # noqa: E731
    if jit_compile is not None:
        take = tf.function(take, jit_compile=jit_compile)
    expected, matrices = np.zeros(3), []
    for number, scale in enumerate([1.0, 2.0, 0.5]):
        gradient = np.array([1.0, -2.0, number])
        take(tf.constant(gradient), tf.constant(scale, tf.float64))
        matrices.append((scale * ROWS).T @ (scale * ROWS))
        expected -= np.linalg.solve(np.mean(matrices, axis=0) + 0.5 * np.eye(3), gradient)
        np.testing.assert_allclose(variable, expected, rtol=1e-12)


def test_steps_that_are_skipped_or_fail_leave_the_state_as_it_is():
    variable = tf.Variable(np.zeros(3), dtype=tf.float64)
    search = BacktrackingLineSearch(max_backtracks=2)
    optimizer = NaturalGradient(1.0, solver=AveragedCurvature(), damping=0.5, max_kl=10.0, line_search=search)
    quadratic = {"loss": tf.constant(0.0, tf.float64), "divergence_fn": lambda: tf.constant(0.0, tf.float64)}
    falls = {**quadratic, "loss_fn": lambda: tf.constant(-1.0, tf.float64)}
    step(optimizer, variable, [1.0, 2.0, 3.0], 1.0, **falls)
    before = [value.numpy() for value in optimizer.variables]
    step(optimizer, variable, [1.0, float("nan"), 3.0], 2.0, **falls)
    rises = {**quadratic, "loss_fn": lambda: tf.constant(1.0, tf.float64)}
    assert step(optimizer, variable, [1.0, 2.0, 3.0], 2.0, **rises).step_norm == 0
    for value, kept in zip(optimizer.variables, before, strict=True):
        np.testing.assert_array_equal(value, kept)


def test_restored_optimizer_goes_on_with_the_state_that_was_saved(tmp_path):
    def made():
        return tf.Variable(np.zeros(3), dtype=tf.float64), NaturalGradient(1.0, solver=AveragedCurvature(), damping=0.5)

    variable, optimizer = made()
    step(optimizer, variable, [1.0, 2.0, 3.0], 1.0)
    path = tf.train.Checkpoint(variable=variable, optimizer=optimizer).save(str(tmp_path / "saved"))
    step(optimizer, variable, [3.0, 2.0, 1.0], 2.0)
    again, restored = made()
    restored.build([again])
    tf.train.Checkpoint(variable=again, optimizer=restored).restore(path).assert_consumed()
    step(restored, again, [3.0, 2.0, 1.0], 2.0)
    np.testing.assert_array_equal(again, variable)


def test_momentum_in_output_space_takes_the_steps_of_a_dense_reference_and_survives_a_checkpoint(tmp_path):
    """SPRING: x = (F + λI)⁻¹ (g + λ μ v), v the x of the step before; α and the radius scale the step, not v."""

    def made():
        layer = tf.keras.layers.Dense(1, use_bias=False, dtype=tf.float64, kernel_initializer="zeros")
        layer.build([None, 3])
        solver = Dual(solver=Cholesky(), momentum=0.8)
        return layer, NaturalGradient(0.5, solver=solver, damping=0.3, max_kl=0.1)

    def take(layer, optimizer, target):
        operator = GaussNewton(layer, layer.trainable_variables, tf.constant(ROWS), SquaredError())
        return optimizer.apply_output_gradient((operator.outputs - target[:, None]) / len(ROWS), operator)

    targets = np.random.default_rng(5).normal(size=(3, len(ROWS)))
    layer, optimizer = made()
    weights, before, curvature = np.zeros(3), np.zeros(3), ROWS.T @ ROWS / len(ROWS)
    for number, target in enumerate(targets):
        if number == 2:
            path = tf.train.Checkpoint(layer=layer, optimizer=optimizer).save(str(tmp_path / "saved"))
        take(layer, optimizer, target)
        gradient = ROWS.T @ (ROWS @ weights - target) / len(ROWS)
        before = np.linalg.solve(curvature + 0.3 * np.eye(3), gradient + 0.3 * 0.8 * before)
        weights = weights - min(0.5, np.sqrt(0.2 / (before @ curvature @ before))) * before
        np.testing.assert_allclose(layer.kernel[:, 0], weights, rtol=1e-10)
    again, restored = made()
    restored.build(again.trainable_variables)
    tf.train.Checkpoint(layer=again, optimizer=restored).restore(path).assert_consumed()
    assert take(again, restored, targets[2] * np.nan).skipped == 1  # which leaves v as it is
    take(again, restored, targets[2])
    np.testing.assert_array_equal(again.kernel, layer.kernel)


@pytest.mark.parametrize("solver", [Dual(), ConjugateGradient(), Cholesky()], ids=lambda solver: type(solver).__name__)
def test_solvers_without_memory_add_no_variable_to_the_optimizer(solver):
    optimizer = NaturalGradient(1.0, solver=solver)
    optimizer.build([tf.Variable(np.zeros(3), dtype=tf.float64)])
    assert sorted(variable.name.split(":")[0] for variable in optimizer.variables) == ["damping", "iteration"]
