"""Policies that act with an actor network: what they draw, clip and keep, and their export with the normaliser."""

import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from scipy import stats
from tf_agents.policies import actor_policy, greedy_policy
from tf_agents.specs import tensor_spec
from tf_agents.trajectories import time_step as ts

from ngrl import networks, training
from ngrl.agents.policies import DRAWN, CollectPolicy, info_spec
from ngrl.training.export import as_actor

SPEC = tensor_spec.TensorSpec([3], tf.float32)
LOW, HIGH = np.array([-1.0, -0.1], np.float32), np.array([0.5, 0.2], np.float32)
BOX = tensor_spec.BoundedTensorSpec([2], tf.float32, LOW, HIGH)
DISCRETE = tensor_spec.BoundedTensorSpec([], tf.int64, 0, 2)
X = np.random.default_rng(0).normal(size=(500, 3)).astype(np.float32)

_PLAIN_TENSORFLOW = """
import sys
import numpy as np
import tensorflow as tf
model = tf.saved_model.load(sys.argv[1])
observations = tf.constant(np.load(sys.argv[2]))
count = len(observations)
step = {"discount": tf.ones(count), "reward": tf.zeros(count), "step_type": tf.ones(count, tf.int32)}
step["observation"] = observations
action = model.signatures["action"]
names = action.structured_input_signature[1]
actions = action(**{name: step[name.split("_", 2)[2]] for name in names})["action"].numpy()
loaded = [name for name in sys.modules if name.split(".")[0] in ("ngrl", "tf_agents", "tensorflow_probability")]
assert not loaded, loaded
np.save(sys.argv[3], actions)
"""


def made(action_spec=BOX, observation_spec=SPEC, with_normaliser=False, **options):
    normaliser = networks.ObservationNormaliser(observation_spec) if with_normaliser else None
    arguments = {"hidden_layers": (8,), "output_scale": 1.0, "normaliser": normaliser, "seed": 4, **options}
    network = networks.ActorNetwork(observation_spec, action_spec, **arguments)
    network.create_variables()
    return network


def collect_policy(network, action_spec=BOX):
    return CollectPolicy(ts.time_step_spec(network.input_tensor_spec), action_spec, network)


def policy_of_greedy_actions(network, action_spec=BOX):
    """As the agents make it."""
    spec = ts.time_step_spec(network.input_tensor_spec)
    return greedy_policy.GreedyPolicy(actor_policy.ActorPolicy(spec, action_spec, network))


def time_steps(observations=X):
    return ts.restart(
        tf.nest.map_structure(tf.constant, observations), batch_size=len(tf.nest.flatten(observations)[0])
    )


@pytest.mark.parametrize("compiled", [False, True])
def test_a_continuous_action_is_clipped_and_kept_as_drawn(compiled):
    policy = collect_policy(made())
    action = tf.function(policy.action, autograph=False) if compiled else policy.action
    step = action(time_steps(), (), 5)
    drawn = step.info[DRAWN].numpy()
    np.testing.assert_array_equal(step.action, np.clip(drawn, LOW, HIGH))
    assert ((drawn < LOW) | (drawn > HIGH)).any(axis=0).all()
    assert ((drawn > LOW) & (drawn < HIGH)).any(axis=0).all()


def test_drawn_actions_follow_the_networks_gaussian():
    network = made(initial_log_std=-0.5)
    drawn = collect_policy(network).action(time_steps(), (), 5).info[DRAWN].numpy()
    distribution, _ = network(X)
    standardised = (drawn - distribution.mean().numpy()) / distribution.stddev().numpy()
    for column in range(2):
        assert stats.kstest(standardised[:, column], "norm").pvalue > 1e-4
    again = collect_policy(network).action(time_steps(), (), 6).info[DRAWN].numpy()
    assert (again != drawn).any()


def test_discrete_actions_follow_the_networks_probabilities_and_need_no_info():
    network = made(DISCRETE)
    policy = collect_policy(network, DISCRETE)
    steps = time_steps(np.tile(X[:1], (20_000, 1)))
    step = policy.action(steps, (), 5)
    assert step.info == ()
    assert policy.info_spec == ()
    assert step.action.dtype == tf.int64
    expected = 20_000 * network(X[:1])[0].probs_parameter()[0].numpy()
    seen = np.bincount(step.action, minlength=3)
    assert np.sum((seen - expected) ** 2 / expected) < stats.chi2.ppf(0.9999, df=2)


