"""Every rule against the Jacobian that a tape builds output by output, in float64; networks of many layers."""

import functools

import numpy as np
import pytest
import tensorflow as tf

from ngrl.curvature import GaussNewton, SquaredError
from ngrl.curvature.rules import convolution
from ngrl.patches import extract_columns, extract_patches

B = 4
CHOSEN = SquaredError(chosen=[0, 2, 1, 1])
KERAS = tf.keras.layers


def f64(kind):
    return functools.partial(kind, dtype="float64")


Dense, Conv1D, Conv2D = f64(KERAS.Dense), f64(KERAS.Conv1D), f64(KERAS.Conv2D)
Depthwise, Separable = f64(KERAS.DepthwiseConv2D), f64(KERAS.SeparableConv2D)
Depthwise1D, Separable1D = f64(KERAS.DepthwiseConv1D), f64(KERAS.SeparableConv1D)
Transpose, Transpose1D = f64(KERAS.Conv2DTranspose), f64(KERAS.Conv1DTranspose)
LayerNorm, GroupNorm, BatchNorm = map(
    f64, (KERAS.LayerNormalization, KERAS.GroupNormalization, KERAS.BatchNormalization)
)
GRU, LSTM, SimpleRNN = f64(KERAS.GRU), f64(KERAS.LSTM), f64(KERAS.SimpleRNN)

IMAGE, SERIES, VECTOR, WORDS = (6, 7, 2), (5, 3), (4,), (3,)
TIMES = (3, 3)  # graphs of recurrent layers grow with the steps, of which these are enough to repeat
#: A layer that has weights, and the shape of its inputs.
RULES = {
    "dense": (lambda: Dense(3, "tanh"), VECTOR),
    "dense without bias": (lambda: Dense(3, use_bias=False), VECTOR),
    "dense on series": (lambda: Dense(3, "softplus"), SERIES),
    "dense on images": (lambda: Dense(3), IMAGE),
    "conv1d": (lambda: Conv1D(3, 2), SERIES),
    "conv1d same, strided": (lambda: Conv1D(3, 3, strides=2, padding="same"), SERIES),
    "conv1d causal, dilated": (lambda: Conv1D(3, 2, padding="causal", dilation_rate=2), SERIES),
    "conv2d": (lambda: Conv2D(3, 3, activation="tanh"), IMAGE),
    "conv2d strided": (lambda: Conv2D(3, (3, 2), strides=2, use_bias=False), IMAGE),
    "conv2d strides unlike": (lambda: Conv2D(2, 3, strides=(2, 3), padding="same"), IMAGE),
    "conv2d same": (lambda: Conv2D(3, 4, padding="same"), IMAGE),
    "conv2d same, strided": (lambda: Conv2D(3, 3, strides=2, padding="same"), IMAGE),
    "conv2d dilated": (lambda: Conv2D(3, (2, 3), dilation_rate=(3, 2)), IMAGE),
    "conv2d same, dilated": (lambda: Conv2D(3, 2, dilation_rate=2, padding="same"), IMAGE),
    "conv2d in groups": (lambda: Conv2D(6, 2, groups=2, strides=2), (6, 7, 4)),
    "conv3d": (lambda: f64(KERAS.Conv3D)(2, 2), (3, 4, 3, 2)),
    "depthwise": (lambda: Depthwise(3, depth_multiplier=2, activation="tanh"), IMAGE),
    "depthwise same, strided": (lambda: Depthwise(2, strides=2, padding="same", use_bias=False), IMAGE),
    "depthwise dilated": (lambda: Depthwise(2, dilation_rate=2), IMAGE),
    "depthwise1d": (lambda: Depthwise1D(2, depth_multiplier=2), SERIES),
    "separable": (lambda: Separable(3, 3, depth_multiplier=2), IMAGE),
    "separable same, strided": (lambda: Separable(3, 2, strides=2, padding="same", use_bias=False), IMAGE),
    "separable1d causal": (lambda: Separable1D(3, 2, padding="causal"), SERIES),
    "transposed": (lambda: Transpose(3, 3, activation="tanh"), IMAGE),
    "transposed strided": (lambda: Transpose(2, 3, strides=2), IMAGE),
    "transposed same, strided": (lambda: Transpose(2, (3, 2), strides=2, padding="same", use_bias=False), IMAGE),
    "transposed output padding": (lambda: Transpose(2, 3, strides=2, output_padding=1), IMAGE),
    "transposed1d": (lambda: Transpose1D(3, 2, strides=2), SERIES),
    "layer norm": (LayerNorm, VECTOR),
    "layer norm on images": (LayerNorm, IMAGE),
    "layer norm over axes": (lambda: LayerNorm(axis=(1, 3)), IMAGE),
    "layer norm without scale": (lambda: LayerNorm(scale=False), SERIES),
    "layer norm fused": (lambda: LayerNorm(epsilon=2e-3), IMAGE),
    "group norm": (lambda: GroupNorm(groups=2), (3, 2, 4)),
    "group norm without shift": (lambda: GroupNorm(groups=1, center=False), IMAGE),
    "batch norm at inference": (BatchNorm, IMAGE),
    "batch norm of rows": (lambda: BatchNorm(axis=1, scale=False), IMAGE),
    "embedding": (lambda: f64(KERAS.Embedding)(7, 2), WORDS),
    "large embedding": (lambda: f64(KERAS.Embedding)(300, 2), WORDS),
    "simple rnn": (lambda: SimpleRNN(3), TIMES),
    "simple rnn sequences": (lambda: SimpleRNN(3, return_sequences=True, use_bias=False), TIMES),
    "gru": (lambda: GRU(3), TIMES),
    "gru reset before": (lambda: GRU(3, reset_after=False), TIMES),
    "gru backwards": (lambda: GRU(3, go_backwards=True, return_sequences=True, use_bias=False), TIMES),
    "gru long": (lambda: GRU(2), (9, 1)),
    "lstm": (lambda: LSTM(3), TIMES),
    "lstm sequences": (lambda: LSTM(3, return_sequences=True, activation="relu", use_bias=False), TIMES),
    "bidirectional": (lambda: KERAS.Bidirectional(GRU(2, return_sequences=True), dtype="float64"), TIMES),
}


