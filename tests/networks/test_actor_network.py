"""The policy network: its parameters, its distribution, and a standard deviation that collapses."""

import numpy as np
import pytest
import tensorflow as tf
from scipy import stats
from tf_agents.specs import tensor_spec

from ngrl import losses, networks

SPEC = tensor_spec.TensorSpec([3], tf.float32)
DISCRETE = tensor_spec.BoundedTensorSpec([], tf.int64, 0, 3)
BOX = tensor_spec.BoundedTensorSpec([2], tf.float32, -1, 1)
X = np.random.default_rng(0).normal(size=(6, 3)).astype(np.float32)
ACTIONS = tf.constant(np.random.default_rng(1).normal(size=(6, 2)), tf.float32)


def made(action_spec=BOX, **options):
    arguments = {"hidden_layers": (5, 4), "output_scale": 1.0, "seed": 3, **options}
    network = networks.ActorNetwork(SPEC, action_spec, **arguments)
    network.create_variables()
    return network


def by_hand(network, x):
    """The last layer's outputs as a product of matrices, float64."""
    for layer in network.layers_in_order[:-1]:
        x = np.tanh(x @ layer.kernel.numpy().astype(np.float64) + layer.bias.numpy())
    last = network.layers_in_order[-1]
    return x @ last.kernel.numpy().astype(np.float64) + last.bias.numpy()


def log_prob(parameters):
    return losses.diagonal_gaussian_log_prob(*tf.split(parameters, 2, axis=-1), ACTIONS)


def collapsed(std):
    """A policy whose first log σ lies far below its bound of −5, in every state; the second does not."""
    network = made(std=std)
    if std == "state_independent":
        network.log_std.assign([-300.0, -0.5])
    else:
        network.layers_in_order[-1].bias.assign([0.0, 0.0, -300.0, -0.5])
    return network


def test_discrete_parameters_are_logits():
    network = made(DISCRETE)
    distribution, state = network(X)
    logits = by_hand(network, X)
    expected = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    np.testing.assert_allclose(network.distribution_parameters(X), logits, rtol=1e-4, atol=1e-6)
    assert state == ()
    assert distribution.dtype == DISCRETE.dtype
    for action in range(4):
        np.testing.assert_allclose(distribution.log_prob(action), expected[:, action], rtol=1e-4, atol=1e-6)
    assert network.is_discrete
    assert network.log_std is None


@pytest.mark.parametrize("std", [None, "state_independent", "state_dependent"])
@pytest.mark.parametrize("initial_log_std", [None, -1.5, 0.7])
def test_continuous_parameters_are_mean_and_log_std(std, initial_log_std):
    network = made(std=std, initial_log_std=initial_log_std)
    parameters = network.distribution_parameters(X).numpy()
    outputs = by_hand(network, X)
    initial = 0.0 if initial_log_std is None else initial_log_std
    free = np.zeros((6, 2)) if std != "state_dependent" else outputs[:, 2:]
    np.testing.assert_allclose(parameters, np.hstack([outputs[:, :2], free + initial]), rtol=1e-4, atol=1e-6)
    distribution, _ = network(X)
    np.testing.assert_allclose(distribution.mean(), parameters[:, :2], rtol=1e-6)
    np.testing.assert_allclose(distribution.stddev(), np.exp(parameters[:, 2:]), rtol=1e-5)
    expected = stats.norm.logpdf(ACTIONS, parameters[:, :2], np.exp(parameters[:, 2:])).sum(axis=1)
    np.testing.assert_allclose(distribution.log_prob(ACTIONS), expected, rtol=1e-4)
    assert (network.log_std is None) == (std == "state_dependent")
    assert not network.is_discrete


def test_a_state_independent_log_std_is_a_parameter():
    network = made()
    assert any(variable is network.log_std for variable in network.trainable_weights)
    network.log_std.assign([-2.0, 1.0])
    np.testing.assert_array_equal(network.distribution_parameters(X)[:, 2:], np.tile([-2.0, 1.0], (6, 1)))


def test_small_output_scale_starts_near_equal_actions_and_zero_means():
    logits = made(DISCRETE, output_scale=0.01).distribution_parameters(X)
    assert np.ptp(logits.numpy(), axis=1).max() < 0.1
    assert np.abs(made(output_scale=0.01)(X)[0].mean()).max() < 0.1


def test_log_std_keeps_to_its_bound():
    for std in ("state_independent", "state_dependent"):
        parameters = collapsed(std).distribution_parameters(X).numpy()
        np.testing.assert_array_equal(parameters[:, 2], np.full(6, -5.0))
        assert (parameters[:, 3] > -5).all()


