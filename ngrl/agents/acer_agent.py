"""ACER: actor-critic with experience replay (Wang et al. 2017)."""

from typing import Any, NamedTuple

import tensorflow as tf
from tf_agents.agents import tf_agent
from tf_agents.policies import actor_policy, greedy_policy
from tf_agents.trajectories import policy_step, trajectory
from tf_agents.trajectories import time_step as ts
from tf_agents.typing import types

from ngrl import losses, seeding
from ngrl.agents.action_values import ActionValueCritic, Judgement
from ngrl.agents.average import begin_at
from ngrl.agents.heads import ActionHead, head_for
from ngrl.agents.minibatches import masked_rows
from ngrl.agents.network_check import (
    check_actions,
    check_normaliser,
    check_separate,
    check_trainable,
    check_unpenalised,
)
from ngrl.agents.policies import DRAWN, BehaviourPolicy, sampled_step
from ngrl.agents.retrace import Retrace
from ngrl.agents.schedules import Schedule, check_weight, counter, weight_at
from ngrl.agents.steps import check_own, check_plain
from ngrl.agents.target_update import follow_update
from ngrl.agents.trajectories import boundaries, flat_rows, nan_guard, rows_of, sizes, time_major
from ngrl.agents.trust_region import TrustRegion
from ngrl.checks import check_number, check_optional_number
from ngrl.configurable import configurable
from ngrl.networks import ActorNetwork
from ngrl.optimizers import GradientStats, apply_finite_gradients, sum_slices
from ngrl.replay import BEHAVIOUR, Experience, check_behaviour

# What `max_ratio` shows at most.
_LARGEST_RATIO = 1e6


class AcerExtra(NamedTuple):
    """`LossInfo.extra` of `AcerAgent`: float32 scalars, over the steps that count."""

    policy_loss: tf.Tensor  # −Ê of the objective whose gradient is g
    critic_loss: tf.Tensor
    kl: tf.Tensor  # mean KL(average policy ‖ policy), before the update
    entropy: tf.Tensor  # of the policy, in nats
    mean_ratio: tf.Tensor  # ρ of the actions taken
    max_ratio: tf.Tensor
    truncated: tf.Tensor  # share of steps with ρ > c
    trust_region: tf.Tensor  # share of steps at which the trust region bent the gradient
    explained_variance: tf.Tensor  # of Q^ret by Q(x, a)
    q_mean: tf.Tensor  # Q(x, a) of the actions taken
    critic_gradient_norm: tf.Tensor
    optimizer: GradientStats  # of the policy's step; `skipped` is of the whole update

    def scalars(self, loss: Any) -> dict[str, Any]:
        """Tags and values for TensorBoard; the loss is the sum of the two that are here."""
        del loss
        return {
            "Losses/policy_loss": self.policy_loss,
            "Losses/critic_loss": self.critic_loss,
            "ngrl/kl_to_average": self.kl,
            "ngrl/entropy": self.entropy,
            "ngrl/importance_ratio_mean": self.mean_ratio,
            "ngrl/importance_ratio_max": self.max_ratio,
            "ngrl/truncated_share": self.truncated,
            "ngrl/trust_region_active_share": self.trust_region,
            "ngrl/explained_variance": self.explained_variance,
            "ngrl/q_mean": self.q_mean,
            "ngrl/gradient_norm": self.optimizer.gradient_norm,
            "ngrl/critic_gradient_norm": self.critic_gradient_norm,
        }


class AcerBatch(NamedTuple):
    """N = B·T rows, those of each trajectory one after another; the last row of each has weight 0."""

    observation: Any  # [N, ...], 0 in rows that hold a number that is not finite
    actions: tf.Tensor  # as drawn [N] or [N, D]
    behaviour: tf.Tensor  # parameters of the distribution they were drawn from [N, K]
    weights: tf.Tensor  # [N], 0 at episode boundaries, which are no transitions
    finite: tf.Tensor  # [N] bool, False where the observation is not
    reward: tf.Tensor  # [T − 1, B]
    discount: tf.Tensor  # [T − 1, B]
    continues: tf.Tensor  # 0 where the step was the last of its episode [T − 1, B]


class AcerView(NamedTuple):
    """What the critic makes of a batch of N rows under the present policy."""

    judgement: Judgement
    log_ratio: tf.Tensor  # log ρ of the actions taken [N]
    q_ret: tf.Tensor  # Q^ret [N], 0 at masked rows
    advantage: tf.Tensor  # Q^ret − V, or Q^opc − V where actions are continuous [N]
    guard: tf.Tensor  # NaN where a step that counts holds a number that is not finite, else 0; a scalar


