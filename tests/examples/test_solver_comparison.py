"""The comparison of solvers: its reference, its angles, and the solvers it times."""

import math

import numpy as np
import pytest
import tensorflow as tf

from ngrl import solvers
from ngrl.curvature import GaussNewton, SquaredError
from ngrl.examples.solver_comparison import Exact, System, TimedSolver, angle, compare, reductions


@pytest.fixture(scope="module")
def system():
    """12 states, 2 actions, a network of 4-6-2; the TD errors of the actions taken."""
    tf.keras.utils.set_random_seed(0)
    network = tf.keras.Sequential([tf.keras.layers.Dense(6, "tanh"), tf.keras.layers.Dense(2)])
    states = tf.random.stateless_normal([12, 4], [0, 1])
    network.build(states.shape)
    actions = tf.constant([0, 1] * 6)
    operator = GaussNewton(network, network.trainable_variables, states, SquaredError(chosen=actions))
    errors = tf.random.stateless_normal([12], [0, 2])
    return System(operator, tf.one_hot(actions, 2) * errors[:, tf.newaxis] / 12)


def test_reference_solves_the_dense_system(system):
    matrix = system.operator.to_dense().numpy().astype(np.float64)
    gradient = system.operator.vjp(system.output_gradient).numpy().astype(np.float64)
    exact = Exact(system)
    np.testing.assert_allclose(exact.gradient, gradient, rtol=1e-4, atol=1e-6)
    assert exact.lambda_max == pytest.approx(np.linalg.eigvalsh(matrix)[-1], rel=1e-5)
    for damping in (0.1, 3.0):
        expected = np.linalg.solve(matrix + damping * np.eye(len(matrix)), gradient)
        np.testing.assert_allclose(exact.solve(damping), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("first", "second", "degrees"),
    [
        ([1.0, 0.0], [0.0, 3.0], 90.0),
        ([1.0, 0.0], [-2.0, 0.0], 180.0),
        ([1.0, 1.0], [5.0, 5.0], 0.0),
        ([1.0, 0.0], [1.0, math.tan(1e-9)], math.degrees(1e-9)),
    ],
)
def test_angle_is_right_even_where_its_cosine_rounds_to_one(first, second, degrees):
    assert angle(np.array(first), np.array(second)) == pytest.approx(degrees, rel=1e-6, abs=1e-12)


def test_angle_to_nothing_is_undefined():
    assert math.isnan(angle(np.zeros(2), np.ones(2)))


def test_every_kind_of_solver_finds_the_exact_direction(system):
    methods = {
        "CG": solvers.ConjugateGradient(max_iterations=100),
        "MINRES-QLP": solvers.MinresQLP(max_iterations=100),
        "dual": solvers.Dual(solver=solvers.Cholesky()),
        "Cholesky": solvers.Cholesky(),
    }
    rows = list(compare(system, methods, [0.5], repeats=2))
    assert [row["solver"] for row in rows] == list(methods)
    for row in rows:
        assert row["angle_degrees"] < 0.01, row["solver"]
        assert row["milliseconds"] > 0
        assert row["damping_over_lambda_max"] == pytest.approx(0.5 / row["lambda_max"])
        # The plain gradient is another direction.
        assert row["angle_of_gradient_degrees"] > 1


def test_reductions_are_those_of_the_loss_and_of_its_quadratic_model(system):
    operator = system.operator
    network, states = (operator.parameters[name] for name in ("forward", "inputs"))
    actions = np.array([0, 1] * 6)
    pull = system.output_gradient.numpy().astype(np.float64)
    outputs = operator.outputs.numpy().astype(np.float64)
    targets = outputs - 12 * pull  # u = (y - t) / 12 for the actions taken

    def loss(values):
        return 0.5 * np.mean((values - targets)[np.arange(12), actions] ** 2)

    x = Exact(system).solve(0.5)
    matrix = operator.to_dense().numpy().astype(np.float64)
    gradient = operator.vjp(system.output_gradient).numpy().astype(np.float64)
    before = network.get_weights()
    for radius in (1e-4, 10.0):
        scale = min(1.0, np.sqrt(2 * radius / (x @ matrix @ x)))
        predicted, achieved = reductions(system, x, radius)
        assert all(np.array_equal(a, b) for a, b in zip(network.get_weights(), before, strict=True))
        assert predicted == pytest.approx(scale * (gradient @ x) - 0.5 * scale**2 * (x @ matrix @ x), rel=1e-4)
        flat = np.concatenate([w.ravel() for w in before]) - scale * x
        sizes = np.cumsum([w.size for w in before])[:-1]
        network.set_weights([p.reshape(w.shape) for p, w in zip(np.split(flat, sizes), before, strict=True)])
        expected = loss(outputs) - loss(network(states).numpy().astype(np.float64))
        network.set_weights(before)
        assert achieved == pytest.approx(expected, rel=1e-3, abs=1e-7)
        assert achieved != pytest.approx(predicted, rel=1e-6)


def test_solver_that_stops_early_is_seen_to_be_off(system):
    value, stats, _ = TimedSolver(system, solvers.ConjugateGradient(max_iterations=1))(0.01, repeats=1)
    assert int(stats.iterations) == 1
    assert angle(value, Exact(system).solve(0.01)) > 5
