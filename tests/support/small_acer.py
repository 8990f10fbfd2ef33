"""Small ACER agents and loops for the tests of training."""

import tensorflow as tf
from small_on_policy import load

from ngrl import agents, loops, networks

TAGS = {
    "Losses/policy_loss",
    "Losses/critic_loss",
    "ngrl/kl_to_average",
    "ngrl/entropy",
    "ngrl/importance_ratio_mean",
    "ngrl/importance_ratio_max",
    "ngrl/truncated_share",
    "ngrl/trust_region_active_share",
    "ngrl/explained_variance",
    "ngrl/q_mean",
    "ngrl/gradient_norm",
    "ngrl/critic_gradient_norm",
    "ngrl/replayed_trajectories",
    "ngrl/skipped_updates",
}


def build_agent(time_step_spec, action_spec, seed, hidden=(), rate=0.03, **options):
    observation = time_step_spec.observation
    actors = [networks.ActorNetwork(observation, action_spec, hidden, seed=seed) for _ in range(2)]
    if actors[0].is_discrete:
        critic = agents.DiscreteCritic(networks.QNetwork(observation, int(action_spec.maximum) + 1, hidden, seed=seed))
    else:
        widths = hidden or (16,)  # A(x, a) of a linear network could not tell which action is best where
        critic = agents.DuelingCritic(
            networks.StochasticDuelingNetwork(observation, action_spec, widths, num_samples=2, seed=seed)
        )
    rates = [tf.keras.optimizers.Adam(rate) for _ in range(2)]
    retrace = agents.Retrace(gamma=0.5)
    return agents.AcerAgent(time_step_spec, action_spec, *actors, critic, *rates, retrace, **options, seed=seed)


def make(env_id="ngrl/Identity-v0", num_envs=4, seed=0, env_options=None, agent_options=None, **options):
    """An agent and its loop."""
    environment, specs = load(env_id, num_envs, seed, **(env_options or {}))
    agent = build_agent(*specs, seed=seed, **(agent_options or {}))
    defaults = {"num_steps": 8, "replay_capacity": 1_000, "warmup_steps": 100, "jit_compile": False}
    return agent, loops.TrajectoryReplayLoop(agent, environment, seed, **{**defaults, **options})


def snapshot(agent):
    """The weights of policy, average policy and critic, as bytes."""
    parts = (agent.actor_network, agent.average_network, agent.critic)
    return [variable.numpy().tobytes() for part in parts for variable in part.variables]
