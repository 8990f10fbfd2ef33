"""`ConvNetwork`: images of every layout, as a slow loop sees them, in every network and in steps of an agent."""

import itertools

import numpy as np
import pytest
import tensorflow as tf
from tf_agents.specs import tensor_spec
from tf_agents.trajectories import time_step as ts
from tf_agents.trajectories import trajectory

from ngrl import agents, curvature, networks, optimizers
from ngrl.agents.linearisable import linearisable
from ngrl.networks import ConvNetwork

DISCRETE = tensor_spec.BoundedTensorSpec([], tf.int64, 0, 2)
BOX = tensor_spec.BoundedTensorSpec([2], tf.float32, -1, 1)
SMALL = ConvNetwork(((3, 3, 2), (2, 2, 1)))


def image_spec(*shape, dtype=tf.uint8, high=255):
    kind = dtype.as_numpy_dtype
    return tensor_spec.BoundedTensorSpec(shape, dtype, np.zeros(shape, kind), np.full(shape, high, kind))


@pytest.mark.parametrize("data_format", [None, "channels_first"])
def test_a_stack_of_channel_first_images_is_that_of_channel_last_ones(data_format):
    first, last = image_spec(4, 3, 12, 14), image_spec(4, 12, 14, 3)
    layers = ((5, 3, 1),)
    pair = [
        networks.QNetwork(first, 2, trunk=ConvNetwork(layers, data_format=data_format), seed=1),
        networks.QNetwork(last, 2, trunk=ConvNetwork(layers), seed=1),
    ]
    images = draw(last)
    values = [
        network(tf.constant(np.moveaxis(images, -1, 2) if network is pair[0] else images, tf.uint8))[0]
        for network in pair
    ]
    assert pair[0].trunk.weights[0].shape == [3, 3, 12, 5]
    np.testing.assert_allclose(*values, rtol=1e-5)


def draw(spec, rows=4):
    return np.random.default_rng(0).integers(0, int(spec.maximum.max()) + 1, (rows, *spec.shape))


def convolve(image, kernel, bias, stride):
    """max(0, w · patch + b) at each position, in float64."""
    size = kernel.shape[0]
    places = [range(0, extent - size + 1, stride) for extent in image.shape[:2]]
    out = np.zeros([*map(len, places), kernel.shape[-1]])
    for (i, row), (j, column) in itertools.product(enumerate(places[0]), enumerate(places[1])):
        patch = image[row : row + size, column : column + size]
        out[i, j] = np.einsum("abc,abcf->f", patch, kernel) + bias
    return np.maximum(out, 0)


def by_hand(net, images):
    """Action values of images [B, H, W, C] in [0, 1]."""
    weights = [weight.numpy().astype(np.float64) for weight in net.trunk.weights]
    values = []
    for image in images:
        for number, (_, _, stride) in enumerate(SMALL.conv_layers):
            image = convolve(image, *weights[2 * number : 2 * number + 2], stride)
        x = image.reshape(-1)
        for layer in net.layers_in_order:
            x = x @ layer.kernel.numpy() + layer.bias.numpy()
            x = np.tanh(x) if layer is not net.layers_in_order[-1] else x
        values.append(x)
    return np.stack(values)


@pytest.mark.parametrize(
    ("shape", "data_format", "to_last"),
    [
        ((9, 8, 4), None, lambda x: x),
        ((4, 9, 8), None, lambda x: x.transpose(0, 2, 3, 1)),
        ((8, 8, 9), None, lambda x: x),
        ((9, 8), None, lambda x: x[..., np.newaxis]),
        # A stack of 3 images with 2 channels: each channel of the first, second and third image, then the next channel.
        ((3, 9, 8, 2), None, lambda x: np.stack([x[:, s, ..., c] for c in range(2) for s in range(3)], axis=-1)),
        ((8, 9, 10), "channels_last", lambda x: x),
        ((10, 9, 8), "channels_first", lambda x: x.transpose(0, 2, 3, 1)),
    ],
)
def test_images_of_every_layout_give_what_a_slow_loop_gives(shape, data_format, to_last):
    spec = image_spec(*shape)
    trunk = ConvNetwork(SMALL.conv_layers, data_format=data_format)
    net = networks.QNetwork(spec, 3, (4,), trunk=trunk)
    net.create_variables()
    pixels = draw(spec)
    np.testing.assert_allclose(
        net(tf.constant(pixels, tf.uint8))[0], by_hand(net, to_last(pixels / 255)), rtol=1e-4, atol=1e-5
    )


