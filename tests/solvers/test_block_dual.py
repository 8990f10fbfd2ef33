"""The dual solver of each layer by itself, against the dense block-diagonal matrix."""

import itertools

import numpy as np
import pytest
import tensorflow as tf
from small_stacks import compiled, linearised, network, slices

from ngrl.curvature import Categorical, GaussNewton, SquaredError
from ngrl.optimizers import NaturalGradient
from ngrl.solvers import BlockDual, Cholesky, ConjugateGradient, Dual, OutputGradient, ParameterGradient, Result

KERAS = tf.keras.layers
METRICS = {"all outputs": None, "chosen": SquaredError(chosen=[0, 1, 1, 0, 1]), "categorical": Categorical()}


def block_diagonal(operator, layers):
    """F of the dense rows, without the products of variables of different layers."""
    rows = operator.row_matrix().numpy()
    dense = rows.T @ rows
    places = slices(operator.parameters["variables"])
    result = np.zeros_like(dense)
    for layer in layers:
        inside = np.concatenate([np.arange(places[slot].start, places[slot].stop) for slot in layer])
        result[np.ix_(inside, inside)] = dense[np.ix_(inside, inside)]
    return result


def layers_of(stack, free):
    """The places of each layer's variables: a kernel begins a layer, and free outputs, which are last, are one."""
    last = len(stack.variables) - 1
    starts = [s for s, v in enumerate(stack.variables) if v.shape.rank == 2 or (free and s == last)]
    return [range(*ends) for ends in itertools.pairwise([*starts, last + 1])]


def solved(operator, gradient, damping, solver=None):
    answer = (solver or BlockDual()).answer(operator, gradient, damping)
    return answer.solution.value, answer.image, answer.solution.result, answer.system.gradient_norm


@pytest.mark.parametrize("mode", ["eager", "graph", "xla"])
@pytest.mark.parametrize("metric", METRICS)
def test_solution_is_that_of_the_dense_block_diagonal_matrix(metric, mode):
    stack = network((3, 4, 4, 2))
    weights = tf.constant([1.0, 0.0, 2.0, 1.0, 1.0], tf.float64)
    rng = np.random.default_rng(0)
    u = rng.normal(size=(5, 2))
    if metric == "chosen":
        u[np.arange(5), [1, 0, 0, 1, 0]] = 0
    u -= u.mean(axis=1, keepdims=True) if metric == "categorical" else 0
    u[1] = 0  # its weight is 0

    def both(u):
        operator = linearised(stack, metric=METRICS[metric], weights=weights)
        b = operator.vjp(u)
        in_rows, outside = (solved(operator, g, 0.3) for g in (OutputGradient(u), ParameterGradient(b)))
        return in_rows, outside

    operator = linearised(stack, metric=METRICS[metric], weights=weights)
    b = operator.vjp(u).numpy()
    dense = block_diagonal(operator, layers_of(stack, False)) + 0.3 * np.eye(len(b))
    for value, image, result, norm in compiled(both, mode)(tf.constant(u)):
        np.testing.assert_allclose(value, np.linalg.solve(dense, b), rtol=1e-9, atol=1e-11)
        np.testing.assert_allclose(image, operator.row_matvec(value), atol=1e-11)
        assert result == Result.CONVERGED
        assert float(norm) == pytest.approx(np.linalg.norm(b), rel=1e-9)


def test_free_outputs_are_a_block():
    stack = network((3, 4, 2), free=1)
    operator = linearised(stack)
    b = np.random.default_rng(1).normal(size=operator.shape[0])
    value, *_ = solved(operator, ParameterGradient(tf.constant(b)), 0.2)
    dense = block_diagonal(operator, layers_of(stack, True)) + 0.2 * np.eye(len(b))
    np.testing.assert_allclose(value, np.linalg.solve(dense, b), rtol=1e-9)


