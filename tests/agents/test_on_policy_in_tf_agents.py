"""The on-policy agents in TF-Agents' own machinery: collected by its driver, kept by its buffer, trained by `train`."""

import numpy as np
import pytest
import tensorflow as tf
from on_policy_agents import ON_POLICY, make_optimizer
from tf_agents.drivers import dynamic_step_driver
from tf_agents.environments import tf_py_environment
from tf_agents.replay_buffers import tf_uniform_replay_buffer

from ngrl import agents, environments, networks

NUM_ENVS, ROWS = 4, 24


def build(kind, time_step_spec, action_spec):
    optimizer = make_optimizer(kind, 0.01, damping=0.1, max_kl=0.02)
    observation = time_step_spec.observation
    normaliser = networks.ObservationNormaliser(observation)
    actor = networks.ActorNetwork(observation, action_spec, (8,), normaliser=normaliser)
    value = networks.ValueNetwork(observation, (8,), normaliser=normaliser)
    critic = agents.Critic(value, tf.keras.optimizers.Adam(0.01), epochs=2, batch_size=32)
    return ON_POLICY[kind][0](time_step_spec, action_spec, actor, optimizer, critic)


@pytest.mark.parametrize("kind", ON_POLICY)
@pytest.mark.parametrize("env_id", ["CartPole-v1", "ngrl/Identity-v0", "Pendulum-v1", "ngrl/IdentityBox-v0"])
def test_agent_trains_on_what_a_stock_driver_collected(kind, env_id):
    environment = tf_py_environment.TFPyEnvironment(environments.load(env_id, num_envs=NUM_ENVS, seed=0))
    agent = build(kind, environment.time_step_spec(), environment.action_spec())
    agent.initialize()
    buffer = tf_uniform_replay_buffer.TFUniformReplayBuffer(agent.collect_data_spec, NUM_ENVS, max_length=ROWS)
    driver = dynamic_step_driver.DynamicStepDriver(
        environment, agent.collect_policy, observers=[buffer.add_batch], num_steps=NUM_ENVS * (ROWS - 2)
    )
    for _ in range(2):
        before = [v.numpy() for v in [*agent.actor_network.variables, *agent.critic.network.variables]]
        driver.run()
        batch = buffer.gather_all()
        assert batch.step_type.shape[0] == NUM_ENVS
        info = agent.train(batch)
        buffer.clear()
        after = [v.numpy() for v in [*agent.actor_network.variables, *agent.critic.network.variables]]
        assert all(np.isfinite(new).all() for new in after)
        assert all((old != new).any() for old, new in zip(before, after, strict=True))
        assert np.isfinite(info.loss)
        assert info.extra.kl > 0
        assert info.extra.optimizer.skipped == info.extra.critic_skipped == 0
    assert agent.train_step_counter == 2
    # What was counted in the moments are transitions, none of them a reset.
    assert 2 * NUM_ENVS < agent.actor_network.normaliser.moments.count <= 2 * NUM_ENVS * (ROWS - 1)


@pytest.mark.parametrize("env_id", ["CartPole-v1", "Pendulum-v1"])
def test_collect_policy_and_act_draw_from_the_same_distribution(env_id):
    """The stock driver asks the one, ngrl's loop the other; both must be what `train` takes for the old policy."""
    environment = tf_py_environment.TFPyEnvironment(environments.load(env_id, num_envs=1, seed=0))
    agent = build("npg", environment.time_step_spec(), environment.action_spec())
    step = environment.reset()
    many = tf.nest.map_structure(lambda leaf: tf.repeat(leaf, 4000, axis=0), step)
    collected, acted = agent.collect_policy.action(many), agent.act(many.observation, tf.constant([1, 2]))
    tf.nest.assert_same_structure(collected.info, acted.info)
    one, other = (tf.cast(result.action, tf.float32).numpy() for result in (collected, acted))
    assert one.std() > 0.3
    np.testing.assert_allclose(one.mean(), other.mean(), atol=5 * one.std() / np.sqrt(2000))
    np.testing.assert_allclose(one.std(), other.std(), rtol=0.1)
