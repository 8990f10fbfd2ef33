"""Steps of `NaturalGradientModel` against hand-written ones with dense float64 matrices."""

import keras_problems as problems
import numpy as np
import pytest
import tensorflow as tf
from numpy_network import Problem, chain, hessians, one_hot, residual, split, start

from ngrl import optimizers, solvers

KERAS = tf.keras.losses
LOSSES = {
    "mse": ("mse", 2, None, False),
    "mse, K = 1": (KERAS.mean_squared_error, 1, None, False),
    "bce, sigmoid in the last Dense layer": ("binary_crossentropy", 2, "sigmoid", False),
    "bce, sigmoid layer": (KERAS.BinaryCrossentropy(), 1, "sigmoid", True),
    "bce, logits": (KERAS.BinaryCrossentropy(from_logits=True), 2, None, False),
    "cce, softmax in the last Dense layer": ("categorical_crossentropy", 3, "softmax", False),
    "cce, logits": (KERAS.CategoricalCrossentropy(from_logits=True), 3, None, False),
    "scce, softmax layer": ("sparse_categorical_crossentropy", 3, "softmax", True),
    "scce, logits": (KERAS.SparseCategoricalCrossentropy(from_logits=True), 3, None, False),
}
MODES = {
    "eager": {"run_eagerly": True},
    "xla": {"jit_compile": True},
    "several steps an execution": {"steps_per_execution": 2},
    "several steps an execution, xla": {"steps_per_execution": 3, "jit_compile": True},
}


def name_of(loss):
    name = loss if isinstance(loss, str) else getattr(loss, "name", None) or loss.__name__
    return "mse" if name == "mean_squared_error" else name


def train(model, optimizer, loss, batches, *, weighted=True, **options):
    model.compile(optimizer=optimizer, loss=loss, **options)
    return model.fit(problems.dataset(batches, weighted), steps_per_epoch=len(batches), verbose=0)


def expected(problem, batches, *, weighted=True, learning_rate=0.5, damping=0.1):
    theta = start(problem.num_outputs)
    for x, _, t, w in batches:
        weights = w if weighted else np.ones(len(x))
        theta = theta - learning_rate * problem.direction(theta, x, t, weights, damping)
    return theta


