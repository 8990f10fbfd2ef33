"""What `ngrl.launch` runs, and agents as gin files describe them: built for the environment's specs."""

import functools
from collections.abc import Callable
from typing import Any

import gin
import tensorflow as tf

from ngrl import agents, networks
from ngrl.configurable import configurable
from ngrl.configuration.registration import configured
from ngrl.training import experiment
from ngrl.training.context import RunContext


@configured
@configurable
def dqn_agent(
    time_step_spec: Any,
    action_spec: Any,
    seed: int,
    optimizer: tf.keras.optimizers.Optimizer = gin.REQUIRED,
    network: Callable[..., Any] = configured(networks.QNetwork),
    average_update: agents.TargetUpdate | None = None,
    average_acts: bool = False,
    agent: Callable[..., agents.DqnAgent] = configured(agents.DqnAgent),
) -> agents.DqnAgent:
    """A DQN agent with a network built for the environment's specs.

    Args:
      time_step_spec: Spec of the environment's time steps.
      action_spec: Spec of its actions.
      seed: Seed of the network's initial weights.
      optimizer: `@NaturalGradient()` or `@Adam()`.
      network: Called with the observation spec, the number of actions and `seed`.
      average_update: `@average/SoftUpdate()` to evaluate and export an average of the Q-network over its updates; None
        for the Q-network itself.
      average_acts: Let that average collect experience, so that returns in training are those of the policy that is
        evaluated; targets come from the Q-network.
      agent: Called with the specs, the network and the optimizer.

    Raises:
      ValueError: The environment's actions are not discrete, or there is no average to act.
    """
    agents.check_discrete_action(action_spec)
    make = functools.partial(network, time_step_spec.observation, int(action_spec.maximum) + 1, seed=seed)
    result = agent(time_step_spec, action_spec, make(), optimizer)
    if average_update is not None:
        result.average_into(make(), average_update, average_acts)
    elif average_acts:
        raise ValueError("dqn_agent: average_acts needs an average: set average_update = @SoftUpdate()")
    return result


@configured
@configurable
def pqn_agent(
    time_step_spec: Any,
    action_spec: Any,
    seed: int,
    optimizer: tf.keras.optimizers.Optimizer = gin.REQUIRED,
    network: Callable[..., Any] = configured(networks.QNetwork),
    agent: Callable[..., agents.PqnAgent] = configured(agents.PqnAgent),
) -> agents.PqnAgent:
    """A PQN agent with a network built for the environment's specs.

    Args:
      time_step_spec: Spec of the environment's time steps.
      action_spec: Spec of its actions.
      seed: Seed of the network's initial weights and of the minibatches' order.
      optimizer: `@Adam()` or `@NaturalGradient()`.
      network: Called with the observation spec, the number of actions and `seed`.
      agent: Called with the specs, the network, the optimizer and `seed`.

    Raises:
      ValueError: The environment's actions are not discrete.
    """
    agents.check_discrete_action(action_spec)
    q_network = network(time_step_spec.observation, int(action_spec.maximum) + 1, seed=seed)
    return agent(time_step_spec, action_spec, q_network, optimizer, seed=seed)


@configured
@configurable
def policy_agent(
    time_step_spec: Any,
    action_spec: Any,
    seed: int,
    update: Callable[..., agents.PolicyUpdate] = gin.REQUIRED,
    optimizer: tf.keras.optimizers.Optimizer = gin.REQUIRED,
    critic_optimizer: tf.keras.optimizers.Optimizer | None = gin.REQUIRED,
    actor: Callable[..., networks.ActorNetwork] = configured(networks.ActorNetwork),
    value: Callable[..., networks.ValueNetwork] = configured(networks.ValueNetwork),
    critic: Callable[..., agents.Critic] = configured(agents.Critic),
    advantage: Callable[..., agents.GeneralisedAdvantage] = configured(agents.GeneralisedAdvantage),
    normaliser: Callable[..., networks.ObservationNormaliser] | None = None,
    average_update: agents.TargetUpdate | None = None,
    agent: Callable[..., agents.OnPolicyAgent] = configured(agents.OnPolicyAgent),
) -> agents.OnPolicyAgent:
    """An on-policy agent with an actor and a critic built for the environment's specs.

    Args:
      time_step_spec: Spec of the environment's time steps.
      action_spec: Spec of its actions.
      seed: Seed of the networks' initial weights and of the minibatches' order.
      update: Called with the optimizer: `@PlainUpdate` (REINFORCE), `@NaturalUpdate` (NPG), `@LineSearchedUpdate`
        (TRPO), `@ClippedUpdate` (PPO) or `@CompatibleUpdate` (NAC).
      optimizer: The policy's, `@NaturalGradient()` or `@actor/Adam()`.
      critic_optimizer: The critic's; None leaves the critic out.
      actor: Called with the observation and action specs, the normaliser and `seed`.
      value: Called with the actor's `critic_spec`, the normaliser and `seed`; beside a policy with a memory, whose
        encoded observations are normalised already, without the normaliser.
      critic: Called with the value network and its optimizer.
      advantage: Called without arguments.
      normaliser: `@ObservationNormaliser` to normalise observations, None to leave them as they are.
      average_update: `@SoftUpdate()` to evaluate and export an average of the policy over its updates; None for the
        policy itself.
      agent: Called with the specs, the actor, the update, the critic, the advantage and `seed`.

    Raises:
      ValueError: The environment's actions or observations are of a kind that a policy doesn't take.
    """
    observation_spec = time_step_spec.observation
    shared = {"normaliser": None if normaliser is None else normaliser(observation_spec), "seed": seed}
    actor_network = actor(observation_spec, action_spec, **shared)
    critics = shared if actor_network.cell is None else {**shared, "normaliser": None}
    fitted = None if critic_optimizer is None else critic(value(actor_network.critic_spec, **critics), critic_optimizer)
    result = agent(time_step_spec, action_spec, actor_network, update(optimizer), fitted, advantage(), seed=seed)
    if average_update is not None:
        result.average_into(actor(observation_spec, action_spec, **shared), average_update)
    return result


