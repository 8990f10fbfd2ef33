"""The losses of `ngrl.keras.losses` against Keras' own values and automatic derivatives, and what is refused."""

import keras_problems as problems
import numpy as np
import pytest
import tensorflow as tf

from ngrl.keras import losses

KERAS = tf.keras.losses
KINDS = {
    "mse": KERAS.MeanSquaredError,
    "binary_crossentropy": KERAS.BinaryCrossentropy,
    "categorical_crossentropy": KERAS.CategoricalCrossentropy,
    "sparse_categorical_crossentropy": KERAS.SparseCategoricalCrossentropy,
}
SETTINGS = {
    "mse": [{}, {"reduction": "sum"}],
    "binary_crossentropy": [{}, {"label_smoothing": 0.2}],
    "categorical_crossentropy": [{}, {"label_smoothing": 0.3, "reduction": "sum"}],
    "sparse_categorical_crossentropy": [{}],
}
CASES = [(name, settings) for name, several in SETTINGS.items() for settings in several]


def example(name, num_outputs=3, batch=5):
    """Keras' loss, our objective, Keras' targets, weights and outputs (logits)."""
    ((_, y, _, w),) = problems.data(name, num_outputs, batch=(batch,))
    outputs = tf.constant(2 * np.random.default_rng(3).normal(size=(batch, num_outputs)))
    return tf.constant(y), tf.constant(w), outputs


def both(name, settings):
    logits = {} if name == "mse" else {"from_logits": True}
    loss = KINDS[name](**settings, **logits)
    return loss, losses.from_keras(loss)


def evaluate(objective, y, w, outputs):
    targets = objective.loss.targets(y, outputs.shape[1], outputs.dtype)
    return targets, objective.weights(w, targets)


