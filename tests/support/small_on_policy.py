"""Small on-policy agents and loops for the tests of training."""

import tensorflow as tf
from on_policy_agents import ON_POLICY, make_optimizer
from tf_agents.specs import tensor_spec

from ngrl import agents, environments, loops, networks

AGENTS = tuple(ON_POLICY)
#: Where the smallest agent that learns its task is not the others'. With α = 1 NPG shortens its steps as the advantages
#: fade.
_OPTIMIZERS = {"npg": {"learning_rate": 1.0}, "ppo": {"rate": 0.01}}
_OPTIONS = {"ppo": {"epochs": 4, "batch_size": 64}}


NATURAL_TAGS = {
    "ngrl/surrogate_before",
    "ngrl/surrogate_after",
    "ngrl/kl",
    "ngrl/entropy",
    "ngrl/explained_variance",
    "ngrl/backtracks",
    "ngrl/solver_iterations",
    "ngrl/solver_residual",
    "ngrl/reduction_ratio",
    "ngrl/damping",
    "ngrl/step_norm",
    "ngrl/gradient_norm",
    "ngrl/skipped_updates",
}
PLAIN_TAGS = NATURAL_TAGS - {
    "ngrl/backtracks",
    "ngrl/solver_iterations",
    "ngrl/solver_residual",
    "ngrl/reduction_ratio",
    "ngrl/damping",
    "ngrl/step_norm",
}


def build_agent(time_step_spec, action_spec, seed, kind, hidden=(), normalise=False, scale_rewards=False, tau=None):
    optimizer = make_optimizer(kind, **{"rate": 0.05, "damping": 0.01, "max_kl": 0.03, **_OPTIMIZERS.get(kind, {})})
    observation = time_step_spec.observation
    shared = {"normaliser": networks.ObservationNormaliser(observation) if normalise else None, "seed": seed}
    actor = networks.ActorNetwork(observation, action_spec, hidden, **shared)
    value = networks.ValueNetwork(observation, hidden, **shared)
    critic = agents.Critic(value, tf.keras.optimizers.Adam(0.01), epochs=4, batch_size=64)
    reward_normaliser = agents.RewardNormaliser() if scale_rewards else None
    advantage = agents.GeneralisedAdvantage(0.5, 0.9, reward_normaliser=reward_normaliser)
    options = {"seed": seed, **_OPTIONS.get(kind, {})}
    result = ON_POLICY[kind][0](time_step_spec, action_spec, actor, optimizer, critic, advantage, **options)
    if tau is not None:
        result.average_into(networks.ActorNetwork(observation, action_spec, hidden, **shared), agents.SoftUpdate(tau))
    return result


def load(env_id, num_envs=4, seed=0, **options):
    environment = environments.load(env_id, num_envs=num_envs, seed=seed, **options)
    specs = [tensor_spec.from_spec(spec()) for spec in (environment.time_step_spec, environment.action_spec)]
    return environment, specs


def make(
    kind="npg",
    env_id="ngrl/Identity-v0",
    num_envs=4,
    batch_size=64,
    seed=0,
    env_options=None,
    agent_options=None,
    **options,
):
    """An agent and its loop."""
    environment, specs = load(env_id, num_envs, seed, **(env_options or {}))
    agent = build_agent(*specs, seed=seed, kind=kind, **(agent_options or {}))
    loop = loops.OnPolicyLoop(agent, environment, seed, batch_size, **{"jit_compile": False, **options})
    return agent, loop


def snapshot(agent):
    """The weights of policy and critic, as bytes."""
    return [
        variable.numpy().tobytes()
        for network in (agent.actor_network, agent.critic.network)
        for variable in network.variables
    ]
