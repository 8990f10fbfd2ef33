"""The agents in TF-Agents' own machinery."""

import numpy as np
import pytest
import tensorflow as tf
from tf_agents.drivers import dynamic_step_driver
from tf_agents.environments import tf_py_environment
from tf_agents.replay_buffers import tf_uniform_replay_buffer
from tf_agents.train import learner
from tf_agents.train.utils import train_utils

from ngrl import agents, environments, networks, optimizers


def test_dqn_agent_trains_in_a_stock_driver_replay_buffer_and_learner(tmp_path):
    environment = tf_py_environment.TFPyEnvironment(environments.load("CartPole-v1", num_envs=2, seed=0))
    time_step_spec, action_spec = environment.time_step_spec(), environment.action_spec()
    step = train_utils.create_train_step()
    agent = agents.DqnAgent(
        time_step_spec,
        action_spec,
        networks.QNetwork(time_step_spec.observation, 2, (16,)),
        optimizers.NaturalGradient(max_kl=0.01),
        train_step_counter=step,
    )
    buffer = tf_uniform_replay_buffer.TFUniformReplayBuffer(agent.collect_data_spec, 2, max_length=500)
    driver = dynamic_step_driver.DynamicStepDriver(
        environment, agent.collect_policy, observers=[buffer.add_batch], num_steps=100
    )
    driver.run()
    before = [v.numpy() for v in agent.q_network.variables]

    def dataset():
        return buffer.as_dataset(sample_batch_size=32, num_steps=2).prefetch(2)

    run_learner = learner.Learner(str(tmp_path), step, agent, experience_dataset_fn=dataset)
    info = run_learner.run(iterations=5)
    assert np.isfinite(info.loss)
    assert int(step) == 5
    assert any((old != new.numpy()).any() for old, new in zip(before, agent.q_network.variables, strict=True))
    assert info.extra.optimizer.predicted_kl <= 0.01 * 1.001


@pytest.mark.parametrize("env_id", ["CartPole-v1", "Pendulum-v1"])
def test_acer_agent_trains_on_what_a_stock_driver_collected_and_a_stock_buffer_replays(env_id):
    environment = tf_py_environment.TFPyEnvironment(environments.load(env_id, num_envs=2, seed=0))
    time_step_spec, action_spec = environment.time_step_spec(), environment.action_spec()
    observation = time_step_spec.observation
    actors = [networks.ActorNetwork(observation, action_spec, (8,)) for _ in range(2)]
    if actors[0].is_discrete:
        critic = agents.DiscreteCritic(networks.QNetwork(observation, 2, (8,)))
    else:
        critic = agents.DuelingCritic(networks.StochasticDuelingNetwork(observation, action_spec, (8,)))
    rates = [tf.keras.optimizers.Adam(0.01) for _ in range(2)]
    agent = agents.AcerAgent(time_step_spec, action_spec, *actors, critic, *rates)
    agent.initialize()
    buffer = tf_uniform_replay_buffer.TFUniformReplayBuffer(agent.collect_data_spec, 2, max_length=500)
    driver = dynamic_step_driver.DynamicStepDriver(
        environment, agent.collect_policy, observers=[buffer.add_batch], num_steps=80
    )
    driver.run()
    fresh = agent.train(buffer.gather_all())
    assert float(fresh.extra.mean_ratio) == pytest.approx(
        1, abs=1e-4
    )  # the policy that acted is the one that is trained
    replayed = iter(buffer.as_dataset(sample_batch_size=8, num_steps=10))
    for _ in range(3):
        trained = [*actors[0].variables, *critic.variables]
        before = [variable.numpy() for variable in trained]
        info = agent.train(next(replayed)[0])
        assert info.extra.optimizer.skipped == 0
        assert all((old != new.numpy()).any() for old, new in zip(before, trained, strict=True))
    assert np.isfinite(info.loss)
    assert info.extra.kl > 0
    assert agent.train_step_counter == 4