@pytest.mark.parametrize(("name", "settings"), CASES)
def test_values_and_gradients_are_those_of_keras(name, settings):
    y, w, outputs = example(name)
    keras, objective = both(name, settings)
    targets, weights = evaluate(objective, y, w, outputs)
    with tf.GradientTape() as tape:
        tape.watch(outputs)
        reference = keras(y, outputs, sample_weight=w)
    np.testing.assert_allclose(objective.value(targets, weights, outputs), reference, rtol=1e-12)
    gradient = tape.gradient(reference, outputs)
    np.testing.assert_allclose(objective.gradient(targets, weights, outputs), gradient, rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize(("name", "settings"), CASES)
def test_metric_is_the_hessian_of_keras_loss(name, settings):
    y, w, outputs = example(name, batch=4)
    keras, objective = both(name, settings)
    targets, weights = evaluate(objective, y, w, outputs)
    with tf.GradientTape(persistent=True) as outer:
        outer.watch(outputs)
        with tf.GradientTape() as inner:
            inner.watch(outputs)
            loss = keras(y, outputs, sample_weight=w)
        gradient = inner.gradient(loss, outputs)
    hessian = outer.jacobian(gradient, outputs, experimental_use_pfor=False)  # [B, K, B, K]
    per_example = np.stack([hessian[i, :, i, :] for i in range(4)])
    metric = objective.metric(targets, weights)
    columns = [metric.matvec(outputs, tf.tile(tf.eye(3, dtype=tf.float64)[k : k + 1], [4, 1])) for k in range(3)]
    np.testing.assert_allclose(np.stack(columns, axis=-1) / 4, per_example, atol=1e-12)


@pytest.mark.parametrize("name", KINDS)
def test_weighted_factors_reproduce_the_metric_and_invert_on_its_range(name):
    y, w, outputs = example(name)
    _, objective = both(name, {})
    metric = objective.metric(*evaluate(objective, y, w, outputs))
    factor = metric.factor(outputs).numpy()  # Lᵀ [B, R, K]
    draw = np.random.default_rng(5)
    vector, rows = draw.normal(size=(5, 3)), draw.normal(size=factor.shape[:2])
    product = np.einsum("brk,brl,bl->bk", factor, factor, vector)
    np.testing.assert_allclose(metric.matvec(outputs, tf.constant(vector)), product, atol=1e-12)
    np.testing.assert_allclose(
        metric.factor_matvec(outputs, tf.constant(rows)), np.einsum("brk,br->bk", factor, rows), atol=1e-12
    )
    np.testing.assert_allclose(
        metric.factor_rmatvec(outputs, tf.constant(vector)), np.einsum("brk,bk->br", factor, vector), atol=1e-12
    )
    solved = metric.factor_solve(outputs, tf.constant(product)).numpy()
    shortest = np.stack([np.linalg.pinv(one.T, rcond=1e-9) @ u for one, u in zip(factor, product, strict=True)])
    np.testing.assert_allclose(solved, shortest, atol=1e-10)


@pytest.mark.parametrize("name", KINDS)
def test_divergence_is_half_the_quadratic_form_to_second_order(name):
    y, w, outputs = example(name)
    _, objective = both(name, {})
    targets, weights = evaluate(objective, y, w, outputs)
    direction = tf.constant(np.random.default_rng(6).normal(size=(5, 3)))
    product = objective.metric(targets, weights).matvec(outputs, direction)
    form = 0.5 * np.sum(direction * product) / 5
    small = 1e-4
    found = objective.divergence(targets, weights, outputs, outputs + small * direction) / small**2
    np.testing.assert_allclose(found, form, rtol=1e-3)


@pytest.mark.parametrize("rows", [[[0.0, 0.0, 0.0]], [[1.0, 1.0, 0.0]]], ids=["none", "two classes"])
def test_gradient_for_targets_that_are_no_distribution_is_that_of_the_loss(rows):
    """TensorFlow's softmax kernel would answer p − t."""
    outputs = tf.constant([[0.3, -1.0, 2.0]], tf.float64)
    objective = losses.from_keras(KERAS.CategoricalCrossentropy(from_logits=True))
    targets, weights = evaluate(objective, rows, None, outputs)
    with tf.GradientTape() as tape:
        tape.watch(outputs)
        p = tf.exp(outputs) / tf.reduce_sum(tf.exp(outputs))
        reference = -tf.reduce_sum(rows * tf.math.log(p))
    np.testing.assert_allclose(objective.value(targets, weights, outputs), reference, rtol=1e-12)
    np.testing.assert_allclose(
        objective.gradient(targets, weights, outputs), tape.gradient(reference, outputs), atol=1e-12
    )


def test_class_index_out_of_range_makes_the_loss_nan():
    objective = losses.from_keras(KERAS.SparseCategoricalCrossentropy(from_logits=True))
    outputs = tf.zeros([2, 3])
    for wrong in (3, -1):
        targets, weights = evaluate(objective, [0, wrong], None, outputs)
        assert np.isnan(objective.value(targets, weights, outputs))


def test_names_functions_and_single_item_collections_mean_the_same():
    expected = losses.from_keras("mse")
    for loss in ("mean_squared_error", KERAS.mean_squared_error, KERAS.MeanSquaredError(), ["mse"], {"out": "MSE"}):
        assert losses.from_keras(loss) == expected


@pytest.mark.parametrize(
    ("loss", "weights", "message"),
    [
        (None, None, "exactly one loss"),
        (["mse", "mse"], None, "exactly one loss"),
        ("mae", None, "doesn't know the curvature of the loss 'mae'"),
        (KERAS.Huber(), None, "doesn't know the curvature"),
        (lambda y, p: p, None, "doesn't know the curvature"),
        (type("Mine", (KERAS.MeanSquaredError,), {})(), None, "doesn't know the curvature"),
        (KERAS.MeanSquaredError(reduction="none"), None, "'sum_over_batch_size', or 'sum'"),
        (KERAS.BinaryCrossentropy(axis=0), None, "along the last axis"),
        (KERAS.SparseCategoricalCrossentropy(ignore_class=0), None, "sample weight 0"),
        ("mse", [1.0, 2.0], "loss_weights must be"),
        ("mse", -1.0, "loss_weights must be"),
    ],
)
def test_losses_that_cannot_be_used_are_refused(loss, weights, message):
    with pytest.raises(ValueError, match=message):
        losses.from_keras(loss, weights)


@pytest.mark.parametrize(
    ("name", "targets", "message"),
    [
        ("mse", np.zeros(5), r"shape \[B, 3\]"),
        ("mse", np.zeros((5, 1)), r"shape \[B, 3\]"),
        ("categorical_crossentropy", np.zeros(5, int), "use the loss 'sparse_categorical_crossentropy'"),
        ("sparse_categorical_crossentropy", np.zeros((5, 3)), "use the loss 'categorical_crossentropy'"),
    ],
)
def test_targets_of_another_shape_are_refused(name, targets, message):
    with pytest.raises(ValueError, match=message):
        losses.from_keras(name).loss.targets(targets, 3, tf.float32)


def test_sample_weights_of_another_shape_and_negative_ones_are_refused():
    objective, targets = losses.from_keras("mse"), tf.zeros([4, 2])
    for wrong in (np.ones(3), np.ones((4, 2))):
        with pytest.raises(ValueError, match="one for each example"):
            objective.weights(wrong, targets)
    np.testing.assert_array_equal(objective.weights([[1], [2], [3], [4]], targets), [1, 2, 3, 4])
    with pytest.raises(tf.errors.InvalidArgumentError, match="at least 0"):
        objective.weights([1.0, 1.0, 1.0, -1.0], targets)
