import numpy as np
import pytest
import tensorflow as tf
from tf_agents.specs import tensor_spec

from ngrl import networks

SPEC = tensor_spec.TensorSpec([3], tf.float32)
BOX = tensor_spec.BoundedTensorSpec([2], tf.float32, [-1, -2], [1, 2])
GENERATOR = np.random.default_rng(0)
OBSERVATION = tf.constant(GENERATOR.normal(size=(4, 3)), tf.float32)


def made(**options):
    return networks.StochasticDuelingNetwork(SPEC, BOX, (5,), seed=3, **options)


def test_every_action_of_a_state_has_an_advantage_of_its_own():
    network = made()
    actions = GENERATOR.uniform(-1, 1, size=(4, 6, 2)).astype(np.float32)
    together = network.advantages(OBSERVATION, tf.constant(actions)).numpy()
    assert together.shape == (4, 6)
    for j in range(6):
        alone = network.advantages(OBSERVATION, tf.constant(actions[:, j : j + 1]))
        np.testing.assert_allclose(together[:, j : j + 1], alone, rtol=1e-5)
    assert len(np.unique(together.round(5))) == 24
    assert network.value(OBSERVATION).shape == (4,)


def test_actions_count_as_the_environment_takes_them():
    network = made()
    drawn = tf.constant(np.tile([[3.0, -7.0]], (4, 1, 1)), tf.float32)
    taken = tf.constant(np.tile([[1.0, -2.0]], (4, 1, 1)), tf.float32)
    inside = tf.constant(np.tile([[0.9, -1.9]], (4, 1, 1)), tf.float32)
    beyond = network.advantages(OBSERVATION, drawn)
    np.testing.assert_array_equal(beyond, network.advantages(OBSERVATION, taken))
    assert np.abs(beyond - network.advantages(OBSERVATION, inside)).max() > 1e-4


def test_value_and_advantage_have_no_weight_in_common():
    network = made()
    with tf.GradientTape() as tape:
        value = tf.reduce_sum(network.value(OBSERVATION))
    slopes = tape.gradient(value, network.trainable_variables)
    assert [slope is None for slope in slopes].count(False) == 4  # two kernels and two biases
    assert len(slopes) == 8


def test_seed_decides_the_weights():
    one, same = made(), made()
    other = networks.StochasticDuelingNetwork(SPEC, BOX, (5,), seed=4)
    for a, b in zip(one.variables, same.variables, strict=True):
        np.testing.assert_array_equal(a, b)
    assert any((a.numpy() != b.numpy()).any() for a, b in zip(one.variables, other.variables, strict=True))


@pytest.mark.parametrize("spec", [tensor_spec.BoundedTensorSpec([], tf.int64, 0, 1), 2])
def test_discrete_actions_are_refused(spec):
    with pytest.raises(ValueError, match=r"^StochasticDuelingNetwork is for continuous actions, .*discrete$"):
        networks.StochasticDuelingNetwork(SPEC, spec)


def test_number_of_samples_must_be_positive():
    with pytest.raises(ValueError, match="num_samples must be a positive integer, got 0"):
        made(num_samples=0)
