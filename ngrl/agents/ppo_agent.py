"""Proximal policy optimization with clipping (Schulman et al. 2017)."""

import tensorflow as tf
from tf_agents.agents.ppo import ppo_clip_agent
from tf_agents.trajectories import time_step as ts
from tf_agents.typing import types

from ngrl.agents.advantage import GeneralisedAdvantage
from ngrl.agents.critic import Critic
from ngrl.agents.minibatches import for_each_minibatch, shuffled_minibatches
from ngrl.agents.on_policy_agent import OnPolicyAgent, PolicyBatch
from ngrl.agents.schedules import Schedule
from ngrl.agents.steps import plain_step
from ngrl.checks import check_count, check_number, check_optional_number
from ngrl.configurable import configurable
from ngrl.networks import ActorNetwork, ValueNetwork
from ngrl.optimizers import GradientStats, NaturalGradient
from ngrl.seeding import Stream


@configurable
class PpoAgent(OnPolicyAgent):
    """`max Ê[min(ρ Â, clip(ρ, 1 − ε, 1 + ε) Â)]` by epochs of minibatches (Vitay 2020, section 4.5.4).

    The loss is that of TF-Agents' `PPOClipAgent`; advantages, minibatches, guards and the critic's fit are those of
    the other on-policy agents. Policy and critic share no weights, so that it is all the same whether they are fitted
    in turn or together.

    Args:
      time_step_spec: As in `OnPolicyAgent`.
      action_spec: As in `OnPolicyAgent`.
      actor_network: The policy.
      optimizer: Any Keras optimizer but `NaturalGradient`.
      critic: As in `OnPolicyAgent`.
      advantage: As in `OnPolicyAgent`.
      clip_ratio: ε.
      epochs: How often each update goes through the batch.
      batch_size: Steps in a minibatch.
      max_gradient_norm: Clip the norm of the gradients, all variables together.
      entropy_weight: As in `OnPolicyAgent`.
      seed: As in `OnPolicyAgent`.
      train_step_counter: As in `OnPolicyAgent`.
      name: Name of the agent.

    Raises:
      ValueError: As `OnPolicyAgent`; or the optimizer is a natural gradient, or an argument out of its range.
    """

    def __init__(
        self,
        time_step_spec: ts.TimeStep,
        action_spec: types.NestedTensorSpec,
        actor_network: ActorNetwork,
        optimizer: tf.keras.optimizers.Optimizer,
        critic: Critic | None = None,
        advantage: GeneralisedAdvantage | None = None,
        clip_ratio: float = 0.2,
        epochs: int = 10,
        batch_size: int = 64,
        max_gradient_norm: float | None = 0.5,
        entropy_weight: float | Schedule = 0.0,
        seed: int = 0,
        train_step_counter: tf.Variable | None = None,
        name: str = "PpoAgent",
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
            raise ValueError("PpoAgent follows a plain gradient: with NaturalGradient use NpgAgent")
        check_number("PpoAgent: clip_ratio", clip_ratio, "(0, inf]")
        check_count("PpoAgent: epochs", epochs)
        check_count("PpoAgent: batch_size", batch_size)
        check_optional_number("PpoAgent: max_gradient_norm", max_gradient_norm, "(0, inf]")
        self._epochs = epochs
        self._batch_size = batch_size
        self._max_gradient_norm = max_gradient_norm
        # TF-Agents' agent wants a value network, which its policy loss doesn't use.
        value_network = ValueNetwork(self.time_step_spec.observation, (1,))
        self._clip_agent = ppo_clip_agent.PPOClipAgent(
            self.time_step_spec,
            self.action_spec,
            optimizer=self._optimizer,
            actor_net=self._actor,
            value_net=value_network if self._critic is None else self._critic.network,
            importance_ratio_clipping=clip_ratio,
            entropy_regularization=0.0,
            normalize_rewards=False,
            normalize_observations=False,
            train_step_counter=self.train_step_counter,
        )

    def _update_policy(self, batch: PolicyBatch) -> tuple[tf.Tensor, GradientStats]:
        num_rows = batch.advantage.shape[0]
        minibatches = shuffled_minibatches(
            num_rows, self._batch_size, self._epochs, self._draw(Stream.POLICY_MINIBATCHES)
        )

        def update(rows: tf.Tensor) -> tuple[tf.Tensor, GradientStats]:
            part = tf.nest.map_structure(lambda leaf: tf.gather(leaf, rows), batch._replace(experience=()))
            loss, stats = plain_step(
                self._optimizer,
                self._actor.trainable_weights,
                lambda: self._clipped_loss(part),
                self._max_gradient_norm,
            )
            kept = 1 - stats.skipped
            return tf.math.multiply_no_nan(loss, kept), stats._replace(
                gradient_norm=tf.math.multiply_no_nan(stats.gradient_norm, kept)
            )

        zero = tf.zeros([])
        loss, total = for_each_minibatch(minibatches, update, (zero, GradientStats(zero, zero, zero)))
        count = minibatches.shape[0]
        cause = tf.math.divide_no_nan(total.skip_cause, total.skipped)
        return loss / count, GradientStats(total.gradient_norm / count, total.skipped, cause)

    def _clipped_loss(self, batch: PolicyBatch) -> tf.Tensor:
        """The clipped surrogate less the entropy bonus, a scalar."""
        parameters = self._parameters(batch.inputs)
        distribution = self._actor.distribution(parameters)
        # TF-Agents divides by the number of rows: with these weights that is the mean over the rows that count.
        weights = batch.weights * tf.math.divide_no_nan(
            tf.cast(tf.size(batch.weights), tf.float32), tf.reduce_sum(batch.weights)
        )
        zeros = tf.zeros_like(batch.weights)
        time_steps = ts.TimeStep(tf.cast(zeros, tf.int32) + int(ts.StepType.MID), zeros, zeros + 1, batch.observation)
        spec = tf.nest.flatten(self.action_spec)[0]
        loss = self._clip_agent.policy_gradient_loss(
            time_steps,
            tf.cast(batch.action, spec.dtype),
            batch.old_log_prob,
            batch.advantage,
            distribution,
            weights,
        )
        return loss - self._entropy_bonus(batch, parameters)