@configured
@configurable
def acer_agent(
    time_step_spec: Any,
    action_spec: Any,
    seed: int,
    optimizer: tf.keras.optimizers.Optimizer = gin.REQUIRED,
    critic_optimizer: tf.keras.optimizers.Optimizer = gin.REQUIRED,
    actor: Callable[..., networks.ActorNetwork] = configured(networks.ActorNetwork),
    q_network: Callable[..., networks.QNetwork] = configured(networks.QNetwork),
    dueling_network: Callable[..., networks.StochasticDuelingNetwork] = configured(networks.StochasticDuelingNetwork),
    retrace: Callable[..., agents.Retrace] = configured(agents.Retrace),
    trust_region: Callable[..., agents.TrustRegion] = configured(agents.TrustRegion),
    agent: Callable[..., agents.AcerAgent] = configured(agents.AcerAgent),
) -> agents.AcerAgent:
    """An ACER agent with networks built for the environment's specs.

    Args:
      time_step_spec: Spec of the environment's time steps.
      action_spec: Spec of its actions.
      seed: Seed of the networks' initial weights and of the critic's draws.
      optimizer: The policy's, `@actor/Adam()`.
      critic_optimizer: The critic's, `@critic/Adam()`.
      actor: Called with the observation and action specs and `seed`, for the policy and for the average policy.
      q_network: The critic of discrete actions; called with the observation spec, the number of actions and `seed`.
      dueling_network: The critic of continuous ones; called with the observation and action specs and `seed`.
      retrace: Called without arguments.
      trust_region: Called without arguments.
      agent: Called with the specs, the networks, the optimizers, and what `retrace` and `trust_region` make.

    Raises:
      ValueError: The environment's actions or observations are of a kind that a policy doesn't take.
    """
    observation_spec = time_step_spec.observation
    actors = [actor(observation_spec, action_spec, seed=seed) for _ in range(2)]
    critic: agents.ActionValueCritic
    num_actions = networks.num_discrete_actions(action_spec)
    if num_actions is None and networks.is_discrete_action(action_spec):
        raise ValueError(
            "ACER takes one discrete action or a vector of real numbers, the environment has "
            f"{networks.describe_actions(action_spec)}: take REINFORCE, NPG, TRPO or PPO"
        )
    if num_actions is not None:
        critic = agents.DiscreteCritic(q_network(observation_spec, num_actions, seed=seed))
    else:
        critic = agents.DuelingCritic(dueling_network(observation_spec, action_spec, seed=seed))
    parts = (*actors, critic, optimizer, critic_optimizer, retrace(), trust_region())
    return agent(time_step_spec, action_spec, *parts, seed=seed)


run = configured(experiment.run)


@configured
@configurable
def main(context: RunContext, /, entry: Callable[[RunContext], experiment.RunResult] = run) -> experiment.RunResult:
    """What `ngrl.launch` runs: a training run, or what a gin file names with `main.entry = @name`.

    Args:
      context: What the command hands to the entry.
      entry: Takes the context, does what it is for, and returns what `run.json` holds under `final`. One that
        isn't a training run adds `summary`, the lines that the terminal shows at its end.

    Returns:
      What the entry returned.
    """
    return entry(context)
