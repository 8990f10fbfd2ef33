"""Adam's direction within the natural gradient's trust region."""

import numpy as np
import pytest
import tensorflow as tf

from ngrl.curvature import GaussNewton, LayeredNetwork, SquaredError, flatten
from ngrl.optimizers import NaturalGradient
from ngrl.solvers import AdamDirection, ParameterGradient, Result

INPUTS = np.random.default_rng(0).normal(size=(9, 4))
TARGETS = np.random.default_rng(1).normal(size=(5, 9, 1))


def layer():
    made = tf.keras.layers.Dense(1, dtype=tf.float64, kernel_initializer="ones")
    made.build([None, 4])
    return made


def gradient(model, target):
    operator = GaussNewton(model, model.trainable_variables, tf.constant(INPUTS), SquaredError())
    return (operator.outputs - target) / len(INPUTS), operator


@pytest.mark.parametrize("jit_compile", [False, True], ids=["graph", "xla"])
def test_steps_without_a_bound_are_those_of_keras_adam(jit_compile):
    options = {"beta_1": 0.8, "beta_2": 0.95, "epsilon": 1e-5}
    ours, keras = layer(), layer()
    natural = NaturalGradient(0.1, solver=AdamDirection(**options))
    natural.build(ours.trainable_variables)
    adam = tf.keras.optimizers.Adam(0.1, **options)
    adam.build(keras.trainable_variables)
    take = tf.function(lambda target: natural.apply_output_gradient(*gradient(ours, target)), jit_compile=jit_compile)
    for target in TARGETS:
        take(tf.constant(target))
        with tf.GradientTape() as tape:
            loss = 0.5 * tf.reduce_mean(tf.square(keras(INPUTS) - target))
        adam.apply_gradients(
            zip(tape.gradient(loss, keras.trainable_variables), keras.trainable_variables, strict=True)
        )
        # Keras puts ε beside another root: √v̂ + ε √(1 − β₂ᵗ) … within what ε can change
        np.testing.assert_allclose(ours.kernel, keras.kernel, rtol=1e-3)


def test_step_is_shortened_until_half_the_mean_squared_change_of_the_outputs_is_the_radius():
    free, bound = layer(), layer()
    before = free(INPUTS).numpy()
    NaturalGradient(0.1, solver=AdamDirection()).apply_output_gradient(*gradient(free, TARGETS[0]))
    wanted = 0.5 * np.mean((free(INPUTS).numpy() - before) ** 2)
    for max_kl, expected in ((0.1 * wanted, 0.1 * wanted), (10 * wanted, wanted)):
        bound = layer()
        optimizer = NaturalGradient(0.1, solver=AdamDirection(), max_kl=max_kl)
        stats = optimizer.apply_output_gradient(*gradient(bound, TARGETS[0]))
        np.testing.assert_allclose(0.5 * np.mean((bound(INPUTS).numpy() - before) ** 2), expected, rtol=1e-9)
        np.testing.assert_allclose(stats.predicted_kl, expected, rtol=1e-6)
        free_step, step = (each.kernel.numpy() - 1 for each in (free, bound))
        np.testing.assert_allclose(step / np.linalg.norm(step), free_step / np.linalg.norm(free_step), rtol=1e-9)


def test_a_skipped_step_leaves_the_means_as_they_are():
    model, optimizer = layer(), NaturalGradient(0.1, solver=AdamDirection())
    optimizer.apply_output_gradient(*gradient(model, TARGETS[0]))
    kept = [value.numpy() for value in optimizer.variables]
    output_gradient, operator = gradient(model, TARGETS[1])
    assert optimizer.apply_output_gradient(output_gradient * np.nan, operator).skipped == 1
    for value, before in zip(optimizer.variables, kept, strict=True):
        np.testing.assert_array_equal(value, before)


def test_a_network_without_rows_is_bounded_by_products_alone():
    norm = tf.keras.layers.BatchNormalization(dtype=tf.float64)
    model = tf.keras.Sequential(
        [tf.keras.Input([4], dtype=tf.float64), tf.keras.layers.Dense(3, dtype=tf.float64), norm]
    )
    variables = model.trainable_variables
    operator = GaussNewton(LayeredNetwork(lambda x: model(x, training=True), model), variables, tf.constant(INPUTS))
    before = [tf.identity(variable) for variable in variables]
    optimizer = NaturalGradient(None, solver=AdamDirection(), max_kl=0.01)
    stats = optimizer.apply_output_gradient(operator.outputs - TARGETS[0], operator)
    change = flatten(variables) - flatten(before)
    for variable, value in zip(variables, before, strict=True):
        variable.assign(value)
    np.testing.assert_allclose(0.5 * tf.tensordot(change, operator.matvec(change), 1), 0.01, rtol=1e-6)
    np.testing.assert_allclose(stats.predicted_kl, 0.01, rtol=1e-6)


def test_a_gradient_that_is_no_number_is_a_breakdown():
    model = layer()
    _, operator = gradient(model, TARGETS[0])
    solution = (
        AdamDirection().answer(operator, ParameterGradient(tf.constant([1.0, np.nan, 1, 1, 1], tf.float64))).solution
    )
    assert solution.result == Result.BREAKDOWN
    assert not np.any(solution.value)