def network_around(layer, shape, rng):
    """The layer with a trained layer in front where there can be one, and one behind it; random weights."""
    words = isinstance(layer, KERAS.Embedding)
    inputs = KERAS.Input(shape, dtype="int32" if words else "float64")
    hidden = layer(inputs if words else Dense(shape[-1], "tanh")(inputs))
    outputs = Dense(3)(KERAS.Flatten(dtype="float64")(hidden))
    model = tf.keras.Model(inputs, outputs)
    for variable in model.variables:
        variable.assign(rng.normal(0.1, 0.6, variable.shape))
    for norm in (part for part in model.layers if isinstance(part, KERAS.BatchNormalization)):
        norm.moving_variance.assign(rng.uniform(0.5, 2.0, norm.moving_variance.shape))
    top = 300 if layer.name.startswith("embedding") and layer.input_dim == 300 else 7
    x = rng.integers(0, top, [B, *shape]) if words else rng.normal(size=[B, *shape])
    return model, tf.constant(x, tf.int32 if words else tf.float64)


def products(operator, v, c):
    return (
        operator.gram(),
        operator.row_matvec(v),
        operator.row_rmatvec(c),
        operator.row_matrix(),
        operator.diag_part(),
        operator.matvec(v),
    )


def expected_products(jacobian, metric, v, c):
    rows = jacobian if metric is None else np.take_along_axis(jacobian, metric.chosen.numpy()[:, None, None], 1)
    a = rows.reshape(-1, rows.shape[-1]) / np.sqrt(B)
    return a @ a.T, a @ v, a.T @ c, a, np.square(a).sum(axis=0), a.T @ (a @ v)


def assert_rows(model, x, metric, jacobian, run, rng, variables=None):
    variables = model.trainable_variables if variables is None else variables
    v, c = rng.normal(size=jacobian.shape[-1]), rng.normal(size=B * (3 if metric is None else 1))
    compiled = run(lambda x: products(GaussNewton(model, variables, x, metric), v, c))
    for value, expected in zip(compiled(x), expected_products(jacobian, metric, v, c), strict=True):
        np.testing.assert_allclose(value, expected, atol=1e-8 * max(1e-3, np.abs(expected).max()), rtol=0)


