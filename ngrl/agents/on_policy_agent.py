"""What the on-policy agents share: from a batch of trajectories to advantages, one policy update, one critic fit."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from tf_agents.agents import tf_agent
from tf_agents.policies import actor_policy, greedy_policy
from tf_agents.trajectories import policy_step, trajectory
from tf_agents.trajectories import time_step as ts
from tf_agents.typing import types

from ngrl import losses
from ngrl.agents.advantage import GeneralisedAdvantage
from ngrl.agents.average import Average
from ngrl.agents.critic import Critic, CriticStats
from ngrl.agents.heads import head_for
from ngrl.agents.host_policy import HostPolicy
from ngrl.agents.minibatches import masked_rows
from ngrl.agents.network_check import check_actions, check_separate, check_trainable, check_unpenalised
from ngrl.agents.policies import DRAWN, CollectPolicy, sampled_step
from ngrl.agents.policy import Policy, PolicyBatch
from ngrl.agents.recall import check_critic, recalled
from ngrl.agents.schedules import Schedule, check_weight, counter
from ngrl.agents.steps import check_own
from ngrl.agents.target_update import TargetUpdate
from ngrl.agents.trajectories import (
    Steps,
    boundaries,
    by_trajectory,
    flat_rows,
    nan_guard,
    one_each,
    rows_of,
    sizes,
    time_major,
    without_last,
)
from ngrl.agents.updates import PolicyUpdate
from ngrl.checks import check_count
from ngrl.configurable import configurable
from ngrl.networks import ActorNetwork, MemoryInputs
from ngrl.optimizers import GradientStats, NaturalGradientStats
from ngrl.replay import MEMORY, Experience
from ngrl.seeding import Stream


class PolicyExtra(NamedTuple):
    """`LossInfo.extra` of the on-policy agents: float32 scalars, over the whole batch."""

    surrogate_before: tf.Tensor  # Ê[ρ Â] at the old policy, where ρ = 1
    surrogate_after: tf.Tensor  # the same after the update
    kl: tf.Tensor  # measured mean KL(π_old ‖ π_new)
    entropy: tf.Tensor  # mean entropy of the old policy, in nats
    explained_variance: tf.Tensor  # of the returns, by the critic before its fit
    critic_loss: tf.Tensor
    critic_gradient_norm: tf.Tensor
    critic_skipped: tf.Tensor  # minibatches of the critic's that were skipped
    critic_skip_cause: tf.Tensor  # the largest `SkipCause` of these
    optimizer: NaturalGradientStats | GradientStats

    def with_critic(self, fit: CriticStats) -> "PolicyExtra":
        """The same with what the critic's fit did."""
        return self._replace(**{f"critic_{name}": value for name, value in fit._asdict().items()})

    def scalars(self, loss: Any) -> dict[str, Any]:
        """Tags and values for TensorBoard, `LossInfo.loss` among them."""
        return {
            "Losses/policy_loss": loss,
            "Losses/critic_loss": self.critic_loss,
            "ngrl/surrogate_before": self.surrogate_before,
            "ngrl/surrogate_after": self.surrogate_after,
            "ngrl/kl": self.kl,
            "ngrl/entropy": self.entropy,
            "ngrl/explained_variance": self.explained_variance,
            "ngrl/critic_gradient_norm": self.critic_gradient_norm,
            **{f"ngrl/{name}": value for name, value in self.optimizer.scalars().items()},
        }


class _Seen(NamedTuple):
    """What policy and critic see at every row of B trajectories, the last ones included."""

    inputs: Any  # of the policy [B·T, ...]
    critic_inputs: Any  # [B·T, ...]; () without a critic
    values: tf.Tensor | None  # the critic's [T, B]; None without one
    vectors: Any  # encoded observations, not normalised [B·T, D]; () with a trunk
    encoded: tf.Tensor | None  # the same normalised; None with a trunk