@pytest.mark.parametrize("std", ["state_independent", "state_dependent"])
@pytest.mark.parametrize("jit_compile", [False, True])
def test_a_collapsed_standard_deviation_leaves_everything_finite(std, jit_compile):
    network = collapsed(std)
    old = made(std=std).distribution_parameters(X)

    @tf.function(jit_compile=jit_compile, autograph=False)
    def everything():
        with tf.GradientTape() as tape:
            parameters = network.distribution_parameters(X)
            probabilities = log_prob(parameters)
            divergence = losses.kl_diagonal_gaussian(*tf.split(old, 2, axis=-1), *tf.split(parameters, 2, axis=-1))
            entropy = losses.diagonal_gaussian_entropy(parameters[:, 2:])
            total = tf.reduce_sum(probabilities + divergence + entropy)
        gradients = tape.gradient(total, network.trainable_weights)
        return [probabilities, divergence, entropy, network(X)[0].log_prob(ACTIONS), *gradients]

    results = everything()
    for result in results:
        assert np.isfinite(result).all()
    assert all(np.abs(gradient).max() > 0 for gradient in results[4:])


def test_project_keeps_the_policy_and_lets_gradients_move_it_again():
    network = collapsed("state_independent")

    def log_std_gradient():
        with tf.GradientTape() as tape:
            total = tf.reduce_sum(log_prob(network.distribution_parameters(X)))
        return tape.gradient(total, network.log_std).numpy()

    before = network.distribution_parameters(X).numpy()
    stuck = log_std_gradient()
    network.project()
    np.testing.assert_array_equal(network.distribution_parameters(X), before)
    np.testing.assert_array_equal(network.log_std, [-5.0, -0.5])
    assert stuck[0] == 0
    free = log_std_gradient()
    mean, sigma = before[:, 0].astype(np.float64), np.exp(-5.0)
    # d log N(a; μ, σ) / d log σ = ((a − μ)/σ)² − 1
    np.testing.assert_allclose(free[0], (((ACTIONS[:, 0].numpy() - mean) / sigma) ** 2 - 1).sum(), rtol=1e-4)
    np.testing.assert_array_equal(free[1], stuck[1])


def test_a_projected_log_std_rises_as_one_that_never_fell():
    """Gradient ascent on the log-probability of far actions, from far below the bound."""
    network = collapsed("state_independent")
    optimizer = tf.keras.optimizers.SGD(0.1)
    for _ in range(40):
        network.project()
        with tf.GradientTape() as tape:
            entropy = -tf.reduce_sum(losses.diagonal_gaussian_entropy(network.distribution_parameters(X)[:, 2:]))
        gradient = tape.gradient(entropy, network.log_std)
        optimizer.apply_gradients([(gradient / 6, network.log_std)])
    np.testing.assert_allclose(network.log_std, [-5.0 + 4.0, -0.5 + 4.0], rtol=1e-5)


@pytest.mark.parametrize("jit_compile", [False, True])
def test_project_leaves_what_is_within_its_bound_as_it_is(jit_compile):
    for network in (made(initial_log_std=-4.9), made(std="state_dependent"), made(DISCRETE)):
        before = [variable.numpy().tobytes() for variable in network.variables]
        tf.function(network.project, jit_compile=jit_compile, autograph=False)()
        assert [variable.numpy().tobytes() for variable in network.variables] == before


def test_bounding_twice_is_bounding_once():
    parameters = tf.constant([[1.0, -200.0, -200.0, -4.0]])
    network = made()
    once = network.bound(parameters)
    np.testing.assert_array_equal(once, [[1.0, -200.0, -5.0, -4.0]])
    np.testing.assert_array_equal(network.bound(once), once)
    logits = tf.constant([[-200.0, 3.0, 0.0, 1.0]])
    np.testing.assert_array_equal(made(DISCRETE).bound(logits), logits)


def test_normaliser_is_applied_listed_and_not_trained():
    normaliser = networks.ObservationNormaliser(SPEC)
    network = made(normaliser=normaliser)
    seen = np.random.default_rng(2).normal([5, 0, -3], [1, 10, 0.1], size=(100, 3)).astype(np.float32)
    normaliser.update(tf.constant(seen), tf.ones(100))
    expected = by_hand(network, (seen - seen.mean(axis=0)) / seen.std(axis=0))
    np.testing.assert_allclose(network(seen)[0].mean(), expected, rtol=1e-3, atol=1e-4)
    trained = {id(variable) for variable in network.trainable_weights}
    listed = {id(variable) for variable in network.variables}
    assert {id(variable) for variable in normaliser.variables} == listed - trained