@pytest.mark.parametrize("name", list(RULES))
def test_the_rows_of_a_rule_are_those_of_the_jacobian(name, modes, batch_jacobian, rng):
    make, shape = RULES[name]
    model, x = network_around(make(), shape, rng)
    jacobian = batch_jacobian(model, model.trainable_variables, x)

    for mode, metric in (("eager", None), ("xla", CHOSEN)):
        assert_rows(model, x, metric, jacobian, modes[mode], rng)
    operator = GaussNewton(model, model.trainable_variables, x)
    assert operator.unruled == ()
    np.testing.assert_allclose(operator.outputs, model(x), rtol=1e-10)
    assert not any("call" in vars(layer) for layer in model.submodules if isinstance(layer, KERAS.Layer))


def mixed_image():
    """Convolution, normalisation, a shared layer, a skip connection, pooling, a product: one graph."""
    inputs = KERAS.Input([8, 8, 2], dtype="float64")
    hidden = Conv2D(4, 3, padding="same", activation="tanh")(inputs)
    shared = Conv2D(4, 3, padding="same", activation="softplus")
    hidden = LayerNorm()(KERAS.Add(dtype="float64")([hidden, shared(shared(hidden))]))
    hidden = KERAS.MaxPooling2D(2, dtype="float64")(KERAS.ZeroPadding2D(1, dtype="float64")(hidden))
    flat = KERAS.Flatten(dtype="float64")(hidden)
    gate = Dense(6, "sigmoid")(flat)
    joined = KERAS.Concatenate(dtype="float64")([KERAS.Multiply(dtype="float64")([gate, Dense(6)(flat)]), gate])
    narrow = Dense(12, "tanh")
    hidden = narrow(narrow(joined)) * 0.5
    return tf.keras.Model(inputs, Dense(3)(hidden)), lambda rng: rng.normal(size=[B, 8, 8, 2])


def mixed_words():
    """An embedding used twice, a GRU that gives its state to an LSTM's input, an average over time."""
    inputs = KERAS.Input([3], dtype="int32")
    embed = f64(KERAS.Embedding)(6, 3)
    words = embed(inputs)
    both = KERAS.Concatenate(dtype="float64")([words, embed(inputs[:, ::-1])])
    series, state = GRU(4, return_sequences=True, return_state=True)(both)
    series = LSTM(3, return_sequences=True)(KERAS.Concatenate(dtype="float64")([series, both]))
    hidden = KERAS.GlobalAveragePooling1D(dtype="float64")(series)
    hidden = KERAS.Concatenate(dtype="float64")([hidden, LayerNorm()(state)])
    return tf.keras.Model(inputs, Dense(3)(hidden)), lambda rng: rng.integers(0, 6, [B, 3])


def mixed_subclass():
    """A model and a block written as classes, with a branch in Python and a list of layers."""

    class Block(KERAS.Layer):
        def __init__(self, widths):
            super().__init__(dtype="float64")
            self.parts = [Dense(width, "tanh") for width in widths]

        def call(self, inputs, training=None):
            for part in self.parts:
                inputs = part(inputs)
            return inputs if training else inputs + 1.0

    class Network(tf.keras.Model):
        def __init__(self):
            super().__init__(dtype="float64")
            self.first, self.block, self.last = Conv1D(3, 2), Block([4, 5]), Dense(3)

        def call(self, inputs):
            hidden = self.block(tf.reduce_max(self.first(inputs), axis=1))
            if tf.reduce_sum(tf.abs(hidden)) >= 0:
                hidden = 2 * hidden
            return self.last(hidden)

    model = Network()
    model(tf.zeros([1, 5, 3], tf.float64))
    return model, lambda rng: rng.normal(size=[B, 5, 3])


@pytest.mark.parametrize("make", [mixed_image, mixed_words, mixed_subclass])
def test_networks_of_many_layers(make, modes, batch_jacobian, rng):
    model, draw = make()
    for variable in model.trainable_variables:
        variable.assign(rng.normal(0.1, 0.5, variable.shape))
    x = tf.constant(draw(rng))
    x = tf.cast(x, tf.int32) if x.dtype.is_integer else x
    jacobian = batch_jacobian(model, model.trainable_variables, x)

    assert GaussNewton(model, model.trainable_variables, x).unruled == ()
    for mode, metric in (("eager", CHOSEN), ("graph", None), ("xla", CHOSEN)):
        assert_rows(model, x, metric, jacobian, modes[mode], rng)


