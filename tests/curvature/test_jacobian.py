import numpy as np
import pytest
import tensorflow as tf
from tf_agents.networks import q_network
from tf_agents.specs import tensor_spec

import ngrl.curvature.jacobian
from ngrl.curvature import GaussNewton, SquaredError, num_parameters

B = 6
layers = tf.keras.layers


@pytest.fixture(scope="module")
def conv_with_shared_layer():
    inputs = layers.Input([7, 7, 2], dtype="float64")
    hidden = layers.Conv2D(3, 3, strides=2, activation="tanh", dtype="float64")(inputs)
    hidden = layers.Dense(4, "tanh", dtype="float64")(layers.Flatten(dtype="float64")(hidden))
    shared = layers.Dense(4, "tanh", dtype="float64")
    hidden = shared(shared(hidden))
    return tf.keras.Model(inputs, layers.Dense(3, dtype="float64")(hidden))


def general(model):
    """The model as a plain function, in which no layers are looked for."""
    return lambda inputs: model(inputs)


def assert_operator_is(operator, jacobian, metric=None, rtol=1e-9):
    """Compare every product with J [B, K, P], for F = mean of J_iᵀ J_i or of its chosen rows."""
    rows = jacobian if metric is None else np.take_along_axis(jacobian, metric.chosen.numpy()[:, None, None], 1)
    a = rows.reshape(-1, rows.shape[-1]) / np.sqrt(len(jacobian))
    v, c = np.cos(np.arange(a.shape[1])), np.sin(np.arange(a.shape[0]))
    z = np.cos(np.arange(jacobian[..., 0].size)).reshape(jacobian.shape[:2])
    for value, expected in (
        (operator.matvec(tf.cast(v, operator.dtype)), a.T @ (a @ v)),
        (operator.gram(), a @ a.T),
        (operator.row_matvec(tf.cast(v, operator.dtype)), a @ v),
        (operator.row_rmatvec(tf.cast(c, operator.dtype)), a.T @ c),
        (operator.jvp(tf.cast(v, operator.dtype)), jacobian @ v),
        (operator.vjp(tf.cast(z, operator.dtype)), np.einsum("bkp,bk->p", jacobian, z)),
        (operator.row_matrix(), a),
    ):
        np.testing.assert_allclose(value, expected, atol=rtol * (1e-3 + np.abs(expected).max()))


@pytest.mark.parametrize("metric", [None, SquaredError(chosen=[0, 2, 1, 1, 0, 2])], ids=["all", "chosen"])
def test_convolutions_and_shared_layers(conv_with_shared_layer, metric, batch_jacobian, rng):
    model = conv_with_shared_layer
    variables, x = model.trainable_variables, rng.normal(size=[B, 7, 7, 2])

    operator = GaussNewton(general(model), variables, x, metric)
    assert_operator_is(operator, batch_jacobian(model, variables, x), metric)


