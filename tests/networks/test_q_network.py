import typing

import numpy as np
import pytest
import tensorflow as tf
from tf_agents.specs import tensor_spec

from ngrl import networks
from ngrl.networks.dense_network import Activation

MIXED = {
    "b": tensor_spec.BoundedTensorSpec([], tf.int64, 2, 4),
    "a": tensor_spec.TensorSpec([2, 2], tf.float32),
}


def test_observations_are_flattened_one_hot_encoded_and_concatenated_by_key():
    observation = {"b": tf.constant([2, 4], tf.int64), "a": tf.reshape(tf.range(8.0), [2, 2, 2])}
    expected = [[0, 1, 2, 3, 1, 0, 0], [4, 5, 6, 7, 0, 0, 1]]
    np.testing.assert_array_equal(networks.encode_observation(observation, MIXED), expected)


def test_network_equals_the_product_of_its_matrices():
    spec = tensor_spec.TensorSpec([3], tf.float32)
    network = networks.QNetwork(spec, 2, (5, 4), "tanh", seed=3)
    network.create_variables(spec)
    x = np.random.default_rng(0).normal(size=(6, 3)).astype(np.float32)
    w1, b1, w2, b2, w3, b3 = (v.numpy() for v in network.variables)
    expected = np.tanh(np.tanh(x @ w1 + b1) @ w2 + b2) @ w3 + b3
    np.testing.assert_allclose(network(x)[0], expected, rtol=1e-4, atol=1e-6)


def test_initial_kernels_have_the_variance_asked_for_and_follow_the_seed():
    spec = tensor_spec.TensorSpec([200], tf.float32)

    def kernels(seed):
        network = networks.QNetwork(spec, 100, (300,), initial_scale=2.0, output_scale=0.1, seed=seed)
        network.create_variables(spec)
        return [v.numpy() for v in network.variables if len(v.shape) == 2]

    first, last = kernels(0)
    np.testing.assert_allclose(first.std(), np.sqrt(2 / 200), rtol=0.03)
    np.testing.assert_allclose(last.std(), 0.1 / np.sqrt(300), rtol=0.03)
    np.testing.assert_array_equal(first, kernels(0)[0])
    assert (first != kernels(1)[0]).any()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hidden_layers": (0,)}, "a width of hidden_layers must be a positive integer, got 0"),
        ({"output_scale": 0.0}, "output_scale"),
        ({"input_tensor_spec": tensor_spec.TensorSpec([], tf.int64)}, "needs bounds"),
        ({"input_tensor_spec": tensor_spec.BoundedTensorSpec([], tf.int32, -(2**31), 2**31 - 1)}, "too wide"),
        ({"input_tensor_spec": tensor_spec.TensorSpec([2], tf.string)}, "dtype string can't be encoded"),
    ],
)
def test_wrong_arguments_are_named(options, message):
    arguments = {"input_tensor_spec": tensor_spec.TensorSpec([3], tf.float32), "num_actions": 2, **options}
    with pytest.raises(ValueError, match=message):
        networks.QNetwork(**arguments)


def test_a_spec_in_the_place_of_the_number_of_actions_is_refused():
    box = tensor_spec.BoundedTensorSpec([1], tf.float32, -1, 1)
    with pytest.raises(ValueError, match="QNetwork is for discrete actions and needs their number"):
        networks.QNetwork(tensor_spec.TensorSpec([3], tf.float32), box)


def test_activations_are_those_that_keras_knows_by_name():
    functions = {name for name in dir(tf.keras.activations) if not name.startswith("_")}
    assert set(typing.get_args(Activation)) == functions - {"get", "serialize", "deserialize"}


def test_layer_norm_stands_before_the_activation_of_each_hidden_layer():
    spec = tensor_spec.TensorSpec([3], tf.float32)
    network = networks.QNetwork(spec, 2, (5, 4), "tanh", seed=3, layer_norm=True)
    network.create_variables(spec)
    x = np.random.default_rng(0).normal(size=(6, 3))
    variables = [v.numpy().astype(np.float64) for v in network.variables]
    variables = [v + 0.1 * np.arange(v.size).reshape(v.shape) for v in variables]  # scales and shifts that show
    for variable, value in zip(network.variables, variables, strict=True):
        variable.assign(value)
    hidden = x
    for kernel, bias, scale, shift in (variables[:4], variables[4:8]):
        z = hidden @ kernel + bias
        z = (z - z.mean(1, keepdims=True)) / np.sqrt(z.var(1, keepdims=True) + 1e-5)
        hidden = np.tanh(scale * z + shift)
    expected = hidden @ variables[8] + variables[9]
    np.testing.assert_allclose(network(x.astype(np.float32))[0], expected, rtol=1e-4, atol=1e-5)