def test_variables_in_any_order_some_frozen_some_unused(batch_jacobian, rng):
    model, draw = mixed_image()
    x = tf.constant(draw(rng))
    unused = tf.Variable(rng.normal(size=[5]))
    variables = [*model.trainable_variables[::-1][:-3], unused]
    jacobian = batch_jacobian(model, variables, x)

    assert_rows(model, x, CHOSEN, jacobian, tf.function, rng, variables)


def test_rows_for_a_batch_of_unknown_size(batch_jacobian, rng):
    model, draw = mixed_image()
    x = tf.constant(draw(rng))
    jacobian = batch_jacobian(model, model.trainable_variables, x)
    a = jacobian.reshape(B * 3, -1) / np.sqrt(B)
    gram = tf.function(
        lambda x: GaussNewton(model, model.trainable_variables, x).gram(),
        input_signature=[tf.TensorSpec([None, 8, 8, 2], tf.float64)],
    )

    np.testing.assert_allclose(gram(x), a @ a.T, atol=1e-10)


@pytest.mark.parametrize("mode", ["eager", "xla"])
def test_more_rows_than_are_written_out(mode, modes, batch_jacobian, rng):
    inputs = KERAS.Input([5, 3], dtype="float64")
    model = tf.keras.Model(inputs, Dense(40)(KERAS.Flatten(dtype="float64")(Conv1D(2, 2)(inputs))))
    x = tf.constant(rng.normal(size=[B, 5, 3]))
    a = batch_jacobian(model, model.trainable_variables, x).reshape(B * 40, -1) / np.sqrt(B)

    gram = modes[mode](lambda x: GaussNewton(model, model.trainable_variables, x).gram())(x)
    np.testing.assert_allclose(gram, a @ a.T, atol=1e-10)


@pytest.mark.parametrize("name", [name for name in RULES if name.startswith(("conv1d", "conv2d", "conv3d"))])
def test_columns_are_patches_transposed(name, rng):
    make, shape = RULES[name]
    layer = make()
    settings = (layer.kernel_size, layer.strides, layer.padding, layer.dilation_rate)
    images = tf.constant(rng.normal(size=[B, *shape]))
    patches = extract_patches(images, *settings)
    flat = tf.reshape(patches, [B, -1, patches.shape[-2] * patches.shape[-1]])
    np.testing.assert_array_equal(extract_columns(images, *settings), tf.transpose(flat, [0, 2, 1]))


@pytest.mark.parametrize(("mode", "times"), [("eager", 0), ("graph", 0), ("xla", 2)])
def test_columns_are_found_where_xla_would_multiply_by_a_transpose(mode, times, modes, monkeypatch, rng):
    found = []
    monkeypatch.setattr(convolution, "extract_columns", lambda *given: found.append(0) or extract_columns(*given))
    model, x = network_around(tf.keras.Sequential([Conv2D(3, 2), Conv2D(2, 3)]), IMAGE, rng)

    modes[mode](lambda x: GaussNewton(model, model.trainable_variables, x, CHOSEN).gram())(x)
    assert len(found) == times


def test_a_recurrent_layer_with_a_cell_of_its_own_is_taken_at_its_word(rng):
    class Doubled(KERAS.GRUCell):
        def call(self, inputs, states, training=None):
            h, _ = super().call(inputs, states, training=training)
            return 2 * h, [2 * h]

    gru = KERAS.GRU(3)
    gru.cell = Doubled(3)
    model = tf.keras.Sequential([tf.keras.Input(TIMES), gru, KERAS.Dense(3)])
    x = rng.normal(size=[B, *TIMES]).astype(np.float32)
    operator = GaussNewton(model, model.trainable_variables, x)
    general = GaussNewton(lambda inputs: model(inputs), model.trainable_variables, x)

    np.testing.assert_allclose(operator.outputs, model(x), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(operator.to_dense(), general.to_dense(), rtol=1e-4, atol=1e-5)