@configurable
class AcerAgent(tf_agent.TFAgent):
    """Off-policy actor-critic for one discrete action or a vector of continuous ones.

    `train` takes a TF-Agents `Trajectory` [B, T, ...] with T ≥ 2 from `collect_policy`, fresh or replayed: its
    `policy_info` tells the distribution that each action was drawn from. Of each trajectory the last row gives only
    the observation from which the one before is bootstrapped. One update is

      1. Retrace targets Q^ret (and Q^opc for continuous actions);
      2. g, the gradient of the truncated and bias-corrected objective with respect to the statistics Φ of the policy;
      3. its projection z* onto the trust region around the average policy, and z* propagated back to θ;
      4. a step of the critic towards Q^ret;
      5. the average policy, moved towards the new one.

    Numbers that are not finite in a step that counts, the behaviour's log-probability of the action taken among them,
    skip all of it. An action that the present policy never takes has the weight 0.

    Args:
      time_step_spec: Spec of the environment's time steps.
      action_spec: Spec of its actions.
      actor_network: The policy.
      average_network: Like it; its weights are set to the policy's and follow them.
      critic: `DiscreteCritic` or `DuelingCritic`, as the actions are.
      optimizer: Keras optimizer of the policy.
      critic_optimizer: Keras optimizer of the critic.
      retrace: How rewards become Q^ret; `Retrace()` by default.
      trust_region: Bounds the policy's updates; `TrustRegion()` by default.
      truncation: c, the level at which importance weights are truncated.
      entropy_weight: Weight of the entropy bonus in the objective: a number, or a Keras schedule over the train steps,
        whose values below zero count as zero.
      max_gradient_norm: Clip the norm of the policy's and of the critic's gradients to this.
      seed: Seed of the draws in the critic.
      train_step_counter: Counts train steps; a counter of this agent's own by default.
      name: Name of the agent.

    Raises:
      ValueError: The specs don't fit the networks or the critic, or an argument is out of its range.
    """

    experience = Experience.REPLAYED_TRAJECTORIES

    def __init__(
        self,
        time_step_spec: ts.TimeStep,
        action_spec: types.NestedTensorSpec,
        actor_network: ActorNetwork,
        average_network: ActorNetwork,
        critic: ActionValueCritic,
        optimizer: tf.keras.optimizers.Optimizer,
        critic_optimizer: tf.keras.optimizers.Optimizer,
        retrace: Retrace | None = None,
        trust_region: TrustRegion | None = None,
        truncation: float = 10.0,
        entropy_weight: float | Schedule = 0.001,
        max_gradient_norm: float | None = 10.0,
        seed: int = 0,
        train_step_counter: tf.Variable | None = None,
        name: str = "AcerAgent",
    ):
        tf.Module.__init__(self, name=name)
        self._truncation = check_number(f"{name}: truncation", truncation, "(0, inf]")
        self._max_gradient_norm = check_optional_number(f"{name}: max_gradient_norm", max_gradient_norm, "(0, inf)")
        check_weight(name, "entropy_weight", entropy_weight)
        self._head = head_for(action_spec)
        self._retrace = Retrace() if retrace is None else retrace
        self._trust_region = TrustRegion() if trust_region is None else trust_region
        self._trust_region.check(actor_network.is_discrete)
        critic.check(name, action_spec)
        check_plain(name, optimizer, "take Adam")
        check_plain(f"{name}: the critic", critic_optimizer, "take Adam")
        check_own(name, optimizer, critic_optimizer)
        for policy_network in (actor_network, average_network):
            check_actions(name, policy_network, action_spec)
            policy_network.create_variables(time_step_spec.observation)
            check_normaliser(name, "the policy", policy_network.normaliser)
        for network in (actor_network, average_network, critic):
            check_trainable(name, network, natural=False)
            check_unpenalised(name, network)
        begin_at(name, "the policy", actor_network, average_network, time_step_spec.observation, natural=False)
        check_separate(name, "the policy", actor_network, "the critic", critic)
        self._actor, self._average, self._critic = actor_network, average_network, critic
        self._optimizer, self._critic_optimizer = optimizer, critic_optimizer
        self._entropy_weight = entropy_weight
        self._draws = seeding.key(seed, seeding.Stream.CRITIC_DRAWS)
        with tf.init_scope():
            optimizer.build(actor_network.trainable_weights)
            critic_optimizer.build(critic.variables)
        policy = actor_policy.ActorPolicy(time_step_spec, action_spec, actor_network)
        super().__init__(
            time_step_spec,
            action_spec,
            policy=greedy_policy.GreedyPolicy(policy),
            collect_policy=BehaviourPolicy(time_step_spec, action_spec, actor_network),
            train_sequence_length=None,
            train_step_counter=counter(train_step_counter),
        )

    @property
    def actor_network(self) -> ActorNetwork:
        """The policy's network."""
        return self._actor

    @property
    def average_network(self) -> ActorNetwork:
        """The average policy's network."""
        return self._average

    @property
    def critic(self) -> ActionValueCritic:
        """The critic."""
        return self._critic

    @property
    def optimizer(self) -> tf.keras.optimizers.Optimizer:
        """The policy's optimizer."""
        return self._optimizer

    @property
    def critic_optimizer(self) -> tf.keras.optimizers.Optimizer:
        """The critic's optimizer."""
        return self._critic_optimizer

    def act(self, observation: Any, seed: tf.Tensor) -> policy_step.PolicyStep:
        """Sampled actions that depend on the arguments and the weights only (stateless, so it resumes exactly).

        Args:
          observation: Observations [N, ...].
          seed: Two integers [2].

        Returns:
          Actions [N, ...] within the environment's bounds, and in `info` what `collect_policy` would say.
        """
        parameters = self._actor.distribution_parameters(observation)
        step = sampled_step(self._actor, self._head, parameters, self.action_spec, seed)
        return step._replace(info={BEHAVIOUR: parameters, **(step.info or {})})

    def zero_extra(self) -> AcerExtra:
        """An all-zero `LossInfo.extra`."""
        zero = tf.zeros([])
        measured = {field: zero for field in AcerExtra._fields if field != "optimizer"}
        return AcerExtra(**measured, optimizer=GradientStats(zero, zero, zero))

    def _initialize(self) -> None:
        pass

    def _train(self, experience: trajectory.Trajectory, weights: tf.Tensor | None = None) -> tf_agent.LossInfo:
        if weights is not None:
            raise ValueError("AcerAgent.train takes no weights: a trajectory's steps count by what it says of them")
        batch = self._batch(experience)
        with tf.GradientTape() as actor_tape:
            parameters = self._actor.distribution_parameters(batch.observation)
        statistics = tf.stop_gradient(parameters)
        with tf.GradientTape() as critic_tape:
            view = self._view(batch, statistics)
            errors = self._critic.errors(view.judgement, view.q_ret, view.log_ratio)
            critic_loss = losses.weighted_mean(errors, batch.weights)
        ascent = self._trust_region.ascend(
            lambda head, phi: self._objective(batch, head, phi, view),
            self._head,
            statistics,
            tf.stop_gradient(self._average.distribution_parameters(batch.observation)),
            batch.weights,
        )
        policy_loss = -losses.weighted_mean(ascent.objective, batch.weights)
        share = tf.math.divide_no_nan(batch.weights, tf.reduce_sum(batch.weights))[:, tf.newaxis]
        actor_gradients = actor_tape.gradient(
            parameters, self._actor.trainable_weights, output_gradients=-share * ascent.projected
        )
        critic_gradients = critic_tape.gradient(critic_loss, self._critic.variables)
        loss = policy_loss + critic_loss + view.guard
        critic_norm = tf.linalg.global_norm(sum_slices(critic_gradients))
        stats = self._apply(actor_gradients, critic_gradients, critic_norm, loss)
        self.train_step_counter.assign_add(1)
        ratio = losses.truncated_ratio(view.log_ratio, _LARGEST_RATIO)
        taken = tf.stop_gradient(view.judgement.taken)
        extra = AcerExtra(
            policy_loss=policy_loss,
            critic_loss=critic_loss,
            kl=losses.weighted_mean(ascent.kl, batch.weights),
            entropy=losses.weighted_mean(self._head.entropy(statistics), batch.weights),
            mean_ratio=losses.weighted_mean(ratio, batch.weights),
            max_ratio=tf.reduce_max(tf.where(batch.weights > 0, ratio, 0.0)),
            truncated=losses.weighted_mean(tf.cast(ratio > self._truncation, tf.float32), batch.weights),
            trust_region=losses.weighted_mean(ascent.active, batch.weights),
            explained_variance=losses.explained_variance(view.q_ret, taken, batch.weights),
            q_mean=losses.weighted_mean(taken, batch.weights),
            critic_gradient_norm=critic_norm,
            optimizer=stats,
        )
        return tf_agent.LossInfo(loss, extra)

    def _draw(self) -> tf.Tensor:
        """A seed [2] for this train step."""
        return seeding.at(self._draws, tf.cast(self.train_step_counter, tf.int32))

    def _batch(self, experience: trajectory.Trajectory) -> AcerBatch:
        check_behaviour(experience)
        num_trajectories, num_rows = sizes(experience)
        masks = boundaries(experience)
        # The last row of a trajectory is no transition either.
        ends = tf.concat([tf.ones([num_rows - 1, 1]), tf.zeros([1, 1])], axis=0)
        weights = rows_of(masks.weights * ends)
        used = weights > 0
        observation = flat_rows(experience.observation)
        finite = tf.ones_like(used)
        for leaf in tf.nest.flatten(observation):
            if leaf.dtype.is_floating:
                finite &= tf.reduce_all(tf.math.is_finite(tf.reshape(leaf, [num_trajectories * num_rows, -1])), axis=1)
        info = experience.policy_info
        actions = flat_rows(experience.action if self._actor.is_discrete else info[DRAWN])
        return AcerBatch(
            observation=tf.nest.map_structure(lambda leaf: masked_rows(leaf, finite), observation),
            actions=masked_rows(actions, used),
            behaviour=masked_rows(flat_rows(info[BEHAVIOUR]), used),
            weights=weights,
            finite=finite,
            reward=self._retrace.reward_scale * time_major(experience.reward)[:-1],
            discount=time_major(experience.discount)[:-1],
            continues=masks.continues_t[:-1],
        )

    def _view(self, batch: AcerBatch, statistics: tf.Tensor) -> AcerView:
        """What the critic makes of the batch under the present policy."""
        judgement = self._critic.judge(batch.observation, batch.actions, statistics, self._head, self._draw())
        log_prob = self._head.log_prob(statistics, batch.actions)
        behaviour_log_prob = self._head.log_prob(batch.behaviour, batch.actions)
        log_ratio = log_prob - behaviour_log_prob
        # A state whose observation isn't finite has no value: whoever bootstraps from it must notice.
        value = tf.where(batch.finite, tf.stop_gradient(judgement.value), float("nan"))
        num_steps, num_trajectories = batch.reward.shape

        def steps(rows: tf.Tensor) -> tf.Tensor:
            return time_major(tf.reshape(rows, [num_trajectories, num_steps + 1]))

        coefficient = losses.retrace_coefficient(log_ratio, self._retrace.retrace_lambda, self._critic.num_dimensions)
        known = (batch.reward, batch.discount, batch.continues, steps(tf.stop_gradient(judgement.taken))[:-1])

        def targets(c: tf.Tensor) -> tf.Tensor:
            q = losses.retrace_targets(*known, steps(value)[1:], steps(c)[:-1], self._retrace.gamma)
            return masked_rows(rows_of(tf.concat([q, tf.zeros_like(q[:1])], axis=0)), batch.weights > 0)

        q_ret = targets(coefficient)
        impossible = tf.math.is_inf(log_prob) & (log_prob < 0)
        guard = nan_guard(batch.weights, value, q_ret, behaviour_log_prob, tf.where(impossible, 0.0, log_prob))
        q_policy = q_ret if self._actor.is_discrete else targets(tf.ones_like(coefficient))
        return AcerView(judgement, log_ratio, q_ret, q_policy - tf.stop_gradient(judgement.value), guard)

    def _objective(self, batch: AcerBatch, head: ActionHead, statistics: tf.Tensor, view: AcerView) -> tf.Tensor:
        """What g is the gradient of [N]; `head` says what the policy's statistics mean."""
        judgement = view.judgement
        behaviour_log_prob = self._head.log_prob(batch.behaviour, batch.actions)
        objective = losses.truncated_policy_objective(
            head.log_prob(statistics, batch.actions), behaviour_log_prob, view.advantage, self._truncation
        )
        correction = losses.bias_correction_objective(
            _log_probs(head, statistics, judgement.others),
            _log_probs(self._head, batch.behaviour, judgement.others),
            judgement.other_values - tf.stop_gradient(judgement.value)[:, tf.newaxis],
            judgement.other_weights,
            self._truncation,
        )
        entropy_weight = weight_at(self._entropy_weight, self.train_step_counter)
        return objective + correction + entropy_weight * head.entropy(statistics)

    def _apply(self, actor_gradients: Any, critic_gradients: Any, critic_norm: tf.Tensor, loss: tf.Tensor) -> Any:
        """All of the update, or nothing of it."""
        # One that is not finite makes both norms so: whichever step is asked first, neither is taken.
        guarded = loss + 0 * (critic_norm + tf.linalg.global_norm(actor_gradients))
        pairs = zip(critic_gradients, self._critic.variables, strict=True)
        apply_finite_gradients(self._critic_optimizer, pairs, guarded, self._max_gradient_norm)
        variables = self._actor.trainable_weights
        pairs = zip(actor_gradients, variables, strict=True)
        stats = apply_finite_gradients(self._optimizer, pairs, guarded, self._max_gradient_norm)
        self._actor.project()
        average = self._average.trainable_weights
        follow_update(self._trust_region.average_update, variables, average, self.train_step_counter, stats.skipped)
        return stats


def _log_probs(head: ActionHead, statistics: tf.Tensor, actions: tf.Tensor) -> tf.Tensor:
    """Log f(a_j|Φ) [N, J] of J actions a state [N, J] or [N, J, D]."""
    count = actions.shape[1]
    flat = head.log_prob(tf.repeat(statistics, count, axis=0), tf.reshape(actions, [-1, *actions.shape[2:]]))
    return tf.reshape(flat, [-1, count])
