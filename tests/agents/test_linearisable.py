"""The split of a network into an encoder without parameters and a function that curvature operators linearise."""

import numpy as np
import pytest
import tensorflow as tf
from tf_agents.networks import sequential
from tf_agents.specs import tensor_spec

from ngrl import curvature, networks
from ngrl.agents.linearisable import linearisable

SPEC = {"b": tensor_spec.BoundedTensorSpec([], tf.int64, 2, 4), "a": tensor_spec.TensorSpec([2], tf.float32)}
DISCRETE = tensor_spec.BoundedTensorSpec([], tf.int64, 0, 2)
BOX = tensor_spec.BoundedTensorSpec([2], tf.float32, -1, 1)
STACKED = ("q", "value", "categorical", "gaussian")  # those that are a chain of layers
KINDS = (*STACKED, "state-dependent")
each_kind = pytest.mark.parametrize("kind", KINDS)


def observation(rows=6, seed=0):
    random = np.random.default_rng(seed)
    return {
        "b": tf.constant(random.integers(2, 5, size=rows), tf.int64),
        "a": tf.constant(random.normal(3, 5, size=(rows, 2)), tf.float32),
    }


def made(kind, base=None, with_normaliser=True):
    normaliser = None
    if with_normaliser and kind != "q":
        normaliser = networks.ObservationNormaliser(SPEC)
        normaliser.update(observation(50, seed=1), tf.ones(50))
    if kind == "q":
        network = (base or networks.QNetwork)(SPEC, 3, (5, 4), seed=2)
    elif kind == "value":
        network = (base or networks.ValueNetwork)(SPEC, (5, 4), normaliser=normaliser, seed=2)
    else:
        options = {"std": "state_dependent"} if kind == "state-dependent" else {}
        action_spec = DISCRETE if kind == "categorical" else BOX
        network = (base or networks.ActorNetwork)(
            SPEC, action_spec, (5, 4), output_scale=1.0, normaliser=normaliser, seed=2, **options
        )
    network.create_variables()
    return network


def outputs(network, inputs):
    """What the network says of observations, [B, K]."""
    if isinstance(network, networks.ActorNetwork):
        distribution, _ = network(inputs)
        if network.is_discrete:
            return distribution.logits_parameter().numpy()
        return np.hstack([distribution.mean(), np.log(distribution.stddev())])
    values = network(inputs)[0].numpy()
    return values.reshape(len(values), -1)


def dense_jacobian(network, forward, inputs):
    """J [B, K, P] by reverse mode, float64."""
    with tf.GradientTape() as tape:
        result = forward(inputs)
    parts = tape.jacobian(result, network.trainable_weights)
    assert all(part is not None for part in parts)
    return np.concatenate([p.numpy().reshape(*result.shape, -1) for p in parts], -1).astype(np.float64)


@each_kind
@pytest.mark.parametrize("with_normaliser", [False, True])
@pytest.mark.parametrize("jit_compile", [False, True])
def test_forward_of_encode_is_the_network(kind, with_normaliser, jit_compile):
    network = made(kind, with_normaliser=with_normaliser)
    encode, forward = linearisable(network)
    both = tf.function(lambda inputs: forward(encode(inputs)), jit_compile=jit_compile, autograph=False)
    np.testing.assert_allclose(both(observation()), outputs(network, observation()), rtol=1e-4, atol=1e-5)


@each_kind
def test_forward_holds_every_parameter_and_encode_none(kind):
    network = made(kind)
    encode, forward = linearisable(network)
    with tf.GradientTape() as tape:
        inputs = encode(observation())
        encoded = [leaf for leaf in tf.nest.flatten(inputs) if leaf.dtype.is_floating]
    assert tape.gradient(encoded, network.trainable_weights) == [None] * len(network.trainable_weights)
    dense_jacobian(network, forward, inputs)


@each_kind
def test_chains_of_layers_are_linearised_without_tapes(kind):
    assert isinstance(linearisable(made(kind))[1], curvature.DenseStack) == (kind in STACKED)