@pytest.mark.parametrize("case", LOSSES)
def test_fit_takes_the_dense_reference_steps(case):
    loss, num_outputs, activation, own_layer = LOSSES[case]
    batches = problems.data(name_of(loss), num_outputs)
    model = problems.build(num_outputs, activation, own_layer=own_layer)
    train(model, problems.exact(), loss, batches)
    reference = expected(Problem(name_of(loss), num_outputs), batches)
    np.testing.assert_allclose(problems.flat(model), reference, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("mode", MODES)
def test_steps_are_the_same_however_fit_runs_them(mode):
    loss = "sparse_categorical_crossentropy"
    batches = problems.data(loss, 3, batch=(4, 4, 4))
    model = problems.build(3, "softmax")
    train(model, problems.exact(), loss, batches, weighted=False, **MODES[mode])
    reference = expected(Problem(loss, 3), batches, weighted=False)
    np.testing.assert_allclose(problems.flat(model), reference, rtol=1e-8, atol=1e-10)
    assert int(model.optimizer.iterations) == len(batches)


@pytest.mark.parametrize(
    ("solver", "jit_compile"),
    [(None, False), (None, True), (solvers.Cholesky(), False)],
    ids=["dual", "dual, xla", "primal"],
)
def test_networks_that_are_no_chain_take_the_same_steps(solver, jit_compile):
    batches = problems.data("categorical_crossentropy", 3, batch=(4, 4))
    model = problems.build(3, "softmax", is_chain=False)
    train(model, problems.exact(solver=solver), "categorical_crossentropy", batches, jit_compile=jit_compile)
    reference = expected(Problem("categorical_crossentropy", 3, residual), batches)
    np.testing.assert_allclose(problems.flat(model), reference, rtol=1e-8, atol=1e-10)


def test_frozen_layers_stay_and_the_others_take_their_own_steps():
    """The step of the last layer alone: linear least squares with the hidden layer's values as features."""
    ((x, _, t, w),) = batches = problems.data("mse", 2, batch=(6,))
    model = problems.build(2)
    model.layers[1].trainable = False
    before = model.get_weights()
    train(model, problems.exact(), "mse", batches)
    after = model.get_weights()
    for index in (0, 1):
        np.testing.assert_array_equal(before[index], after[index])
    features = np.hstack([np.tanh(x @ before[0] + before[1]), np.ones((6, 1))])
    last = np.vstack([before[2], before[3]])
    matrix = (features.T * w) @ features / 6  # 2/K = 1
    step = np.linalg.solve(matrix + 0.1 * np.eye(5), (features.T * w) @ (features @ last - t) / 6)
    np.testing.assert_allclose(np.vstack(after[2:]), last - 0.5 * step, rtol=1e-8)


def test_undamped_unit_step_solves_the_weighted_regression_of_a_linear_model():
    ((x, _, t, w),) = batches = problems.data("mse", 2, batch=(9,))
    inputs = tf.keras.Input([3], dtype="float64")
    model = problems.NaturalGradientModel(inputs, tf.keras.layers.Dense(2, dtype="float64")(inputs))
    train(model, problems.exact(1.0, 0.0, solvers.Cholesky()), "mse", batches)
    features = np.hstack([x, np.ones((9, 1))]) * np.sqrt(w)[:, None]
    solution, *_ = np.linalg.lstsq(features, t * np.sqrt(w)[:, None], rcond=None)
    np.testing.assert_allclose(np.vstack(model.get_weights()), solution, rtol=1e-9)


@pytest.mark.parametrize("loss_weights", [None, [0.25]])
def test_summed_losses_and_loss_weights_scale_loss_and_curvature_alike(loss_weights):
    batches = problems.data("binary_crossentropy", 2)
    loss = KERAS.BinaryCrossentropy(reduction="sum")
    model = problems.build(2, "sigmoid")
    train(model, problems.exact(), loss, batches, loss_weights=loss_weights)
    factor = 1.0 if loss_weights is None else loss_weights[0]
    scaled = [(x, y, t, factor * w) for x, y, t, w in batches]
    reference = expected(Problem("binary_crossentropy", 2, sums=True), scaled)
    np.testing.assert_allclose(problems.flat(model), reference, rtol=1e-8, atol=1e-10)


def test_class_weights_are_sample_weights():
    batches = problems.data("sparse_categorical_crossentropy", 3)
    by_class, by_sample = problems.build(3, "softmax"), problems.build(3, "softmax")
    class_weight = {0: 0.5, 1: 2.0, 2: 1.0}
    weighted = [(x, y, t, np.array([class_weight[label] for label in y])) for x, y, t, _ in batches]
    train(by_sample, problems.exact(), "sparse_categorical_crossentropy", weighted)
    by_class.compile(problems.exact(), "sparse_categorical_crossentropy")
    by_class.fit(problems.dataset(batches, weighted=False), class_weight=class_weight, verbose=0)
    # Keras makes class weights float32.
    np.testing.assert_allclose(problems.flat(by_class), problems.flat(by_sample), rtol=1e-6)


@pytest.mark.parametrize("jit_compile", [False, True])
def test_levenberg_marquardt_follows_the_measured_reduction(jit_compile):
    batches = problems.data("mse", 2, batch=(6, 6, 6, 6))
    rule = optimizers.LevenbergMarquardt(initial=0.3, increase=3.0, decrease=0.5)
    model = problems.build(2)
    history = train(model, problems.exact(1.0, rule), "mse", batches, jit_compile=jit_compile)
    problem, theta, damping, used, ratios = Problem("mse", 2), start(2), 0.3, [], []
    for x, _, t, w in batches:
        step = -problem.direction(theta, x, t, w, damping)
        gradient, curvature = problem.gradient(theta, x, t, w), problem.curvature(theta, x, t, w)
        predicted = gradient @ step + 0.5 * step @ curvature @ step
        ratios.append((problem.value(theta + step, x, t, w) - problem.value(theta, x, t, w)) / predicted)
        used.append(damping)
        damping *= 3.0 if ratios[-1] < 0.25 else 0.5 if ratios[-1] > 0.75 else 1.0
        theta = theta + step
    assert len(set(used)) > 1
    np.testing.assert_allclose(problems.flat(model), theta, rtol=1e-7, atol=1e-9)
    np.testing.assert_allclose(float(model.optimizer.damping), damping, rtol=1e-9)
    np.testing.assert_allclose(history.history["reduction_ratio"], ratios[-1:], rtol=1e-5)
    np.testing.assert_allclose(history.history["damping"], used[-1:], rtol=1e-6)


def l2_and_activity(theta, x):
    """What the regularisers below add: 0.02 ‖W₁‖² and, as Keras takes it, 0.03 Σ h²/B."""
    w, b, *_ = split(theta, 2)
    return 0.02 * np.sum(w * w) + 0.03 * np.sum(np.tanh(x @ w + b) ** 2) / len(x)


@pytest.mark.parametrize(
    ("solver", "options"),
    [(None, {"jit_compile": True}), (None, {}), (solvers.Cholesky(), {"run_eagerly": True})],
    ids=["dual, xla", "dual", "primal, eager"],
)
def test_regularisers_count_in_the_loss_and_its_gradient(solver, options):
    rule = optimizers.LevenbergMarquardt(initial=0.3)
    regularisers = {
        "kernel_regularizer": tf.keras.regularizers.L2(0.02),
        "activity_regularizer": tf.keras.regularizers.L2(0.03),
    }
    batches = problems.data("mse", 2, batch=(6, 6))
    model = problems.build(2, **regularisers)
    history = train(model, problems.exact(0.5, rule, solver), "mse", batches, **options)
    problem, theta, losses = Problem("mse", 2, penalty=l2_and_activity), start(2), []
    damping = 0.3
    for x, _, t, w in batches:
        step = -0.5 * problem.direction(theta, x, t, w, damping)
        predicted = problem.gradient(theta, x, t, w) @ step + 0.5 * step @ problem.curvature(theta, x, t, w) @ step
        losses.append(problem.value(theta, x, t, w))
        ratio = (problem.value(theta + step, x, t, w) - losses[-1]) / predicted
        damping *= 1.5 if ratio < 0.25 else 2 / 3 if ratio > 0.75 else 1.0
        theta = theta + step
    np.testing.assert_allclose(problems.flat(model), theta, rtol=1e-7, atol=1e-9)
    np.testing.assert_allclose(history.history["reduction_ratio"], [ratio], rtol=1e-5)
    np.testing.assert_allclose(history.history["loss"], [np.mean(losses)], rtol=1e-6)


def test_a_regulariser_of_zero_gives_the_same_steps_by_the_other_way():
    batches = problems.data("mse", 2)
    plain, zero = problems.build(2), problems.build(2, kernel_regularizer=tf.keras.regularizers.L2(0.0))
    train(plain, problems.exact(), "mse", batches)
    train(zero, problems.exact(), "mse", batches)
    np.testing.assert_allclose(problems.flat(plain), problems.flat(zero), rtol=1e-9)


@pytest.mark.parametrize("loss", ["mse", "binary_crossentropy", "categorical_crossentropy"])
def test_line_search_keeps_the_measured_divergence_within_max_kl(loss):
    """The divergence that `kl` predicts: (1/K) Σ (Δy)² for mse, mean KL(p_old ‖ p_new) for crossentropies."""
    ((x, _, _, _),) = batches = problems.data(loss, 3, batch=(8,))
    model = problems.build(3, problems.ACTIVATION.get(loss))
    before, old = model.get_weights(), chain(start(3), x, 3)
    optimizer = problems.exact(None, 1e-3, max_kl=0.05, line_search=optimizers.BacktrackingLineSearch())
    logs = train(model, optimizer, loss, batches, weighted=False).history
    new = chain(problems.flat(model), x, 3)
    if loss == "mse":
        divergence = np.mean((new - old) ** 2)
    elif loss == "binary_crossentropy":
        p, q = 1 / (1 + np.exp(-old)), 1 / (1 + np.exp(-new))
        divergence = np.mean(p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q)))
    else:
        p, q = (np.exp(y) / np.exp(y).sum(1, keepdims=True) for y in (old, new))
        divergence = np.mean(np.sum(p * np.log(p / q), axis=1))
    assert not np.array_equal(before[0], model.get_weights()[0])
    np.testing.assert_allclose(logs["line_search_kl"], [divergence], rtol=1e-5)
    assert divergence <= 0.05
    assert logs["predicted_kl"][0] == pytest.approx(0.05 * 0.25 ** logs["backtracks"][0], rel=1e-5)


