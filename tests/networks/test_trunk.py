"""Layers before the Dense ones, such as convolutions."""

import numpy as np
import pytest
import tensorflow as tf
from tf_agents.specs import tensor_spec
from tf_agents.trajectories import time_step as ts

from ngrl import agents, networks, optimizers
from ngrl.agents.linearisable import linearisable

# Bounds as environments give them: TF-Agents can't sample from a uint8 spec with a scalar one of 255.
IMAGE = tensor_spec.BoundedTensorSpec([6, 6, 1], tf.uint8, *(np.full([6, 6, 1], end, np.uint8) for end in (0, 255)))
DISCRETE = tensor_spec.BoundedTensorSpec([], tf.int64, 0, 2)
BOX = tensor_spec.BoundedTensorSpec([2], tf.float32, -1, 1)
SPEC = ts.time_step_spec(IMAGE)


def convolution():
    return tf.keras.layers.Conv2D(2, 3, strides=2, activation="tanh")


def images(rows=5, seed=0):
    return tf.constant(np.random.default_rng(seed).integers(0, 256, (rows, 6, 6, 1)), tf.uint8)


def by_hand(net, pixels):
    """Patches times the kernel, then the Dense layers, in float64."""
    kernel, bias = (weight.numpy().astype(np.float64) for weight in net.trunk.weights)
    x = pixels.numpy().astype(np.float64) / 255
    patches = np.stack([[x[:, i : i + 3, j : j + 3] for j in (0, 2)] for i in (0, 2)])
    hidden = np.tanh(np.einsum("ijbklc,klcf->bijf", patches, kernel) + bias).reshape(len(x), -1)
    for layer in net.layers_in_order:
        hidden = hidden @ layer.kernel.numpy() + layer.bias.numpy()
        hidden = np.tanh(hidden) if layer is not net.layers_in_order[-1] else hidden
    return hidden


@pytest.mark.parametrize("kind", ["actor", "value", "q"])
def test_trunk_comes_before_the_dense_layers_and_sees_pixels_in_0_to_1(kind):
    make = {
        "actor": lambda: networks.ActorNetwork(IMAGE, DISCRETE, (4,), trunk=convolution),
        "value": lambda: networks.ValueNetwork(IMAGE, (4,), trunk=convolution),
        "q": lambda: networks.QNetwork(IMAGE, 3, (4,), trunk=convolution),
    }
    net = make[kind]()
    net.create_variables(IMAGE)
    assert len(net.trainable_weights) == 6
    encode, forward = linearisable(net)
    np.testing.assert_allclose(forward(encode(images())), by_hand(net, images()), rtol=1e-4, atol=1e-5)


def test_dueling_network_gives_its_states_to_the_trunk_and_its_actions_to_the_dense_layers():
    net = networks.StochasticDuelingNetwork(IMAGE, BOX, (4,), trunk=convolution)
    actions = tf.constant(np.random.default_rng(1).uniform(-1, 1, (5, 3, 2)), tf.float32)
    found = net.advantages(images(), actions).numpy()
    assert found.shape == (5, 3)
    assert net.value(images()).shape == (5,)
    single = net.advantages(images()[2:3], actions[2:3, 1:2]).numpy()
    np.testing.assert_allclose(single, found[2:3, 1:2], rtol=1e-4, atol=1e-6)
    assert len(net.trainable_variables) == 12
    assert np.ptp(found, axis=1).min() > 0


@pytest.mark.parametrize("optimizer", [tf.keras.optimizers.Adam, lambda: optimizers.NaturalGradient(0.1, damping=1.0)])
def test_policy_and_its_average_train_with_trunks_of_their_own(optimizer):
    natural = not isinstance(optimizer(), tf.keras.optimizers.Adam)
    actors = [networks.ActorNetwork(IMAGE, DISCRETE, (4,), trunk=convolution) for _ in range(2)]
    critic = agents.Critic(networks.ValueNetwork(IMAGE, (4,), trunk=convolution), tf.keras.optimizers.Adam(), 1, 8)
    kind = agents.NpgAgent if natural else agents.PpoAgent
    agent = kind(SPEC, DISCRETE, actors[0], optimizer(), critic)
    agent.average_into(actors[1], agents.SoftUpdate(0.5))
    generator = np.random.default_rng(0)
    shape = (2, 6)
    batch = agent.collect_data_spec._replace(
        step_type=tf.ones(shape, tf.int32),
        observation=tf.reshape(images(12), [*shape, 6, 6, 1]),
        action=tf.constant(generator.integers(3, size=shape)),
        policy_info=(),
        next_step_type=tf.ones(shape, tf.int32),
        reward=tf.constant(generator.normal(size=shape), tf.float32),
        discount=tf.ones(shape),
    )
    before = [weight.numpy() for weight in actors[0].trunk.weights]
    info = agent.train(batch)
    assert info.extra.optimizer.skipped == 0
    assert all((weight.numpy() != old).any() for weight, old in zip(actors[0].trunk.weights, before, strict=True))
    assert np.isfinite(info.loss)


def test_copies_make_their_own_and_a_layer_that_would_be_shared_is_refused():
    agent = agents.DqnAgent(
        SPEC,
        DISCRETE,
        networks.QNetwork(IMAGE, 3, (4,), trunk=convolution),
        tf.keras.optimizers.Adam(),
        target_update=agents.HardUpdate(10),
    )
    online, target = agent.q_network, agent._target_network
    assert online.trunk is not target.trunk
    np.testing.assert_array_equal(online(images())[0], target(images())[0])
    with pytest.raises(ValueError, match=r"DqnAgent: its copy, the target network, shares '.*' with the Q-network"):
        agents.DqnAgent(
            SPEC,
            DISCRETE,
            networks.QNetwork(IMAGE, 3, (4,), trunk=convolution()),
            tf.keras.optimizers.Adam(),
            target_update=agents.HardUpdate(10),
        )


def test_wrong_trunks_are_named():
    with pytest.raises(ValueError, match="ActorNetwork: trunk must make a Keras layer or model, got 3"):
        networks.ActorNetwork(IMAGE, DISCRETE, trunk=lambda: 3)
    normaliser = networks.ObservationNormaliser(IMAGE)
    with pytest.raises(ValueError, match="ValueNetwork: a trunk takes observations that are not normalised"):
        networks.ValueNetwork(IMAGE, normaliser=normaliser, trunk=convolution)


def test_lstd_q_says_what_it_can_do_with_a_trunk():
    actor = networks.ActorNetwork(IMAGE, DISCRETE, (), trunk=convolution)
    with pytest.raises(ValueError, match="basis='linear' is for policies without a trunk: take 'critic'"):
        agents.NacAgent(SPEC, DISCRETE, actor, optimizers.NaturalGradient(1.0, damping=0.1))