def test_bools_as_uint8_and_floats_are_the_same_image():
    """MinAtar's bools come as uint8 of 0 and 1."""
    bits = image_spec(9, 8, 4, high=1)
    floats = tensor_spec.TensorSpec([9, 8, 4], tf.float32)
    nets = [networks.QNetwork(spec, 3, trunk=SMALL) for spec in (bits, floats)]
    pixels = draw(bits)
    first, second = (net(tf.constant(pixels, net.input_tensor_spec.dtype))[0] for net in nets)
    np.testing.assert_array_equal(first, second)
    assert np.ptp(first, axis=0).min() > 0


def test_weights_follow_from_the_seed_the_network_and_the_layer():
    spec = image_spec(9, 8, 1)
    trunk = ConvNetwork(((4, 2, 1), (4, 2, 1), (4, 2, 1)))

    def kernels(make, seed):
        tf.keras.utils.set_random_seed(seed + 100)  # which must not count
        net = make(spec, seed=seed)
        net.create_variables()
        return [weight.numpy() for weight in net.trunk.weights[::2]]

    q = lambda spec, seed: networks.QNetwork(spec, 3, trunk=trunk, seed=seed)  # noqa: E731
    value = lambda spec, seed: networks.ValueNetwork(spec, trunk=trunk, seed=seed)  # noqa: E731
    again = [kernels(q, 0) for _ in range(2)]
    for one, other in zip(*again, strict=True):
        np.testing.assert_array_equal(one, other)
    drawn = [kernel[0].tobytes() for found in (again[0], kernels(q, 1), kernels(value, 0)) for kernel in found]
    assert len(set(drawn)) == len(drawn) == 9


def test_kernels_have_the_variance_that_is_asked_for():
    net = networks.QNetwork(image_spec(9, 9, 16), 3, trunk=ConvNetwork(((512, 3, 1),), initial_scale=3.0))
    net.create_variables()
    assert np.var(net.trunk.weights[0]) * 9 * 16 == pytest.approx(3, rel=0.02)


def test_layer_norm_normalises_the_channels_before_the_activation():
    spec = image_spec(5, 5, 1)
    net = networks.QNetwork(spec, 3, trunk=ConvNetwork(((6, 3, 1),), layer_norm=True, activation="linear"))
    net.create_variables()
    made = net.trunk(tf.constant(draw(spec) / 255, tf.float32)).numpy()
    np.testing.assert_allclose(made.mean(axis=-1), 0, atol=1e-5)
    assert np.median(made.var(axis=-1)) == pytest.approx(1, abs=0.05)


MAKERS = {
    "q": lambda spec: networks.QNetwork(spec, 3, (4,), trunk=SMALL),
    "value": lambda spec: networks.ValueNetwork(spec, (4,), trunk=SMALL),
    "categorical": lambda spec: networks.ActorNetwork(spec, DISCRETE, (4,), trunk=SMALL),
    "gaussian": lambda spec: networks.ActorNetwork(spec, BOX, (4,), trunk=SMALL),
    "state-dependent": lambda spec: networks.ActorNetwork(spec, BOX, (4,), std="state_dependent", trunk=SMALL),
}


@pytest.mark.parametrize("kind", MAKERS)
def test_every_layer_has_a_rule_so_that_no_jacobian_is_formed(kind):
    spec = image_spec(4, 9, 8)
    net = MAKERS[kind](spec)
    net.create_variables()
    encode, forward = linearisable(net)
    operator = curvature.GaussNewton(forward, net.trainable_variables, encode(tf.constant(draw(spec), tf.uint8)))
    assert operator.unruled == (("log_std:0",) if kind == "gaussian" else ())


