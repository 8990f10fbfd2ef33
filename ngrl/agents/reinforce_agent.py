"""REINFORCE, the plain policy gradient (Williams 1992)."""

import tensorflow as tf
from tf_agents.trajectories import time_step as ts
from tf_agents.typing import types

from ngrl import losses
from ngrl.agents.advantage import GeneralisedAdvantage
from ngrl.agents.critic import Critic
from ngrl.agents.on_policy_agent import OnPolicyAgent, PolicyBatch
from ngrl.agents.schedules import Schedule
from ngrl.agents.steps import plain_step
from ngrl.checks import check_optional_number
from ngrl.configurable import configurable
from ngrl.networks import ActorNetwork
from ngrl.optimizers import GradientStats, NaturalGradient


@configurable
class ReinforceAgent(OnPolicyAgent):
    """`θ ← θ + α Ê[∇ log π(a|s) Â]` (van Heeswijk 2022; Williams 1992).

    Without a critic Â is the discounted return to the end of the episode or the batch; with one, GAE(λ).

    Args:
      time_step_spec: As in `OnPolicyAgent`.
      action_spec: As in `OnPolicyAgent`.
      actor_network: The policy.
      optimizer: Any Keras optimizer but `NaturalGradient`.
      critic: As in `OnPolicyAgent`.
      advantage: As in `OnPolicyAgent`.
      max_gradient_norm: Clip the norm of the gradients, all variables together.
      entropy_weight: As in `OnPolicyAgent`.
      seed: As in `OnPolicyAgent`.
      train_step_counter: As in `OnPolicyAgent`.
      name: Name of the agent.

    Raises:
      ValueError: As `OnPolicyAgent`; or the optimizer is a natural gradient.
    """

    def __init__(
        self,
        time_step_spec: ts.TimeStep,
        action_spec: types.NestedTensorSpec,
        actor_network: ActorNetwork,
        optimizer: tf.keras.optimizers.Optimizer,
        critic: Critic | None = None,
        advantage: GeneralisedAdvantage | None = None,
        max_gradient_norm: float | None = None,
        entropy_weight: float | Schedule = 0.0,
        seed: int = 0,
        train_step_counter: tf.Variable | None = None,
        name: str = "ReinforceAgent",
    ):
        super().__init__(
            time_step_spec,
            action_spec,
            actor_network,
            optimizer,
            critic,
            advantage,
            entropy_weight,
            seed,
            train_step_counter,
            name,
        )
        if isinstance(self._optimizer, NaturalGradient):
            raise ValueError("ReinforceAgent follows the plain gradient: with NaturalGradient use NpgAgent")
        check_optional_number("max_gradient_norm", max_gradient_norm, "(0, inf]")
        self._max_gradient_norm = max_gradient_norm

    def _update_policy(self, batch: PolicyBatch) -> tuple[tf.Tensor, GradientStats]:
        def loss_fn() -> tf.Tensor:
            parameters = self._parameters(batch.inputs)
            log_prob = self._head.log_prob(parameters, batch.action)
            loss = losses.policy_gradient_loss(log_prob, batch.advantage, batch.weights)
            return loss - self._entropy_bonus(batch, parameters)

        return plain_step(self._optimizer, self._actor.trainable_weights, loss_fn, self._max_gradient_norm)