def test_convolutions_in_every_mode(conv_with_shared_layer, run, rng):
    model = conv_with_shared_layer
    variables, x = model.trainable_variables, rng.normal(size=[B, 7, 7, 2])
    v = rng.normal(size=num_parameters(variables))

    def products(x):
        operator = GaussNewton(general(model), variables, x)
        return operator.matvec(v), operator.gram(), operator.diag_part()

    for value, expected in zip(run(products)(tf.constant(x)), products(x), strict=True):
        np.testing.assert_allclose(value, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("chunk_size", [1, 4, 5, 18, 100])
def test_chunks_of_any_size_give_the_same_rows(conv_with_shared_layer, chunk_size, batch_jacobian, rng):
    model = conv_with_shared_layer
    variables, x = model.trainable_variables, rng.normal(size=[B, 7, 7, 2])
    expected = batch_jacobian(model, variables, x).reshape(B * 3, -1) / np.sqrt(B)
    rows = tf.function(
        lambda x: GaussNewton(general(model), variables, x, chunk_size=chunk_size).row_matrix(),
        jit_compile=chunk_size == 4,
    )

    np.testing.assert_allclose(rows(tf.constant(x)), expected, atol=1e-12)


@pytest.mark.parametrize("jit", [False, True], ids=["graph", "xla"])
def test_gram_of_more_rows_than_fit_is_formed_in_panels(conv_with_shared_layer, jit, batch_jacobian, rng, monkeypatch):
    monkeypatch.setattr(ngrl.curvature.jacobian, "MATRIX_BYTES", 1)
    model = conv_with_shared_layer
    variables, x = model.trainable_variables, rng.normal(size=[B, 7, 7, 2])
    a = batch_jacobian(model, variables, x).reshape(B * 3, -1) / np.sqrt(B)
    gram = tf.function(lambda x: GaussNewton(general(model), variables, x, chunk_size=4).gram(), jit_compile=jit)

    np.testing.assert_allclose(gram(tf.constant(x)), a @ a.T, atol=1e-12)


def test_tf_agents_q_network(batch_jacobian, rng):
    observations = tensor_spec.TensorSpec([4], tf.float32)
    actions = tensor_spec.BoundedTensorSpec([], tf.int32, 0, 2)
    network = q_network.QNetwork(observations, actions, fc_layer_params=(5,))
    network.create_variables()
    variables, x = network.trainable_variables, rng.normal(size=[B, 4]).astype(np.float32)

    def forward(inputs):
        return network(inputs)[0]

    metric = SquaredError(chosen=[0, 2, 1, 1, 0, 2])
    jacobian = batch_jacobian(forward, variables, x)
    assert_operator_is(GaussNewton(forward, variables, x), jacobian, rtol=1e-5)
    assert_operator_is(GaussNewton(forward, variables, x, metric), jacobian, metric, rtol=1e-5)


def test_nested_inputs_keep_their_structure(batch_jacobian, rng):
    left, right = layers.Dense(3, "tanh", dtype="float64"), layers.Dense(3, dtype="float64")
    inputs = {
        "image": tf.constant(rng.normal(size=[B, 2])),
        "rest": (tf.constant(rng.normal(size=[B, 4])), ()),
    }

    def forward(nest):
        return left(nest["image"]) * right(nest["rest"][0])

    forward(inputs)
    variables = [left.kernel, right.kernel, right.bias]
    assert_operator_is(GaussNewton(forward, variables, inputs), batch_jacobian(forward, variables, inputs))


def test_an_unused_variable_has_a_zero_jacobian(mlp, rng, batch_jacobian):
    model = mlp([3, 4, 2])
    unused = tf.Variable(rng.normal(size=[5]))
    variables = [unused, *model.trainable_variables]
    x = rng.normal(size=[B, 3])

    for forward in (model, lambda inputs: tf.constant(rng.normal(size=[B, 2]))[: tf.shape(inputs)[0]]):
        operator = GaussNewton(forward, variables, x)
        jacobian = batch_jacobian(forward, variables, x)
        assert not jacobian[..., :5].any()
        assert_operator_is(operator, jacobian)


@pytest.mark.parametrize("jit", [None, False, True], ids=["eager", "graph", "xla"])
def test_embeddings_which_forward_mode_cannot_take_in_graphs(jit, batch_jacobian, rng):
    model = tf.keras.Sequential(
        [layers.InputLayer([3], dtype="int32"), layers.Embedding(5, 2), layers.Flatten(), layers.Dense(2)]
    )
    variables, x = model.trainable_variables, tf.constant(rng.integers(0, 5, [B, 3]), tf.int32)
    jacobian = batch_jacobian(model, variables, x)
    v = np.cos(np.arange(jacobian.shape[-1]))

    def products(x):
        operator = GaussNewton(general(model), variables, x)
        return (
            operator.matvec(tf.constant(v, tf.float32)),
            operator.jvp(v.astype(np.float32)),
            operator.gram(),
        )

    matvec, jvp, gram = (products if jit is None else tf.function(products, jit_compile=jit))(x)
    a = jacobian.reshape(B * 2, -1) / np.sqrt(B)
    np.testing.assert_allclose(matvec, a.T @ (a @ v), atol=1e-5)
    np.testing.assert_allclose(jvp, jacobian @ v, atol=1e-5)
    np.testing.assert_allclose(gram, a @ a.T, atol=1e-5)


def test_layers_that_do_not_vectorise_are_taken_one_example_at_a_time(batch_jacobian, rng, caplog):
    model = tf.keras.Sequential(
        [
            layers.InputLayer([3, 2], dtype="float64"),
            layers.LSTM(2, dtype="float64"),
            layers.Dense(2, dtype="float64"),
        ]
    )
    variables, x = model.trainable_variables, tf.constant(rng.normal(size=[B, 3, 2]))
    a = batch_jacobian(model, variables, x).reshape(B * 2, -1) / np.sqrt(B)
    caplog.clear()
    gram = tf.function(lambda x: GaussNewton(general(model), variables, x).gram())

    np.testing.assert_allclose(gram(x), a @ a.T, atol=1e-12)
    assert not [record for record in caplog.records if record.name == "tensorflow"]


def test_batch_normalisation_in_training_mode_has_a_product(batch_jacobian, rng):
    norm = layers.BatchNormalization(dtype="float64")
    dense = layers.Dense(2, dtype="float64")

    def forward(inputs):
        return dense(norm(inputs, training=True))

    x = tf.constant(rng.normal(size=[B, 3]))
    forward(x)
    variables = [norm.gamma, norm.beta, dense.kernel]
    a = batch_jacobian(forward, variables, x).reshape(B * 2, -1) / np.sqrt(B)
    v = rng.normal(size=a.shape[1])

    np.testing.assert_allclose(GaussNewton(forward, variables, x).matvec(v), a.T @ (a @ v), rtol=1e-9)


def test_vectorised_convolutions_say_nothing(conv_with_shared_layer, rng, caplog):
    model = conv_with_shared_layer
    x = rng.normal(size=[2, 7, 7, 2])
    for _ in range(7):
        GaussNewton(general(model), model.trainable_variables, x).gram()

    assert not [record for record in caplog.records if record.name == "tensorflow"]