@pytest.mark.parametrize("jit_compile", [False, True])
def test_saturated_probabilities_keep_their_gradient(jit_compile):
    """In float32 σ(±60) is 0 or 1, and a metric of probabilities would see nothing to learn from."""
    inputs = tf.keras.Input([1])
    model = problems.NaturalGradientModel(inputs, tf.keras.layers.Dense(1, "sigmoid", use_bias=False)(inputs))
    model.set_weights([np.array([[60.0]])])
    model.compile(problems.exact(1.0, 0.5), "binary_crossentropy", jit_compile=jit_compile)
    model.fit(np.array([[1.0], [-1.0]]), np.array([0.0, 1.0]), verbose=0)
    # Both wrong: g = 1, and F = p (1 − p) is nothing beside λ, so that the step is 1/λ.
    np.testing.assert_allclose(model.get_weights()[0], [[58.0]], rtol=1e-6)


@pytest.mark.parametrize("loss", ["binary_crossentropy", "sparse_categorical_crossentropy"])
def test_a_hopelessly_wrong_example_leaves_the_others_their_say(loss):
    """With p = e⁻¹⁰⁰ its coefficients in the rows of √M J would be 1e21, whose square overflows."""
    draw = np.random.default_rng(4)
    kernel, x = draw.normal(size=(3, 3)), draw.normal(size=(6, 3))
    kernel[0], x[:, 0], x[0] = [100.0, 0.0, -100.0], 0.01, [1.0, 0.0, 0.0]
    labels = np.array([2, 0, 1, 2, 0, 1])
    t = one_hot(labels, 3)
    inputs = tf.keras.Input([3])
    model = problems.NaturalGradientModel(
        inputs, tf.keras.layers.Dense(3, problems.ACTIVATION[loss], use_bias=False)(inputs)
    )
    model.set_weights([kernel])
    model.compile(optimizers.NaturalGradient(1.0, damping=0.01), loss)
    history = model.fit(x, labels if loss.startswith("sparse") else t, batch_size=6, verbose=0).history
    assert history["skipped_updates"] == [0]
    y = x @ kernel
    hessian = hessians(loss, t, y)
    curvature = np.einsum("bi,bkl,bj->ikjl", x, hessian, x).reshape(9, 9) / 6
    p = 1 / (1 + np.exp(-y)) / 3 if loss == "binary_crossentropy" else np.exp(y) / np.exp(y).sum(1, keepdims=True)
    gradient = x.T @ (p - (t / 3 if loss == "binary_crossentropy" else t)) / 6
    step = np.linalg.solve(curvature + 0.01 * np.eye(9), gradient.ravel()).reshape(3, 3)
    np.testing.assert_allclose(model.get_weights()[0], kernel - step, rtol=1e-4, atol=5e-3)


def test_rows_of_zeros_as_padding_count_for_nothing():
    ((x, y, t, _),) = problems.data("categorical_crossentropy", 3, batch=(6,))
    padded, plain = problems.build(3, "softmax"), problems.build(3, "softmax")
    y = np.concatenate([y[:4], np.zeros((2, 3))])
    train(padded, problems.exact(solver=solvers.Cholesky()), "categorical_crossentropy", [(x, y, t, np.ones(6))])
    weights = np.array([1, 1, 1, 1, 0, 0.0])
    train(plain, problems.exact(), "categorical_crossentropy", [(x, t, t, weights)])
    np.testing.assert_allclose(problems.flat(padded), problems.flat(plain), rtol=1e-9)
