"""Actions chosen with NumPy: TensorFlow's draws, the present weights, bit for bit when restored, or a refusal."""

import numpy as np
import pytest
import tensorflow as tf
from matching_environment import ENV_ID
from small_on_policy import load, make, snapshot

from ngrl import loops, networks, seeding
from ngrl.agents import host_policy


def made(env_id, **options):
    """Batches of eight steps."""
    return make("reinforce", env_id, batch_size=32, act_on_host=True, **options)


def acted(agent, observation, call):
    return agent.act(observation, seeding.at(seeding.key(0, seeding.Stream.ACTIONS), call))


@pytest.mark.parametrize("env_id", ["CartPole-v1", "Pendulum-v1", ENV_ID])
def test_draws_are_tensorflows_and_distributions_agree_to_rounding(env_id):
    options = {"env_options": {"as_floats": True}} if env_id == ENV_ID else {}
    agent, loop = made(env_id, **options, agent_options={"hidden": (5,), "normalise": True})
    moments, generator = agent.actor_network.normaliser.moments, np.random.default_rng(0)
    for first in (1, 6):
        for variable in agent.actor_network.trainable_variables:
            variable.assign(generator.normal(size=variable.shape))
        moments.mean.assign(generator.normal(size=moments.mean.shape))
        moments.variance.assign(generator.uniform(1, 2, moments.variance.shape))
        loop._host.forget()
        for call in range(first, 12):
            observation = generator.normal(size=(4, moments.mean.shape[0])).astype(np.float32)
            expected = acted(agent, observation, call)
            action, *drawn = loop._host(observation, call)
            assert action.dtype == expected.action.dtype.as_numpy_dtype
            np.testing.assert_allclose(action, expected.action, rtol=1e-5, atol=1e-6)
            for found, leaf in zip(drawn, tf.nest.flatten(expected.info), strict=True):
                np.testing.assert_allclose(found, leaf, rtol=1e-5, atol=1e-6)


def test_batches_are_collected_with_the_weights_of_their_time_and_resume_bit_for_bit():
    (agent, loop), (other, resumed) = made("Pendulum-v1"), made("Pendulum-v1")
    for _ in range(12):  # an update, and half a batch
        loop.step()
    for variable, value in zip(resumed._used(), loop._used(), strict=True):
        variable.assign(value)
    resumed.restore(loop.state())
    for _ in range(3):
        loop.step()
        resumed.step()
    rows = loop._rows
    for row in (0, 6):
        expected = acted(agent, rows.observation[:, row], 9 + row)
        np.testing.assert_allclose(rows.policy_info["drawn_action"][:, row], expected.info["drawn_action"], rtol=1e-5)
    loop.step()
    resumed.step()
    assert loop.train_steps == resumed.train_steps == 2
    assert snapshot(agent) == snapshot(other)


def test_policy_that_numpy_does_not_know_is_refused_in_a_line():
    _, (steps, actions) = load("CartPole-v1")
    box = load("Pendulum-v1")[1][1]
    for options, message in [
        ({"recurrent": 3}, "without a trunk and a memory"),
        ({"activation": "gelu"}, "the activations tanh, relu, linear"),
    ]:
        network = networks.ActorNetwork(steps.observation, actions, (4,), **options)
        with pytest.raises(ValueError, match=rf"^OnPolicyLoop\.act_on_host is for [^\n]*{message}"):
            host_policy.HostPolicy(network, actions, np.zeros(2, np.int32), (2, 2), lambda graph: graph)
    network = networks.ActorNetwork(steps.observation, box, (4,), std="state_dependent")
    with pytest.raises(ValueError, match="a state-independent σ"):
        host_policy.HostPolicy(network, box, np.zeros(2, np.int32), (2, 2), lambda graph: graph)
    network = networks.ActorNetwork({"x": steps.observation}, actions, (4,))
    with pytest.raises(ValueError, match="observations that are one array of floats"):
        host_policy.HostPolicy(network, actions, np.zeros(2, np.int32), (2, 2), lambda graph: graph)
    with pytest.raises(ValueError, match="which compiled ones don't"):
        made("CartPole-v1", env_options={"backend": "compiled"})


# --- the critic's fit beside the next collection


def test_fit_beside_the_next_collection_changes_no_number():
    (agent, loop), (other, beside) = make("reinforce"), make("reinforce", overlap_critic=True)
    for _ in range(16 * 3 + 5):
        loop.step()
        beside.step()
    assert beside._fitting is not None
    assert beside.state().values == loop.state().values  # which waits for the fit
    assert snapshot(agent) == snapshot(other)
    assert beside.scalars() == loop.scalars()
    assert beside.scalars()["Losses/critic_loss"] > 0
    # The update whose critic is being fitted is not yet known to be skipped.
    for _ in range(16):
        beside.step()
    assert beside._fitting is not None
    beside._streak = np.array([beside._max_skipped, 1], np.float32)
    first = beside.train_steps - 1 - beside._max_skipped + 1
    with pytest.raises(loops.NonFiniteError, match=rf"\(train step {first}\)$"):
        beside.check_streak()
    # A skipped minibatch is counted, once the fit is over.
    beside._fit = lambda *arguments: other.fit_critic(*arguments)._replace(skipped=tf.ones([]))
    for _ in range(16):
        beside.step()
    assert beside.scalars()["ngrl/skipped_updates"] == 1


def test_without_a_critic_there_is_nothing_to_fit(monkeypatch):
    agent, loop = make("reinforce")
    monkeypatch.setattr(agent, "_critic", None)
    with pytest.raises(ValueError, match=r"^overlap_critic: there is no critic to fit"):
        loops.OnPolicyLoop(agent, loop._environment, batch_size=64, jit_compile=False, overlap_critic=True)