@pytest.mark.parametrize("spec", [BOX, DISCRETE])
def test_what_a_policy_says_has_the_structure_that_it_promises(spec):
    """Trajectories are stored by these specs."""
    network = made(spec)
    policy = collect_policy(network, spec)
    for step in (policy.action(time_steps()), policy.distribution(time_steps())):
        tf.nest.assert_same_structure(step.info, policy.info_spec)
    assert tensor_spec.from_spec(info_spec(network, spec)) == policy.info_spec
    for value, promised in zip(tf.nest.flatten(step.info), tf.nest.flatten(policy.info_spec), strict=True):
        assert promised.is_compatible_with(value[0])
    assert policy.trajectory_spec.policy_info == policy.info_spec
    assert {id(v) for v in policy.variables()} == {id(v) for v in network.variables}


def test_the_greedy_action_of_a_gaussian_is_its_mean_within_the_bounds():
    network = made()
    mean = network(X)[0].mean().numpy()
    assert ((mean < LOW) | (mean > HIGH)).any(axis=0).all()
    policy = policy_of_greedy_actions(network)
    np.testing.assert_allclose(policy.action(time_steps()).action, np.clip(mean, LOW, HIGH), rtol=1e-6)


def test_the_greedy_discrete_action_is_the_likeliest():
    network = made(DISCRETE)
    expected = np.argmax(network.distribution_parameters(X), axis=1)
    assert len(set(expected)) == 3
    np.testing.assert_array_equal(policy_of_greedy_actions(network, DISCRETE).action(time_steps()).action, expected)


def normalised(action_spec, **options):
    """An actor whose normaliser has seen observations far from 0."""
    network = made(action_spec, with_normaliser=True, **options)
    seen = np.random.default_rng(1).normal([50, -3, 0], [7, 0.1, 2], size=(300, 3)).astype(np.float32)
    network.normaliser.update(tf.constant(seen), tf.ones(300))
    return network, seen


@pytest.mark.parametrize(
    ("spec", "options"),
    [(BOX, {}), (BOX, {"std": "state_dependent"}), (DISCRETE, {})],
    ids=["box", "state", "discrete"],
)
def test_an_exported_policy_normalises_as_the_live_one_did(tmp_path, spec, options):
    network, seen = normalised(spec, **options)
    policy = policy_of_greedy_actions(network, spec)
    live = as_actor(policy)(time_steps(seen))
    training.export_policy(policy, tmp_path / "policy", {})
    # What the live one sees later is not the exported one's business.
    network.normaliser.update(tf.constant(1e3 * seen), tf.ones(300))
    assert (as_actor(policy)(time_steps(seen)) != live).any()
    exported, _ = training.load_policy(tmp_path / "policy")
    np.testing.assert_allclose(exported(time_steps(seen)), live, rtol=1e-5, atol=1e-6)
    for moment in network.normaliser.variables:
        moment.assign(tf.zeros_like(moment) if "mean" in moment.name else tf.ones_like(moment))
    assert np.mean(as_actor(policy)(time_steps(seen)) != live) > 0.1


def test_a_gaussian_policy_and_its_normaliser_need_tensorflow_alone(tmp_path):
    network, seen = normalised(BOX)
    policy = policy_of_greedy_actions(network)
    live = as_actor(policy)(time_steps(seen))
    training.export_policy(policy, tmp_path / "policy", {})
    np.save(tmp_path / "observations.npy", seen)
    arguments = [str(tmp_path / name) for name in ("policy", "observations.npy", "actions.npy")]
    command = [sys.executable, "-c", _PLAIN_TENSORFLOW, *arguments]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    np.testing.assert_allclose(np.load(tmp_path / "actions.npy"), live, rtol=1e-5, atol=1e-6)


def test_a_collect_policy_of_mixed_observations_can_be_exported(tmp_path):
    spec = {"b": tensor_spec.BoundedTensorSpec([], tf.int64, 2, 4), "a": tensor_spec.TensorSpec([2], tf.float32)}
    network = made(BOX, spec, with_normaliser=True, initial_log_std=-5.0)
    observation = {"b": np.array([2, 4, 3]), "a": np.array([[1, 2], [30, 40], [-5, 6]], np.float32)}
    network.normaliser.update(tf.nest.map_structure(tf.constant, observation), tf.ones(3))
    training.export_policy(collect_policy(network), tmp_path / "policy", {})
    exported, _ = training.load_policy(tmp_path / "policy")
    mean = np.clip(network(tf.nest.map_structure(tf.constant, observation))[0].mean(), LOW, HIGH)
    # σ = 0.0067: within six of it.
    np.testing.assert_allclose(exported(time_steps(observation)), mean, atol=6 * np.exp(-5))