def test_a_checkpoint_carries_the_normaliser_that_actor_and_critic_share(tmp_path):
    def pair(seed):
        normaliser = networks.ObservationNormaliser(SPEC)
        return made(normaliser=normaliser, seed=seed), networks.ValueNetwork(
            SPEC, (4,), normaliser=normaliser, seed=seed
        )

    actor, value = pair(0)
    actor.normaliser.update(tf.constant(10 + 3 * X), tf.ones(6))
    actor.log_std.assign([-1.0, 0.3])
    value.create_variables()
    path = tf.train.Checkpoint(actor=actor, value=value).write(str(tmp_path / "pair"))
    other_actor, other_value = pair(1)
    other_value.create_variables()
    different = other_actor.distribution_parameters(X).numpy()
    status = tf.train.Checkpoint(actor=other_actor, value=other_value).read(path)
    status.assert_existing_objects_matched()
    status.assert_consumed()
    np.testing.assert_array_equal(other_actor.distribution_parameters(X), actor.distribution_parameters(X))
    np.testing.assert_array_equal(other_value(X)[0], value(X)[0])
    np.testing.assert_array_equal(other_actor.normaliser.moments.count, 6)
    assert np.abs(different - actor.distribution_parameters(X).numpy()).max() > 0.01


def test_one_discrete_action_or_one_vector_is_told_apart():
    assert networks.is_discrete_action(DISCRETE)
    assert networks.is_discrete_action(tensor_spec.BoundedTensorSpec([], tf.int32, 0, 0))
    assert not networks.is_discrete_action(BOX)
    assert not networks.is_discrete_action(tensor_spec.TensorSpec([1], tf.float32))


@pytest.mark.parametrize(
    "spec",
    [
        tensor_spec.BoundedTensorSpec([], tf.int64, 1, 3),
        tensor_spec.BoundedTensorSpec([2, 2], tf.int64, 0, 3),
        tensor_spec.TensorSpec([], tf.int64),
        tensor_spec.BoundedTensorSpec([], tf.float32, -1, 1),
        tensor_spec.BoundedTensorSpec([2, 2], tf.float32, -1, 1),
        (DISCRETE, BOX),
        (),
    ],
)
def test_other_actions_are_refused(spec):
    with pytest.raises(ValueError, match="discrete actions counted from 0 or one vector of real numbers"):
        networks.is_discrete_action(spec)
    with pytest.raises(ValueError, match="discrete actions counted from 0 or one vector of real numbers"):
        networks.ActorNetwork(SPEC, spec)


def test_actions_of_another_kind_are_described_in_a_few_words():
    spec = tensor_spec.BoundedTensorSpec([20, 20], tf.float32, -np.ones([20, 20]), 1)
    with pytest.raises(ValueError, match=r"has actions of shape \(20, 20\) and dtype float32$"):
        networks.is_discrete_action(spec)
    with pytest.raises(ValueError, match=r"has actions of shape \(\) and dtype int64 from 1 to 3$"):
        networks.is_discrete_action(tensor_spec.BoundedTensorSpec([], tf.int64, 1, 3))


@pytest.mark.parametrize(
    ("spec", "options", "message"),
    [
        (DISCRETE, {"std": "state_independent"}, "are for continuous actions"),
        (DISCRETE, {"std": "state_dependent"}, "are for continuous actions"),
        (DISCRETE, {"initial_log_std": 0.0}, "are for continuous actions"),
        (BOX, {"std": "learned"}, "std must be 'state_independent' or 'state_dependent', got 'learned'"),
        (BOX, {"initial_log_std": -5.5}, "not below min_log_std"),
        (BOX, {"initial_log_std": float("nan")}, "must be finite"),
        (BOX, {"initial_log_std": float("inf")}, "must be finite"),
        (BOX, {"min_log_std": float("-inf")}, "not below min_log_std"),
        (BOX, {"hidden_layers": (0,)}, "a width of hidden_layers must be a positive integer, got 0"),
        (BOX, {"output_scale": 0.0}, "output_scale"),
        (BOX, {"normaliser": networks.ObservationNormaliser(tensor_spec.TensorSpec([4], tf.float32))}, "4 entries"),
    ],
)
def test_wrong_arguments_are_named(spec, options, message):
    with pytest.raises(ValueError, match=message):
        networks.ActorNetwork(SPEC, spec, **options)
