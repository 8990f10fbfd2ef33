"""What gin files may name. Importing this module registers it all; no numerics know of gin."""

from collections.abc import Callable
from typing import Any

import gin
import tensorflow as tf

from ngrl import agents, losses, networks, optimizers, solvers
from ngrl.training import experiment, exploration, off_policy

_CLASSES: dict[str, Callable[..., Any]] = {
    "ConjugateGradient": solvers.ConjugateGradient,
    "Minres": solvers.Minres,
    "MinresQLP": solvers.MinresQLP,
    "Cholesky": solvers.Cholesky,
    "Dual": solvers.Dual,
    "NaturalGradient": optimizers.NaturalGradient,
    "LevenbergMarquardt": optimizers.LevenbergMarquardt,
    "ScheduledDamping": optimizers.ScheduledDamping,
    "Adam": tf.keras.optimizers.Adam,
    "RMSprop": tf.keras.optimizers.RMSprop,
    "SGD": tf.keras.optimizers.SGD,
    "ExponentialDecay": tf.keras.optimizers.schedules.ExponentialDecay,
    "PolynomialDecay": tf.keras.optimizers.schedules.PolynomialDecay,
    "PiecewiseConstantDecay": tf.keras.optimizers.schedules.PiecewiseConstantDecay,
    "DqnAgent": agents.DqnAgent,
    "HardUpdate": agents.HardUpdate,
    "SoftUpdate": agents.SoftUpdate,
    "QNetwork": networks.QNetwork,
    "ExponentialEpsilon": exploration.ExponentialEpsilon,
    "LinearEpsilon": exploration.LinearEpsilon,
    "OffPolicyLoop": off_policy.OffPolicyLoop,
    "half_squared_error": losses.half_squared_error,
    "squared_error": losses.squared_error,
    "huber": losses.huber,
}

# What gin calls with the bound arguments; the originals know nothing of gin.
_CONFIGURABLE = {name: gin.external_configurable(target, name=name, module="ngrl") for name, target in _CLASSES.items()}


@gin.configurable
def dqn_agent(
    time_step_spec: Any,
    action_spec: Any,
    seed: int,
    optimizer: tf.keras.optimizers.Optimizer = gin.REQUIRED,
    network: Callable[..., Any] = _CONFIGURABLE["QNetwork"],
    agent: Callable[..., agents.DqnAgent] = _CONFIGURABLE["DqnAgent"],
) -> agents.DqnAgent:
    """A DQN agent with a network built for the environment's specs.

    Args:
      time_step_spec: Spec of the environment's time steps.
      action_spec: Spec of its actions.
      seed: Seed of the network's initial weights.
      optimizer: `@NaturalGradient()` or `@Adam()`.
      network: Called with the observation spec, the number of actions and `seed`.
      agent: Called with the specs, the network and the optimizer.

    Raises:
      ValueError: The environment's actions are not discrete.
    """
    agents.check_discrete_action(action_spec)
    q_network = network(time_step_spec.observation, int(action_spec.maximum) + 1, seed=seed)
    return agent(time_step_spec, action_spec, q_network, optimizer)


run = gin.configurable(denylist=["root_dir", "noresume", "config", "config_text", "progress", "on_start"])(
    experiment.run
)
