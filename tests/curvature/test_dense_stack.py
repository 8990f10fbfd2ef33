import numpy as np
import pytest
import tensorflow as tf

from ngrl.curvature import (
    Bernoulli,
    Categorical,
    DenseStack,
    DiagonalGaussian,
    GaussNewton,
    SquaredError,
    num_parameters,
)
from ngrl.curvature.dense_stack import StackJacobian

BATCH, D, K = 6, 3, 4
CHOSEN = [0, 3, 1, 1, 2, 0]
WEIGHTS = [1.0, 2.0, 0.0, 0.5, 0.0, 3.0]
layers = tf.keras.layers


def is_layerwise(operator):
    return isinstance(operator._jacobian, StackJacobian)


def everything(operator, v, z, c, u):
    """Products of an operator, for vectors of P, B·K, n and B·K entries."""
    return {
        "outputs": operator.outputs,
        "matvec": operator.matvec(v),
        "jvp": operator.jvp(v),
        "vjp": operator.vjp(z),
        "row_matvec": operator.row_matvec(v),
        "row_rmatvec": operator.row_rmatvec(c),
        "row_coefficients": operator.row_coefficients(u),
        "gram": operator.gram(),
        "diag_part": operator.diag_part(),
    }


def assert_layerwise_equals_general(model, metric, rng, weights=None, rtol=1e-9):
    variables = model.trainable_variables
    x = rng.normal(size=[BATCH, D])
    stack = GaussNewton(model, variables, x, metric, weights)
    general = GaussNewton(lambda inputs: model(inputs), variables, x, metric, weights)
    assert is_layerwise(stack)
    assert not is_layerwise(general)
    v, z, u = (
        rng.normal(size=num_parameters(variables)),
        rng.normal(size=[BATCH, K]),
        rng.normal(size=[BATCH, K]),
    )
    c = rng.normal(size=BATCH * stack.rows_per_example)
    expected = everything(general, v, z, c, u)
    for name, value in everything(stack, v, z, c, u).items():
        np.testing.assert_allclose(value, expected[name], rtol=rtol, atol=1e-11, err_msg=name)


@pytest.mark.parametrize("weights", [None, WEIGHTS], ids=["unweighted", "masked"])
@pytest.mark.parametrize(
    "metric",
    [SquaredError(1.3), SquaredError(1.3, CHOSEN), Bernoulli(), Categorical(), DiagonalGaussian()],
    ids=["all", "chosen", "bernoulli", "categorical", "gaussian"],
)
def test_layerwise_products_equal_the_general_ones(mlp, metric, weights, rng):
    assert_layerwise_equals_general(mlp([D, 5, 4, K]), metric, rng, weights)