def test_the_dueling_network_gives_states_to_the_trunk():
    spec = image_spec(4, 9, 8)
    net = networks.StochasticDuelingNetwork(spec, BOX, (4,), trunk=SMALL)
    pixels = tf.constant(draw(spec), tf.uint8)
    assert net.value(pixels).shape == (4,)
    actions = tf.constant(np.random.default_rng(1).uniform(-1, 1, (4, 3, 2)), tf.float32)
    single = net.advantages(pixels[2:3], actions[2:3, 1:2])
    np.testing.assert_allclose(single, net.advantages(pixels, actions)[2:3, 1:2], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("natural", [True, False])
def test_an_agent_and_its_target_network_train_each_with_a_trunk_of_its_own(natural):
    spec = image_spec(4, 9, 8)
    optimizer = optimizers.NaturalGradient(1.0, damping=1.0) if natural else tf.keras.optimizers.Adam(0.01)
    net = networks.QNetwork(spec, 3, (4,), trunk=SMALL)
    agent = agents.DqnAgent(ts.time_step_spec(spec), DISCRETE, net, optimizer, target_update=agents.HardUpdate(10))
    before = [weight.numpy() for weight in net.trunk.weights]
    target = agent._target_network.trunk.weights
    for one, other in zip(target, before, strict=True):
        np.testing.assert_array_equal(one, other)
    pixels = tf.constant(draw(spec), tf.uint8)
    rows, middle = tf.ones([4]), tf.ones([4], tf.int32)
    info = agent.train(
        trajectory.Transition(
            ts.TimeStep(middle, rows, rows, pixels),
            agents.dqn_agent.policy_step.PolicyStep(tf.constant([0, 1, 2, 0], tf.int64), (), ()),
            ts.TimeStep(middle, rows, rows, pixels[::-1]),
        )
    )
    assert info.extra.optimizer.skipped == 0
    assert all((weight.numpy() != old).any() for weight, old in zip(net.trunk.weights, before, strict=True))
    for one, other in zip(target, before, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"conv_layers": ()}, r"conv_layers must hold \(filters, kernel, stride\) of each, got \(\)"),
        ({"conv_layers": (16, 3, 1)}, r"conv_layers must hold .* got \(16, 3, 1\)"),
        ({"conv_layers": ((16, 3),)}, r"conv_layers must hold .* got \(\(16, 3\),\)"),
        ({"conv_layers": ((16, 3, 0),)}, "conv_layers: a stride must be a positive integer, got 0"),
        ({"padding": "causal"}, "padding must be 'valid' or 'same', got 'causal'"),
        ({"data_format": "last"}, "data_format must be .* got 'last'"),
        ({"initial_scale": 0.0}, "initial_scale must be positive and finite, got 0.0"),
    ],
)
def test_wrong_arguments_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        ConvNetwork(**options)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (tensor_spec.TensorSpec([4], tf.float32), r"QNetwork: ConvNetwork is for images .* are of shape \(4,\)"),
        ({"a": image_spec(9, 9), "b": image_spec(9, 9)}, "QNetwork: ConvNetwork is for images .* are 2 arrays"),
        (image_spec(10, 10, 4), r"QNetwork: convolution 2 of ConvNetwork.conv_layers has a kernel of 4 × 4 for 1 × 1"),
    ],
)
def test_what_is_no_image_or_too_small_is_refused_in_a_line(spec, message):
    with pytest.raises(ValueError, match=message) as caught:
        networks.QNetwork(spec, 3, trunk=ConvNetwork())
    assert "\n" not in str(caught.value)


def test_outputs_may_be_as_large_as_the_inputs():
    net = networks.QNetwork(image_spec(10, 10, 4), 3, trunk=ConvNetwork(((2, 8, 1), (2, 4, 2)), padding="same"))
    net.create_variables()
    assert net.trunk.output_shape == (None, 5, 5, 2)
