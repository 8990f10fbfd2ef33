"""The agents in TF-Agents' own machinery."""

import numpy as np
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
    assert info.extra.optimizer.kl <= 0.01 * 1.001