@pytest.mark.parametrize(
    "activation", ["relu", "sigmoid", "linear", "elu", "softplus", "swish", tf.nn.tanh, tf.nn.relu6, tf.sin]
)
def test_every_elementwise_activation_has_its_slope(mlp, activation, rng):
    model = mlp([D, 5, 4, K], activation)
    variables = model.trainable_variables
    x, v, z = (
        rng.normal(size=[BATCH, D]),
        rng.normal(size=num_parameters(variables)),
        rng.normal(size=[BATCH, K]),
    )
    stack = GaussNewton(model, variables, x)
    general = GaussNewton(lambda inputs: model(inputs), variables, x)

    assert is_layerwise(stack)
    np.testing.assert_allclose(stack.jvp(v), general.jvp(v), rtol=1e-10)
    np.testing.assert_allclose(stack.vjp(z), general.vjp(z), rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("metric", [SquaredError(), SquaredError(chosen=CHOSEN)], ids=["all", "chosen"])
def test_layers_without_bias_have_no_bias_term(mlp, metric, rng):
    assert_layerwise_equals_general(mlp([D, 5, K], use_bias=False), metric, rng)


def test_separate_activation_layers_belong_to_the_stack(rng):
    model = tf.keras.Sequential(
        [
            layers.InputLayer([D], dtype="float64"),
            layers.Activation("tanh", dtype="float64"),
            layers.Dense(5, "tanh", dtype="float64"),
            layers.LeakyReLU(dtype="float64"),
            layers.Dense(4, dtype="float64"),
            layers.Activation("sigmoid", dtype="float64"),
            layers.Flatten(dtype="float64"),
            layers.Dense(K, dtype="float64"),
        ]
    )

    assert_layerwise_equals_general(model, SquaredError(chosen=CHOSEN), rng)


def test_a_leading_flatten_takes_inputs_of_any_rank(rng):
    model = tf.keras.Sequential([layers.Flatten(), layers.Dense(4, "tanh"), layers.Dense(K)])
    model.build([None, 2, 3])
    x = rng.normal(size=[BATCH, 2, 3]).astype(np.float32)
    stack = DenseStack(model.layers)

    np.testing.assert_allclose(stack(x), model(x), rtol=1e-6)
    assert is_layerwise(GaussNewton(stack, model.trainable_variables, x))


class Reversed(layers.Flatten):
    def call(self, inputs):
        return tf.reverse(super().call(inputs), [1])


class Squared(layers.Dense):
    """A Dense layer whose kernel is another than its variable."""

    def build(self, shape):
        self.root = self.add_weight("root", [shape[-1], self.units])
        self.bias = self.add_weight("bias", [self.units])
        self.built = True

    @property
    def kernel(self):
        return tf.square(self.root)


class Halved(layers.Dense):
    def __call__(self, *args, **kwargs):
        return super().__call__(*args, **kwargs) / 2


def of_its_own(layer):
    layer.call = lambda inputs: 3 * type(layer).call(layer, inputs)
    return layer


@pytest.mark.parametrize(
    "chain",
    [
        lambda: [layers.Flatten(data_format="channels_first"), layers.Dense(K)],
        lambda: [layers.Flatten(data_format="channels_first"), layers.Flatten(), layers.Dense(K)],
        lambda: [Reversed(), layers.Dense(K)],
        lambda: [layers.Flatten(), Squared(K)],
        lambda: [layers.Flatten(), Halved(5), layers.Dense(K)],
        lambda: [layers.Flatten(), of_its_own(layers.Dense(5)), layers.Dense(K)],
    ],
    ids=[
        "channels first",
        "flattened twice",
        "another order",
        "another kernel",
        "another __call__",
        "a call of its own",
    ],
)
def test_a_layer_that_only_looks_like_one_of_a_stack_is_taken_at_its_word(chain, rng):
    model = tf.keras.Sequential([tf.keras.Input([2, 3]), *chain()])
    x = rng.normal(size=[BATCH, 2, 3]).astype(np.float32)
    operator = GaussNewton(model, model.trainable_variables, x)
    general = GaussNewton(lambda inputs: model(inputs), model.trainable_variables, x)

    assert not is_layerwise(operator)
    np.testing.assert_allclose(operator.outputs, model(x), rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(operator.to_dense(), general.to_dense(), rtol=1e-5, atol=1e-6)


def test_a_flatten_of_channels_first_belongs_to_a_stack_of_vectors(rng):
    model = tf.keras.Sequential([tf.keras.Input([D]), layers.Flatten(data_format="channels_first"), layers.Dense(K)])
    x = rng.normal(size=[BATCH, D]).astype(np.float32)
    operator = GaussNewton(model, model.trainable_variables, x)

    assert is_layerwise(operator)
    np.testing.assert_allclose(operator.outputs, model(x), rtol=1e-6)


def test_variables_may_come_in_any_order(mlp, rng):
    model = mlp([D, 5, K])
    order = [2, 0, 3, 1]
    shuffled = [model.trainable_variables[index] for index in order]
    x = rng.normal(size=[BATCH, D])
    operator = GaussNewton(model, shuffled, x)
    general = GaussNewton(lambda inputs: model(inputs), shuffled, x)

    assert is_layerwise(operator)
    np.testing.assert_allclose(operator.to_dense(), general.to_dense(), rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(operator.diag_part(), np.diag(general.to_dense()), rtol=1e-10)


def test_a_subset_of_the_variables_takes_the_general_path(mlp, rng):
    model = mlp([D, 5, K])
    x = rng.normal(size=[BATCH, D])
    whole = GaussNewton(model, model.trainable_variables, x).to_dense()
    last = GaussNewton(model, model.trainable_variables[2:], x)

    assert not is_layerwise(last)
    np.testing.assert_allclose(last.to_dense(), whole[D * 5 + 5 :, D * 5 + 5 :], rtol=1e-10, atol=1e-12)


def test_from_layers_declines_what_is_no_stack():
    dense = layers.Dense(2)
    dense.build([None, 2])
    half = layers.Dense(2, dtype="float64")
    half.build([None, 2])

    class Doubling(layers.Dense):
        def call(self, inputs):
            return 2 * super().call(inputs)

    doubling = Doubling(2)
    doubling.build([None, 2])
    mixed = layers.Dense(2, dtype=tf.keras.mixed_precision.Policy("mixed_bfloat16"))
    mixed.build([None, 2])
    for chain in (
        [],
        [layers.Flatten()],
        [dense, layers.Dropout(0.1)],
        [dense, layers.Softmax()],
        [dense, layers.Activation("softmax")],
        [dense, layers.Activation(lambda z: tf.cumsum(z, axis=-1))],
        [dense, dense],
        [dense, half],
        [dense, layers.Dense(2)],
        [doubling],
        [mixed],
    ):
        assert DenseStack.from_layers(chain) is None
    assert DenseStack.from_layers([dense]) is not None


def test_the_constructor_names_the_layer_it_cannot_take():
    dense = layers.Dense(2, name="first")
    dense.build([None, 2])

    with pytest.raises(ValueError, match=r"layer 'drop' \(Dropout\) isn't part of a dense stack"):
        DenseStack([dense, layers.Dropout(0.1, name="drop")])
    with pytest.raises(ValueError, match="layer 'late' isn't built"):
        DenseStack([dense, layers.Dense(2, name="late")])


def test_a_sequential_model_that_overrides_call_is_taken_at_its_word(rng):
    class Doubled(tf.keras.Sequential):
        def call(self, inputs, training=None, mask=None):
            return 2 * super().call(inputs)

    model = Doubled([layers.Dense(K)])
    model.build([None, D])
    x = rng.normal(size=[BATCH, D]).astype(np.float32)

    np.testing.assert_allclose(GaussNewton(model, model.trainable_variables, x).outputs, model(x), rtol=1e-6)


def test_integer_and_float64_observations_reach_a_float32_stack(mlp):
    model = mlp([D, 5, K], dtype="float32")
    x = np.arange(BATCH * D).reshape(BATCH, D)

    for inputs in (x, x.astype(np.float64)):
        operator = GaussNewton(model, model.trainable_variables, inputs)
        assert operator.dtype == tf.float32
        np.testing.assert_allclose(operator.outputs, model(x.astype(np.float32)), rtol=1e-6)


def test_products_match_in_every_mode_with_an_unknown_batch_size(mlp, rng):
    model = mlp([D, 5, K])
    variables = model.trainable_variables
    x, v = rng.normal(size=[BATCH, D]), rng.normal(size=num_parameters(variables))
    spec = [
        tf.TensorSpec([None, D], tf.float64),
        tf.TensorSpec([None], tf.int32),
        tf.TensorSpec(v.shape, tf.float64),
    ]

    def products(x, chosen, v):
        return [
            [op.gram(), op.matvec(v), op.row_rmatvec(op.row_coefficients(op.outputs)), op.to_dense()]
            for op in (
                GaussNewton(model, variables, x),
                GaussNewton(model, variables, x, SquaredError(chosen=chosen)),
                GaussNewton(lambda inputs: model(inputs), variables, x),
            )
        ]

    arguments = [tf.constant(x), tf.constant(CHOSEN), tf.constant(v)]
    expected = products(*arguments)
    compiled = tf.function(products, input_signature=spec)
    tf.nest.map_structure(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-12), compiled(*arguments), expected)


def test_a_model_rounds_inputs_to_the_dtype_of_its_input_layer(rng):
    model = tf.keras.Sequential([layers.InputLayer([D]), layers.Dense(K, dtype="float64")])
    x = rng.normal(size=[BATCH, D])

    np.testing.assert_array_equal(GaussNewton(model, model.trainable_variables, x).outputs, model(x))
