"""Worker: stock TF-Agents' PPOClipAgent on ngrl's environments, as TF-Agents' own PPO example trains it.

A graph-mode driver fills a TFUniformReplayBuffer and one `common.function` trains on all of it: `agent.train` makes
each epoch one update with the whole batch. On these environments the driver is several times as fast as a PyDriver.
"""

from unittest import mock

import numpy as np
from worker_protocol import Run, Settings, Stopwatch, limit_tensorflow, serve

from ngrl import _tf_agents, environments  # noqa: F401  (before tensorflow and tf_agents)

import tensorflow as tf  # isort: skip
from tf_agents.agents.ppo import ppo_clip_agent
from tf_agents.drivers import dynamic_step_driver
from tf_agents.environments import tf_py_environment
from tf_agents.networks import actor_distribution_network, value_network
from tf_agents.replay_buffers import tf_uniform_replay_buffer
from tf_agents.utils import common


class _Whole(np.ndarray):
    """An array of one element that is an integer too, as it was before NumPy 2.4."""

    def __int__(self) -> int:
        return int(self.item())


def make_agent(settings: Settings, environment: tf_py_environment.TFPyEnvironment) -> ppo_clip_agent.PPOClipAgent:
    """The agent with the example's settings, and SB3's gradient clipping."""
    layers = {"fc_layer_params": settings.hidden, "activation_fn": getattr(tf.keras.activations, settings.activation)}
    observation_spec, action_spec = environment.observation_spec(), environment.action_spec()
    # Its projection takes an array of one element for a number, which NumPy refuses since 2.4.
    unique = np.unique
    with mock.patch.object(np, "unique", lambda *arguments: unique(*arguments).view(_Whole)):
        actor = actor_distribution_network.ActorDistributionNetwork(observation_spec, action_spec, **layers)
    agent = ppo_clip_agent.PPOClipAgent(
        environment.time_step_spec(),
        action_spec,
        tf.keras.optimizers.Adam(3e-4),
        actor_net=actor,
        value_net=value_network.ValueNetwork(observation_spec, **layers),
        importance_ratio_clipping=0.2,
        normalize_observations=False,
        normalize_rewards=False,
        use_gae=True,
        num_epochs=settings.epochs,
        gradient_clipping=0.5,
    )
    agent.initialize()
    return agent


def make(settings: Settings) -> Run:
    """Driver and training step in turn, warmed up.

    Raises:
      ValueError: The settings ask for minibatches, which `agent.train` doesn't make.
    """
    if settings.minibatch != settings.batch_steps:
        raise ValueError(f"PPOClipAgent.train takes whole batches of {settings.batch_steps}, not {settings.minibatch}")
    limit_tensorflow(settings.threads)
    tf.keras.utils.set_random_seed(0)
    environment = tf_py_environment.TFPyEnvironment(environments.load(settings.env_id, num_envs=settings.num_envs))
    agent = make_agent(settings, environment)
    # Steps from one episode to the next are in the buffer too, but are no environment steps.
    buffer = tf_uniform_replay_buffer.TFUniformReplayBuffer(
        agent.collect_data_spec, settings.num_envs, max_length=2 * settings.batch_steps // settings.num_envs
    )
    driver = dynamic_step_driver.DynamicStepDriver(
        environment, agent.collect_policy, [buffer.add_batch], num_steps=settings.batch_steps
    )
    drive = common.function(driver.run, autograph=False)
    train = common.function(lambda: agent.train(buffer.gather_all()))

    def update() -> None:
        train()
        buffer.clear()

    watch = Stopwatch(update)

    def run(env_steps: int) -> tuple[int, list[float]]:
        batches = -(-env_steps // settings.batch_steps)
        for _ in range(batches):
            drive()
            watch()
        return batches * settings.batch_steps, watch.take()

    run(3 * settings.batch_steps)
    return run


if __name__ == "__main__":
    serve(make)
