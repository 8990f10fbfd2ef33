"""Kronecker factors of shared weights against loops over positions, and cases in which they are exact."""

import numpy as np
import pytest
import tensorflow as tf

from ngrl.curvature import Categorical, GaussNewton, KroneckerFactored, SquaredError
from ngrl.solvers import Kfac, OutputGradient

KERAS = tf.keras.layers
SHARINGS = ["expand", "reduce"]


def keras_model(shape, *layers):
    tf.keras.utils.set_random_seed(3)
    model = tf.keras.Sequential([tf.keras.Input(shape, dtype="float64"), *layers])
    rng = np.random.default_rng(3)
    model.set_weights([rng.normal(size=w.shape) / 2 for w in model.get_weights()])
    return model


def linearised(model, batch=4, metric=None, weights=None, seed=1):
    inputs = np.random.default_rng(seed).normal(size=(batch, *model.input_shape[1:]))
    return GaussNewton(model, model.trainable_variables, inputs, metric, weights=weights), inputs


def convolution(**options):
    """tanh(Conv) and a Dense layer for two outputs."""
    conv = KERAS.Conv2D(3, (2, 3), activation="tanh", dtype="float64", **options)
    return keras_model((5, 6, 2), conv, KERAS.Flatten(dtype="float64"), KERAS.Dense(2, dtype="float64"))


def looped(model, inputs, weights, factor, strides=(1, 1)):
    """ā [B, p, d̄] and g [B, R, p, m] of a valid convolution by loops over positions; factor [B, R, K] is L_iᵀ."""
    kernel, bias, dense, _ = (weight.astype(np.float64) for weight in model.get_weights())
    height, width, _, filters = kernel.shape
    patches = []
    for top in range(0, inputs.shape[1] - height + 1, strides[0]):
        for left in range(0, inputs.shape[2] - width + 1, strides[1]):
            patches.append([x[top : top + height, left : left + width].ravel() for x in inputs])
    a = np.transpose(np.array(patches), [1, 0, 2])
    slope = 1 - np.tanh(a @ kernel.reshape(-1, filters) + bias) ** 2
    by_output = dense.reshape(a.shape[1], filters, -1)
    g = np.zeros((*factor.shape[:2], a.shape[1], filters))
    for i, r, p in np.ndindex(*g.shape[:3]):
        g[i, r, p] = np.sqrt(weights[i]) * slope[i, p] * (by_output[p] @ factor[i, r])
    return np.concatenate([a, np.ones((*a.shape[:2], 1))], axis=2), g


@pytest.mark.parametrize("strides", [(1, 1), (2, 3)])
@pytest.mark.parametrize("metric", [SquaredError(), Categorical()], ids=["squared", "categorical"])
def test_factors_of_a_convolution_are_those_of_loops_over_its_positions(metric, strides):
    model = convolution(strides=strides)
    given = np.array([0.5, 1.0, 2.0, 0.1])
    operator, inputs = linearised(model, metric=metric, weights=given)
    weights = given / given.sum()
    a, g = looped(model, inputs, weights, metric.factor(operator.outputs).numpy(), strides)
    layer = operator.kronecker_layers().layers[0]
    positions = a.shape[1]
    expanded, reduced = np.zeros((2, a.shape[2], a.shape[2]))
    derivatives, summed = np.zeros((2, 3, 3))
    for i in range(len(a)):
        reduced += weights[i] * np.outer(a[i].mean(axis=0), a[i].mean(axis=0))
        for p in range(positions):
            expanded += weights[i] / positions * np.outer(a[i, p], a[i, p])
        for r in range(g.shape[1]):
            summed += np.outer(g[i, r].sum(axis=0), g[i, r].sum(axis=0))
            for p in range(positions):
                derivatives += np.outer(g[i, r, p], g[i, r, p])
    for sharing, expected in (("expand", (expanded, derivatives)), ("reduce", (reduced, summed))):
        np.testing.assert_allclose(layer.input_factor(sharing), expected[0], rtol=1e-10, atol=1e-12)
        np.testing.assert_allclose(layer.derivative_factor(sharing), expected[1], rtol=1e-10, atol=1e-12)


def dense_over_time(last, units=2):
    return keras_model((3, 4), KERAS.Dense(units, dtype="float64"), last)


@pytest.mark.parametrize(
    ("sharing", "last"),
    [
        ("expand", lambda: KERAS.Flatten(dtype="float64")),
        ("reduce", lambda: KERAS.GlobalAveragePooling1D(dtype="float64")),
        ("reduce", lambda: KERAS.Lambda(lambda z: tf.reduce_sum(z, axis=1), dtype="float64")),
    ],
    ids=["every position an output", "mean over positions", "sum over positions"],
)
def test_sharing_is_exact_for_a_linear_layer_with_outputs_of_its_setting(sharing, last):
    operator, _ = linearised(dense_over_time(last()))
    expected = operator.to_dense().numpy()
    layers = operator.kronecker_layers()
    np.testing.assert_allclose(KroneckerFactored(layers, sharing).to_dense(), expected, rtol=1e-10, atol=1e-12)
    other = SHARINGS[1 - SHARINGS.index(sharing)]
    assert np.abs(KroneckerFactored(layers, other).to_dense() - expected).max() > 1e-3
    gradient = np.random.default_rng(5).normal(size=len(expected))
    solution = Kfac(inverse="exact", sharing=sharing)(operator, gradient, 0.3).value
    np.testing.assert_allclose(solution, np.linalg.solve(expected + 0.3 * np.eye(len(expected)), gradient), rtol=1e-9)