@configurable
class OnPolicyAgent(tf_agent.TFAgent):
    """REINFORCE, NPG, TRPO, PPO, NAC and what else an update makes, for discrete actions or continuous ones.

    `train` takes what `collect_policy` collected since the latest update, as a TF-Agents `Trajectory` [B, T, ...]
    with T ≥ 2: of each trajectory the last row gives only the observation from which the one before is bootstrapped.
    The policy that acted is taken to be the present one.

    A policy with a memory (`ActorNetwork.recurrent`) is trained on sequences: each begins with what was remembered when
    it was collected, a constant, and is unrolled from there, anew where an episode begins. The critic sees the encoded
    observation and what the policy remembers beside it (`ActorNetwork.critic_spec`).

    Args:
      time_step_spec: Spec of the environment's time steps.
      action_spec: Spec of its actions.
      actor_network: The policy.
      update: Improves the policy with a batch.
      critic: Estimates state values; None for returns without a baseline, which end with the batch.
      advantage: Estimates advantages; `GeneralisedAdvantage()` by default.
      entropy_weight: Weight of the entropy bonus in the policy's loss: a number, or a Keras schedule over the train
        steps, whose values below zero count as zero.
      seed: Seed of the order of minibatches.
      train_step_counter: Counts train steps; a counter of this agent's own by default.
      name: Name of the agent.
      sequence_length: L, the steps over which derivatives reach of a policy with a memory; T − 1 is a multiple of it.

    Raises:
      ValueError: The specs don't fit the network, the network is one that would be trained wrongly, or an argument is
        out of its range.
    """

    experience = Experience.TRAJECTORIES

    def __init__(
        self,
        time_step_spec: ts.TimeStep,
        action_spec: types.NestedTensorSpec,
        actor_network: ActorNetwork,
        update: PolicyUpdate,
        critic: Critic | None = None,
        advantage: GeneralisedAdvantage | None = None,
        entropy_weight: float | Schedule = 0.0,
        seed: int = 0,
        train_step_counter: tf.Variable | None = None,
        name: str = "OnPolicyAgent",
        sequence_length: int = 16,
    ):
        tf.Module.__init__(self, name=name)
        if not isinstance(update, PolicyUpdate):
            raise ValueError(f"{name}: update must be a PolicyUpdate such as NaturalUpdate(optimizer), got {update!r}")
        check_weight(name, "entropy_weight", entropy_weight)
        check_actions(name, actor_network, action_spec)
        actor_network.create_variables(time_step_spec.observation)
        check_trainable(name, actor_network, update.is_natural, carries_state=actor_network.cell is not None)
        check_unpenalised(name, actor_network)
        if critic is not None:
            check_separate(name, "the policy", actor_network, "the critic", critic.network)
            check_critic(name, actor_network, critic.network)
            check_own(name, update.optimizer, critic.optimizer)
        self._actor = actor_network
        self._update = update
        self._critic = critic
        self._advantage = GeneralisedAdvantage() if advantage is None else advantage
        self._average: Average | None = None
        step = counter(train_step_counter)
        self._head = head_for(action_spec)
        length = check_count(f"{name}: sequence_length", sequence_length)
        self._trained = Policy(actor_network, self._head, entropy_weight, seed, step, length)
        with tf.init_scope():
            update.build(self._trained, critic is not None)
        policy = actor_policy.ActorPolicy(time_step_spec, action_spec, actor_network)
        super().__init__(
            time_step_spec,
            action_spec,
            policy=greedy_policy.GreedyPolicy(policy),
            collect_policy=CollectPolicy(time_step_spec, action_spec, actor_network),
            train_sequence_length=None,
            train_step_counter=step,
        )

    @property
    def actor_network(self) -> ActorNetwork:
        """The policy's network."""
        return self._actor

    @property
    def critic(self) -> Critic | None:
        """The critic, if there is one."""
        return self._critic

    @property
    def update(self) -> PolicyUpdate:
        """What improves the policy."""
        return self._update

    @property
    def stream_keys(self) -> list[tf.Variable]:
        """The keys of the streams of random numbers that `train` draws from, which belong to no checkpoint."""
        return list(self._trained.keys.values())

    @property
    def optimizer(self) -> tf.keras.optimizers.Optimizer:
        """The policy's optimizer."""
        return self._update.optimizer

    @property
    def sequence_length(self) -> int:
        """L of a policy with a memory, 1 of others: trajectories hold a multiple of it, and a row more."""
        return self._trained.sequence_length

    def act(
        self, observation: Any, seed: tf.Tensor, step_type: Any = None, memory: tf.Tensor | None = None
    ) -> policy_step.PolicyStep:
        """Sampled actions that depend on the arguments and the weights only (stateless, so it resumes exactly).

        Args:
          observation: Observations [N, ...].
          seed: Two integers [2].
          step_type: Types of the steps [N]; for a policy with a memory.
          memory: What it remembers before the step [N, H], which doesn't count at an episode's first.

        Returns:
          Actions [N, ...] within the environment's bounds, in `info` what `collect_policy` would say, and in `state`
          what a policy with a memory remembers after the step [N, H].
        """
        encoded = self._trained.encode(observation)
        if memory is None:
            return sampled_step(self._actor, self._head, self._trained.parameters(encoded), self.action_spec, seed)
        after = self._actor.remember(MemoryInputs(encoded, tf.equal(step_type, ts.StepType.FIRST), memory))
        step = sampled_step(self._actor, self._head, self._actor.from_memory(after), self.action_spec, seed)
        return step._replace(state=after, info={**(step.info or {}), MEMORY: memory})

    def host_policy(
        self, key: np.ndarray, shape: tuple[int, int], compiled: Callable[[Callable[..., Any]], Callable[..., Any]]
    ) -> HostPolicy:
        """What acts as `act` does, without TensorFlow; the arguments are `HostPolicy`'s.

        Raises:
          ValueError: The network is one that it doesn't know.
        """
        return HostPolicy(self._actor, self.action_spec, key, shape, compiled)

    def average_into(self, network: ActorNetwork, update: TargetUpdate) -> None:
        """Make `policy` the greedy policy of an `Average` over the updates, while `collect_policy` stays what it is.

        Args:
          network: Becomes the average: a network like the policy's, with the same normaliser.
          update: How it follows the policy after each update that was not skipped as a whole.

        Raises:
          ValueError: The network's weights are not of the policy's shapes, or are the policy's own.
        """
        observation_spec, natural = self.time_step_spec.observation, self._update.is_natural
        self._average = Average(self.name, "the policy", self._actor, network, update, observation_spec, natural)
        policy = actor_policy.ActorPolicy(self.time_step_spec, self.action_spec, network)
        self._policy = greedy_policy.GreedyPolicy(policy)

    def _initialize(self) -> None:
        pass

    def train_policy(self, experience: trajectory.Trajectory) -> tuple[tf_agent.LossInfo, tuple[Any, ...]]:
        """`train` without the critic's fit: its LossInfo, and the arguments of `fit_critic`, which is to follow."""
        batch, info = self._train_policy(experience, None)
        arguments = self._fit_arguments(batch)
        self._finish(batch)
        return info, arguments

    def fit_critic(self, inputs: Any, returns: tf.Tensor, weights: tf.Tensor, seed: tf.Tensor) -> CriticStats:
        """The part of `train` that `train_policy` leaves: `Critic.fit`, which no action depends on."""
        assert self._critic is not None
        return self._critic.fit(inputs, returns, weights, seed)

    def _train(self, experience: trajectory.Trajectory, weights: tf.Tensor | None = None) -> tf_agent.LossInfo:
        batch, info = self._train_policy(experience, weights)
        if self._critic is not None:
            info = info._replace(extra=info.extra.with_critic(self.fit_critic(*self._fit_arguments(batch))))
        self._finish(batch)
        return info

    def _train_policy(
        self, experience: trajectory.Trajectory, weights: tf.Tensor | None
    ) -> tuple[PolicyBatch, tf_agent.LossInfo]:
        batch = self._batch(experience, weights)
        loss, stats = self._update(self._trained, batch)
        self._actor.project()
        if self._average is not None:
            self._average.follow(self.train_step_counter, stats.skipped, self._update.num_steps(self._trained, batch))
        return batch, tf_agent.LossInfo(loss, self._measure(batch, stats))

    def _fit_arguments(self, batch: PolicyBatch) -> tuple[Any, ...]:
        return batch.critic_inputs, batch.returns, batch.weights, self._trained.draw(Stream.CRITIC_MINIBATCHES)

    def _finish(self, batch: PolicyBatch) -> None:
        # Only now: the policy that acted, that was trained, and that was measured saw the same inputs.
        if self._actor.normaliser is not None:
            self._actor.normaliser.moments.update(batch.vectors, batch.weights)
        self.train_step_counter.assign_add(1)

    def _loss(
        self, experience: trajectory.Trajectory, weights: tf.Tensor | None = None, training: bool = False
    ) -> tf_agent.LossInfo:
        del training
        batch = self._batch(experience, weights, is_new=False)
        return tf_agent.LossInfo(self._trained.surrogate_loss(batch, batch.old_parameters), extra=())

    def _measure(self, batch: PolicyBatch, stats: NaturalGradientStats | GradientStats) -> PolicyExtra:
        """What the update did; the critic's numbers are 0 yet."""
        parameters = self._trained.parameters(batch.inputs)
        log_prob = self._head.log_prob(parameters, batch.action)
        zero = tf.zeros([])
        return PolicyExtra(
            surrogate_before=losses.weighted_mean(batch.advantage, batch.weights),
            surrogate_after=-losses.surrogate_loss(log_prob, batch.old_log_prob, batch.advantage, batch.weights),
            kl=self._trained.mean_kl(batch, parameters),
            entropy=losses.weighted_mean(self._head.entropy(batch.old_parameters), batch.weights),
            explained_variance=losses.explained_variance(batch.returns, batch.value, batch.weights),
            critic_loss=zero,
            critic_gradient_norm=zero,
            critic_skipped=zero,
            critic_skip_cause=zero,
            optimizer=stats,
        )

    def _seen(self, experience: trajectory.Trajectory) -> _Seen:
        # Each observation is encoded once. The last of a trajectory serves to bootstrap, and the others as inputs.
        observation = flat_rows(experience.observation)
        inputs, vectors, encoded = self._encoded(observation)
        for_critic = observation
        if self._actor.cell is not None:
            inputs, for_critic = recalled(self._actor, inputs, experience)
        if self._critic is None:
            return _Seen(inputs, (), None, vectors, encoded)
        shared = self._critic.encode == self._trained.encode
        critic_inputs = inputs if shared else self._critic.encode(for_critic)
        values = time_major(by_trajectory(self._critic.values(critic_inputs), experience.step_type.shape[0]))
        return _Seen(inputs, critic_inputs, values, vectors, encoded)

    def _encoded(self, observation: Any) -> tuple[Any, Any, Any]:
        """The policy's inputs, and the observations as vectors, as they are and normalised; none with a trunk."""
        encoder, encode = self._actor.encoder, self._trained.encode
        if encoder is None:
            return encode(observation), (), None
        vectors = encoder.vectors(observation)
        normalised = encoder.normalised(vectors)
        return (normalised if encode is encoder else encode(observation)), vectors, normalised

    def _batch(self, experience: trajectory.Trajectory, weights: tf.Tensor | None, is_new: bool = True) -> PolicyBatch:
        num_trajectories, num_rows = sizes(experience)
        if (num_rows - 1) % self.sequence_length:
            raise ValueError(
                f"{self.name}: trajectories of {num_rows} rows hold {num_rows - 1} steps, no multiple of "
                f"sequence_length ({self.sequence_length})"
            )
        inputs, critic_inputs, values, vectors, encoded = self._seen(experience)
        steps = tf.nest.map_structure(lambda leaf: leaf[:, :-1], experience._replace(observation=()))
        masks = boundaries(steps)
        r_t, discount_t = time_major(steps.reward), time_major(steps.discount)
        if is_new:
            # Before the rewards are scaled: a batch counts for its own scale.
            self._advantage.observe(r_t, masks)
        advantage, returns = self._advantage(r_t, discount_t, masks, values)
        value = tf.zeros_like(returns) if values is None else values[:-1]
        step_weights = rows_of(masks.weights)
        if weights is not None:
            step_weights *= tf.repeat(one_each(self.name, weights, num_trajectories), num_rows - 1)
        # The row between two episodes has weight 0 but may hold anything, NaN included: where its numbers reach a
        # derivative they must be 0, since 0 · NaN is NaN.
        used = step_weights > 0
        inputs = tf.nest.map_structure(lambda leaf: masked_rows(leaf, used), without_last(inputs, num_trajectories))
        # As drawn, not as the environment took it: clipped to its bounds, an action has another probability, or none.
        drawn = flat_rows(steps.action if self._actor.is_discrete else steps.policy_info[DRAWN])
        action = masked_rows(drawn, used)
        parameters = tf.stop_gradient(self._trained.parameters(inputs))
        log_prob = tf.stop_gradient(self._head.log_prob(parameters, action))
        advantage, returns = self._advantage.normalised(rows_of(advantage), step_weights), rows_of(returns)
        advantage = masked_rows(advantage, used)
        # One number that is not finite makes all so, that minibatches which happen to lack it are skipped too.
        guard = nan_guard(step_weights, advantage, returns, log_prob)
        advantage += guard
        return PolicyBatch(
            inputs=inputs,
            action=action,
            advantage=advantage,
            weights=step_weights,
            old_parameters=parameters,
            old_log_prob=log_prob,
            returns=returns + guard,
            value=rows_of(value),
            critic_inputs=without_last(critic_inputs, num_trajectories),
            vectors=without_last(vectors, num_trajectories),
            steps=Steps(
                r_t=r_t,
                discount_t=discount_t,
                continues_t=masks.continues_t,
                weights=time_major(by_trajectory(step_weights, num_trajectories)),
                is_first_tm1=time_major(tf.equal(steps.step_type, ts.StepType.FIRST)),
                encoded=None if encoded is None else time_major(by_trajectory(encoded, num_trajectories)),
                values=values,
                advantage=time_major(by_trajectory(advantage, num_trajectories)),
            ),
        )