@each_kind
@pytest.mark.parametrize("jit_compile", [False, True])
def test_fisher_products_are_those_of_a_dense_jacobian(kind, jit_compile):
    network = made(kind)
    encode, forward = linearisable(network)
    inputs = encode(observation())
    gaussian = kind in ("gaussian", "state-dependent")
    metric = curvature.DiagonalGaussian() if gaussian else curvature.SquaredError()
    jacobian = dense_jacobian(network, forward, inputs)
    size = jacobian.shape[-1]
    scale = np.ones(jacobian.shape[:2])
    if gaussian:  # diag(1/σ², 2)
        scale = np.hstack([np.exp(-2 * outputs(network, observation())[:, 2:]), np.full((6, 2), 2.0)])
    expected = np.einsum("bkp,bk,bkq->pq", jacobian, scale, jacobian) / 6

    def product(vector):
        operator = curvature.GaussNewton(forward, network.trainable_weights, encode(observation()), metric)
        return operator.matvec(vector)

    product = tf.function(product, jit_compile=jit_compile, autograph=False)
    for seed in range(3):
        vector = np.random.default_rng(seed).normal(size=size)
        got = product(tf.constant(vector, tf.float32))
        np.testing.assert_allclose(got, expected @ vector, rtol=1e-3, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize(
    ("kind", "method"),
    [
        ("q", "call"),
        ("q", "_chain"),
        ("q", "dense"),
        ("value", "call"),
        ("value", "_chain"),
        ("value", "dense"),
        ("categorical", "_chain"),
        ("categorical", "dense"),
        ("gaussian", "dense"),
        ("categorical", "distribution_parameters"),
        ("gaussian", "from_chain"),
        ("gaussian", "distribution_parameters"),
        ("state-dependent", "from_chain"),
    ],
)
def test_a_subclass_is_linearised_as_it_acts(kind, method):
    """Each doubles what the method of that name gives: means, logits and values, not log σ."""
    base = {"q": networks.QNetwork, "value": networks.ValueNetwork}.get(kind, networks.ActorNetwork)

    def doubled(self, inputs, *rest):
        result = getattr(base, method)(self, inputs, *rest)
        if method == "call":
            return 2 * result[0], result[1]
        if kind in ("gaussian", "state-dependent"):
            return tf.concat([2 * result[:, :2], result[:, 2:]], axis=1)
        return 2 * result

    network = made(kind, base=type("Doubled", (base,), {method: doubled}))
    plain = outputs(made(kind), observation())
    plain[:, : 2 if kind in ("gaussian", "state-dependent") else None] *= 2
    encode, forward = linearisable(network)
    np.testing.assert_allclose(outputs(network, observation()), plain, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(forward(encode(observation())), plain, rtol=1e-4, atol=1e-5)


def test_a_subclass_may_encode_in_its_own_way_and_still_be_a_chain():
    class Negated(networks.ValueNetwork):
        def encode(self, observation):
            return -super().encode(observation)

    network = made("value", base=Negated)
    encode, forward = linearisable(network)
    assert isinstance(forward, curvature.DenseStack)
    np.testing.assert_allclose(forward(encode(observation())), outputs(network, observation()), rtol=1e-4, atol=1e-5)


def test_an_actor_with_a_call_of_its_own_is_refused():
    class Other(networks.ActorNetwork):
        def call(self, observation, step_type=None, network_state=(), training=False):
            return super().call(observation, step_type, network_state, training)

    with pytest.raises(ValueError, match="Other must override distribution_parameters"):
        linearisable(made("gaussian", base=Other))


def test_a_log_std_below_its_bound_comes_out_as_it_is():
    """The bound is the caller's to apply: behind it the log σ would have no gradient to be linearised by."""
    network = made("gaussian")
    network.log_std.assign([-9.0, 0.5])
    encode, forward = linearisable(network)
    parameters = forward(encode(observation()))
    np.testing.assert_array_equal(parameters[:, 2:], np.tile([-9.0, 0.5], (6, 1)))
    np.testing.assert_allclose(network.bound(parameters), network.distribution_parameters(observation()), rtol=1e-5)


def test_tf_agents_sequential_networks_are_chains_too():
    network = sequential.Sequential([tf.keras.layers.Dense(5, "tanh"), tf.keras.layers.Dense(3)])
    network.create_variables(tensor_spec.TensorSpec([4], tf.float32))
    encode, forward = linearisable(network)
    inputs = tf.constant(np.random.default_rng(0).normal(size=(6, 4)), tf.float32)
    assert isinstance(forward, curvature.DenseStack)
    np.testing.assert_allclose(forward(encode(inputs)), network(inputs)[0], rtol=1e-4, atol=1e-6)


def test_a_sequential_network_is_linearised_as_it_acts_whatever_its_flatten_does():
    spec = tensor_spec.TensorSpec([2, 3], tf.float32)
    layers = [tf.keras.layers.Flatten(data_format="channels_first"), tf.keras.layers.Dense(2)]
    network = sequential.Sequential(layers, input_spec=spec)
    network.create_variables()
    encode, forward = linearisable(network)
    inputs = tf.random.stateless_normal([5, 2, 3], (1, 2))
    np.testing.assert_allclose(forward(encode(inputs)), network(inputs)[0], rtol=1e-5, atol=1e-6)
