import numpy as np
import pytest
import tensorflow as tf
from tf_agents.specs import tensor_spec

from ngrl import networks

SPEC = tensor_spec.TensorSpec([3], tf.float32)


def made(**options):
    network = networks.ValueNetwork(SPEC, (5, 4), seed=3, **options)
    network.create_variables()
    return network


def by_hand(network, x):
    """The network as a product of matrices, float64, [B]."""
    for layer in network.layers_in_order[:-1]:
        x = np.tanh(x @ layer.kernel.numpy().astype(np.float64) + layer.bias.numpy())
    last = network.layers_in_order[-1]
    return (x @ last.kernel.numpy().astype(np.float64) + last.bias.numpy())[:, 0]


@pytest.mark.parametrize("jit_compile", [False, True])
def test_values_are_one_number_a_state(jit_compile):
    network = made()
    x = np.random.default_rng(0).normal(size=(6, 3)).astype(np.float32)
    values, state = tf.function(lambda x: network(x), jit_compile=jit_compile, autograph=False)(x)
    assert values.shape == (6,)
    assert state == ()
    np.testing.assert_allclose(values, by_hand(network, x), rtol=1e-4, atol=1e-6)


def test_normalised_observations_are_what_the_layers_see():
    normaliser = networks.ObservationNormaliser(SPEC)
    network = made(normaliser=normaliser)
    random = np.random.default_rng(1)
    seen = random.normal([5, 0, -3], [1, 10, 0.1], size=(100, 3)).astype(np.float32)
    x = seen[:6]
    before = network(x)[0].numpy()
    normaliser.update(tf.constant(seen), tf.ones(100))
    after = network(x)[0].numpy()
    np.testing.assert_allclose(
        after, by_hand(network, (x - seen.mean(axis=0)) / seen.std(axis=0)), rtol=1e-3, atol=1e-5
    )
    assert np.abs(after - before).max() > 0.01


def test_a_normaliser_is_no_matter_of_training():
    normaliser = networks.ObservationNormaliser(SPEC)
    plain, network = made(), made(normaliser=normaliser)
    assert [v.shape for v in network.trainable_weights] == [v.shape for v in plain.trainable_weights]
    listed = {id(v) for v in network.variables}
    assert {id(v) for v in normaliser.variables} == listed - {id(v) for v in network.trainable_weights}


def test_a_normaliser_of_other_observations_is_refused():
    """One of a single entry would broadcast."""
    other = networks.ObservationNormaliser(tensor_spec.TensorSpec([1], tf.float32))
    with pytest.raises(ValueError, match="the normaliser is for 1 entries, the observations have 3"):
        made(normaliser=other)


def test_mixed_observations_pass_through_network_and_normaliser():
    spec = {"b": tensor_spec.BoundedTensorSpec([], tf.int64, 2, 4), "a": tensor_spec.TensorSpec([2, 2], tf.float32)}
    network = networks.ValueNetwork(spec, (5,), normaliser=networks.ObservationNormaliser(spec))
    network.create_variables()
    observation = {"b": tf.constant([2, 4], tf.int64), "a": tf.reshape(tf.range(8.0), [2, 2, 2])}
    matrix = networks.encode_observation(observation, spec).numpy()
    np.testing.assert_allclose(network(observation)[0], by_hand(network, matrix), rtol=1e-4)


def test_the_last_kernel_has_the_size_asked_for():
    """The last kernel has variance scale²/fan-in."""
    wide = tensor_spec.TensorSpec([4000], tf.float32)
    for scale in (0.1, 1.0):
        network = networks.ValueNetwork(wide, (), output_scale=scale)
        network.create_variables()
        np.testing.assert_allclose(network.layers_in_order[0].kernel.numpy().std() * np.sqrt(4000), scale, rtol=0.05)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hidden_layers": (4, 0)}, "a width of hidden_layers must be a positive integer, got 0"),
        ({"output_scale": -1.0}, "output_scale"),
        ({"initial_scale": 0.0}, "initial_scale"),
        ({"input_tensor_spec": tensor_spec.BoundedTensorSpec([], tf.int64, 0, 5000)}, "too wide"),
    ],
)
def test_wrong_arguments_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        networks.ValueNetwork(**{"input_tensor_spec": SPEC, **options})
