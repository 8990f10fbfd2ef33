"""The average of a network, which is evaluated in its place."""

import numpy as np
import pytest
import tensorflow as tf
from tf_agents.specs import tensor_spec

from ngrl import networks
from ngrl.agents.average import Average
from ngrl.agents.target_update import SoftUpdate

OBSERVATION = tensor_spec.TensorSpec([3], tf.float32)


def network(seed):
    def trunk():
        return tf.keras.layers.Dense(8, "tanh", trainable=False)

    made = networks.QNetwork(OBSERVATION, 2, (5,), seed=seed, trunk=trunk)
    made.create_variables(OBSERVATION)
    return made


def test_average_begins_as_its_network_whose_frozen_layers_it_shares():
    online, average = network(1), network(2)
    inputs = tf.constant(np.random.default_rng(0).normal(size=(4, 3)), tf.float32)
    assert not np.allclose(average(inputs)[0], online(inputs)[0])
    Average("X", "its network", online, average, SoftUpdate(0.5), OBSERVATION, natural=False)
    np.testing.assert_array_equal(average(inputs)[0], online(inputs)[0])


def test_average_whose_frozen_layers_are_others_is_refused_though_shapes_agree():
    online, average = (networks.QNetwork(OBSERVATION, 3, (3, 3), seed=seed) for seed in range(2))
    for made in (online, average):
        made.create_variables(OBSERVATION)
    online.layers_in_order[0].trainable = False
    average.layers_in_order[1].trainable = False
    with pytest.raises(ValueError, match="X: the average's frozen layers are others than its network's"):
        Average("X", "its network", online, average, SoftUpdate(0.5), OBSERVATION, natural=False)