NETWORKS = {
    "conv": convolution,
    "same padding, dilated": lambda: convolution(padding="same", dilation_rate=2),
    "conv1d": lambda: keras_model(
        (6, 2),
        KERAS.Conv1D(3, 2, padding="causal", activation="relu", use_bias=False, dtype="float64"),
        KERAS.Flatten(dtype="float64"),
        KERAS.Dense(2, dtype="float64"),
    ),
    "lstm": lambda: keras_model((3, 2), KERAS.LSTM(2, dtype="float64"), KERAS.Dense(2, dtype="float64")),
    "gru": lambda: keras_model((3, 2), KERAS.GRU(2, dtype="float64"), KERAS.Dense(2, dtype="float64")),
    "normalised": lambda: keras_model(
        (3,),
        KERAS.Dense(4, dtype="float64"),
        KERAS.LayerNormalization(dtype="float64"),
        KERAS.ReLU(dtype="float64"),
        KERAS.Dense(2, dtype="float64"),
    ),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_rows_and_ekfac_s_diagonal_are_those_of_the_exact_fisher(name):
    operator, _ = linearised(NETWORKS[name](), metric=Categorical())
    layers = operator.kronecker_layers()
    vector = np.random.default_rng(2).normal(size=operator.shape[0])
    np.testing.assert_allclose(layers.row_matvec(tf.constant(vector)), operator.row_matvec(vector), rtol=1e-9)
    matrices, vectors = layers.split(tf.constant(vector))
    np.testing.assert_array_equal(layers.join(matrices, vectors), vector)
    rows = operator.row_matrix().numpy()
    # The parameters' places in the order of the blocks: kernel row by row, then the bias.
    order = [part.numpy().ravel().astype(int) for part in (layers.split(tf.range(len(vector)))[0])]
    for layer, own in zip(layers.layers, order, strict=True):
        basis = np.kron(*(np.linalg.eigh(f)[1] for f in (layer.input_factor(), layer.derivative_factor())))
        expected = np.square(rows[:, own] @ basis).sum(axis=0)
        bases = [tf.linalg.eigh(f)[1] for f in (layer.input_factor(), layer.derivative_factor())]
        np.testing.assert_allclose(layer.second_moments(*bases).numpy().ravel(), expected, rtol=1e-8, atol=1e-14)
    for block in layers.exact:
        own = layers.split(tf.range(len(vector)))[1][layers.exact.index(block)].numpy()
        np.testing.assert_allclose(block.factor(), (rows.T @ rows)[np.ix_(own, own)], rtol=1e-9, atol=1e-14)


@pytest.mark.parametrize("mode", ["eager", "xla"])
@pytest.mark.parametrize("name", ["conv", "lstm", "gru", "normalised"])
def test_optimizer_s_slots_are_those_that_the_layers_need(name, mode):
    """The slots are made from variables alone, before any layer is seen."""
    model = NETWORKS[name]()
    solver = Kfac()
    state = solver.slots(model.trainable_variables)

    def step(state):
        operator, _ = linearised(model)
        answer = solver.answer(operator, OutputGradient(tf.ones([4, 2], tf.float64)), 0.1, state)
        return answer.solution.value, answer.state

    value, after = step(state) if mode == "eager" else tf.function(step, jit_compile=True)(state)
    assert np.all(np.isfinite(value))
    assert np.any(value)
    assert {key: tuple(value.shape) for key, value in after.items()} == {k: tuple(v.shape) for k, v in state.items()}
    left = [key for key in after if key != "count" and not np.any(after[key])]
    assert not left, "slots that nothing was written to"


@pytest.mark.parametrize(
    ("layer", "name"),
    [
        (lambda: KERAS.DepthwiseConv2D(2, dtype="float64"), "depthwise_kernel"),
        (lambda: KERAS.Conv2DTranspose(3, 2, dtype="float64"), "conv2d_transpose"),
        (lambda: KERAS.Conv2D(4, 2, groups=2, dtype="float64"), "conv2d"),
        (lambda: KERAS.PReLU(dtype="float64"), "p_re_lu"),
    ],
    ids=["depthwise", "transposed", "grouped", "no rule"],
)
def test_a_layer_without_a_kronecker_rule_is_named_with_what_to_use_instead(layer, name):
    model = keras_model((4, 4, 2), layer(), KERAS.Flatten(dtype="float64"), KERAS.Dense(2, dtype="float64"))
    operator, _ = linearised(model)
    with pytest.raises(TypeError, match=rf"no rule for the use of .*{name}.*Dual\(\)"):
        operator.kronecker_layers()