def test_layers_beyond_dense_chains_are_blocks_too():
    inputs = KERAS.Input([6, 6, 2], dtype="float64")
    hidden = KERAS.Conv2D(3, 3, activation="tanh", dtype="float64")(inputs)
    hidden = KERAS.LayerNormalization(dtype="float64")(hidden)
    hidden = KERAS.Dense(5, "tanh", dtype="float64")(KERAS.Flatten(dtype="float64")(hidden))
    model = tf.keras.Model(inputs, KERAS.Dense(2, dtype="float64")(hidden))
    x = np.random.default_rng(2).normal(size=(4, 6, 6, 2))
    operator = GaussNewton(model, model.trainable_variables, x)
    b = np.random.default_rng(3).normal(size=operator.shape[0])
    value, *_ = solved(operator, ParameterGradient(tf.constant(b)), 0.1)
    dense = block_diagonal(operator, [[0, 1], [2, 3], [4, 5], [6, 7]]) + 0.1 * np.eye(len(b))
    np.testing.assert_allclose(value, np.linalg.solve(dense, b), rtol=1e-8, atol=1e-10)


def test_variables_of_a_plain_function_are_told_apart_by_name():
    first, second = tf.Variable([[1.0, 2.0]], name="first"), tf.Variable([0.5, 1.5], name="second")
    operator = GaussNewton(lambda x: tf.tanh(x @ first) * second, [first, second], tf.constant([[0.3], [0.7]]))
    b = tf.constant([1.0, -1.0, 2.0, 0.5])
    value, *_ = solved(operator, ParameterGradient(b), 0.5)
    dense = block_diagonal(operator, [[0], [1]]) + 0.5 * np.eye(4)
    np.testing.assert_allclose(value, np.linalg.solve(dense, b), rtol=1e-5)


def test_of_one_layer_it_is_the_dual_solver():
    stack = network((3, 2))
    operator, u = linearised(stack), np.random.default_rng(4).normal(size=(5, 2))
    expected = Dual(solver=Cholesky()).answer(operator, OutputGradient(tf.constant(u)), 0.3).solution.value
    np.testing.assert_allclose(solved(operator, OutputGradient(tf.constant(u)), 0.3)[0], expected, rtol=1e-10)


def test_unfinished_and_impossible_solves_are_reported():
    operator, u = linearised(network((3, 4, 2))), tf.ones([5, 2], tf.float64)
    one = BlockDual(solver=ConjugateGradient(max_iterations=1))
    value, _, result, _ = solved(operator, OutputGradient(u), 0.3, one)
    assert result == Result.MAX_ITERATIONS
    assert np.any(value)
    value, _, result, _ = solved(operator, ParameterGradient(operator.vjp(u)), 0.0)
    assert result == Result.BREAKDOWN
    assert not np.any(value)
    value, _, result, _ = solved(operator, OutputGradient(u * float("nan")), 0.3)
    assert result == Result.BREAKDOWN
    assert not np.any(value)


def test_optimizer_steps_with_it_and_serialises_it():
    stack, targets = network((3, 4, 2)), np.random.default_rng(6).normal(size=(5, 2))
    solver = tf.keras.utils.deserialize_keras_object(
        tf.keras.utils.serialize_keras_object(BlockDual(solver=ConjugateGradient(max_iterations=7)))
    )
    assert repr(solver) == repr(BlockDual(solver=ConjugateGradient(max_iterations=7)))
    optimizer = NaturalGradient(1.0, damping=0.1, solver=BlockDual())
    optimizer.build(stack.variables)
    losses = []
    for _ in range(30):
        operator = linearised(stack)
        error = operator.outputs - targets
        losses.append(float(tf.reduce_mean(error**2)))
        optimizer.apply_output_gradient(error / 5, operator, tf.reduce_mean(error**2) / 2)
    assert losses[-1] < 0.1 * losses[0]


def test_operator_without_rows_is_named():
    operator = tf.linalg.LinearOperatorDiag(tf.ones(3))
    with pytest.raises(TypeError, match="BlockDual needs an operator with row_blocks"):
        BlockDual().answer(operator, ParameterGradient(tf.ones(3)), 1.0)


@pytest.mark.parametrize("kind", [OutputGradient, ParameterGradient])
def test_nothing_is_picked_by_an_index_that_is_searched_for(kind):
    """Which XLA takes minutes to compile behind several solves of hundreds of rows."""
    stack = network((3, 4, 2))

    def value(u):
        operator = linearised(stack)
        return solved(
            operator, OutputGradient(u) if kind is OutputGradient else ParameterGradient(operator.vjp(u)), 0.3
        )

    traced = tf.function(value).get_concrete_function(tf.zeros([5, 2], tf.float64))
    assert {"ArgMin", "ArgMax"}.isdisjoint(op.type for op in traced.graph.get_operations())
