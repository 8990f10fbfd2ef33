"""PQN: Q(λ) on what vector environments have just collected, without replay or target (Gallici et al. 2024)."""

from typing import Any, NamedTuple

import tensorflow as tf
from tf_agents.agents import tf_agent
from tf_agents.networks import network
from tf_agents.trajectories import policy_step, trajectory
from tf_agents.trajectories import time_step as ts
from tf_agents.typing import types

from ngrl import losses, seeding
from ngrl.agents.dqn_agent import DqnAgent, DqnExtra, TdLoss
from ngrl.agents.minibatches import add_stats, for_each_minibatch, shuffled_minibatches
from ngrl.agents.q_lambda import QLambda
from ngrl.agents.schedules import Schedule, counter, weight_at
from ngrl.agents.trajectories import flat_rows, nan_guard, one_each, rows_of, sizes
from ngrl.checks import check_count, check_number
from ngrl.configurable import configurable
from ngrl.replay import Experience


class PqnExtra(NamedTuple):
    """`LossInfo.extra` of `PqnAgent`: means over the minibatches, and ε of the batch."""

    minibatches: DqnExtra
    epsilon: tf.Tensor

    @property
    def optimizer(self) -> Any:
        """What the steps were like."""
        return self.minibatches.optimizer

    def scalars(self, loss: Any) -> dict[str, Any]:
        """Tags and values for TensorBoard, `LossInfo.loss` among them."""
        return {"ngrl/epsilon": self.epsilon, **self.minibatches.scalars(loss)}


@configurable
class PqnAgent(DqnAgent):
    """Parallelised Q-network for one discrete action.

    `train` takes what `collect_policy` collected since the latest update, a TF-Agents `Trajectory` [B, T, ...]: targets
    are Peng's Q(λ) by the network as it is, and then steps are trained on in epochs of shuffled minibatches
    (Gallici et al. 2024, algorithm 1). What keeps it stable is a network with `layer_norm`.

    Args:
      time_step_spec: Spec of the environment's time steps.
      action_spec: A scalar, integer, bounded spec with minimum 0.
      q_network: As in `DqnAgent`.
      optimizer: `NaturalGradient` or any other Keras optimizer.
      epsilon: ε of the collect policy: a number, or a Keras schedule over the train steps.
      gamma: Discount factor γ.
      trace_lambda: λ.
      epochs: How often each update goes through the batch.
      batch_size: Steps in a minibatch.
      td_loss: Elementwise loss of target [N] and prediction [N], differentiable in the prediction; gives [N].
      max_gradient_norm: Clip the norm of a plain optimizer's gradients, all variables together.
      reward_scale: Factor on rewards.
      seed: Seed of the order of minibatches.
      train_step_counter: Counts train steps; a counter of this agent's own by default.
      name: Name of the agent.

    Raises:
      ValueError: As `DqnAgent`.
    """

    experience = Experience.TRAJECTORIES

    def __init__(
        self,
        time_step_spec: ts.TimeStep,
        action_spec: types.NestedTensorSpec,
        q_network: network.Network,
        optimizer: tf.keras.optimizers.Optimizer,
        epsilon: float | Schedule = 0.1,
        gamma: float = 0.99,
        trace_lambda: float = 0.65,
        epochs: int = 4,
        batch_size: int = 128,
        td_loss: TdLoss = losses.half_squared_error,
        max_gradient_norm: float | None = None,
        reward_scale: float = 1.0,
        seed: int = 0,
        train_step_counter: tf.Variable | None = None,
        name: str = "PqnAgent",
    ):
        if not isinstance(epsilon, tf.keras.optimizers.schedules.LearningRateSchedule):
            check_number(f"{name}: epsilon", epsilon, "[0, 1]")
        self._epochs = check_count(f"{name}: epochs", epochs)
        self._batch_size = check_count(f"{name}: batch_size", batch_size)
        self._target = QLambda(trace_lambda=trace_lambda)
        self._epsilon_schedule = epsilon
        self._order = seeding.key(seed, seeding.Stream.CRITIC_MINIBATCHES)
        step = counter(train_step_counter)
        super().__init__(
            time_step_spec,
            action_spec,
            q_network,
            optimizer,
            epsilon_greedy=tf.Variable(weight_at(epsilon, step), trainable=False, name="epsilon"),
            gamma=gamma,
            td_loss=td_loss,
            max_gradient_norm=max_gradient_norm,
            reward_scale=reward_scale,
            train_step_counter=step,
            name=name,
        )

    def act(self, observation: Any, seed: tf.Tensor, epsilon: tf.Tensor | None = None) -> policy_step.PolicyStep:
        """As `DqnAgent.act`; by default with the ε of this train step."""
        return super().act(observation, seed, self._epsilon if epsilon is None else epsilon)

    def zero_extra(self) -> PqnExtra:  # type: ignore[override]
        """An all-zero `LossInfo.extra`."""
        return PqnExtra(super().zero_extra(), tf.zeros([]))

    def _train(self, experience: trajectory.Trajectory, weights: tf.Tensor | None = None) -> tf_agent.LossInfo:
        batch = self._batch(experience, weights)
        seed = seeding.at(self._order, self.train_step_counter)
        minibatches = shuffled_minibatches(batch.target.shape[0], self._batch_size, self._epochs, seed)

        def update(rows: tf.Tensor) -> tf_agent.LossInfo:
            info = self._step(tf.nest.map_structure(lambda leaf: tf.gather(leaf, rows), batch))
            stats = info.extra.optimizer
            # A skipped one holds a number that is not finite: it counts in `skipped`, not in the sums.
            kept = tf.nest.map_structure(lambda value: tf.math.multiply_no_nan(value, 1 - stats.skipped), info)
            told = kept.extra.optimizer._replace(skipped=stats.skipped, skip_cause=stats.skip_cause)
            return kept._replace(extra=kept.extra._replace(optimizer=told))

        def together(total: tf_agent.LossInfo, more: tf_agent.LossInfo) -> tf_agent.LossInfo:
            sums = tf.nest.map_structure(tf.add, total, more)
            return sums._replace(
                extra=sums.extra._replace(optimizer=add_stats(total.extra.optimizer, more.extra.optimizer))
            )

        zero = tf_agent.LossInfo(tf.zeros([]), super().zero_extra())
        total = for_each_minibatch(minibatches, update, zero, together)
        stats = total.extra.optimizer
        epsilon = weight_at(self._epsilon_schedule, self.train_step_counter)
        self.train_step_counter.assign_add(1)
        self.set_epsilon(weight_at(self._epsilon_schedule, self.train_step_counter))
        if self._average is not None:
            self._average.follow(self.train_step_counter - 1, stats.skipped, minibatches.shape[0])
        done = minibatches.shape[0] - stats.skipped
        loss, extra = tf.nest.map_structure(lambda value: tf.math.divide_no_nan(value, done), total)
        optimizer = extra.optimizer._replace(skipped=stats.skipped, skip_cause=stats.skip_cause)
        return tf_agent.LossInfo(loss, PqnExtra(extra._replace(optimizer=optimizer), tf.convert_to_tensor(epsilon)))

    def _batch(self, experience: trajectory.Trajectory, weights: tf.Tensor | None) -> Any:
        """All N = B·(T − 1) steps of the trajectories."""
        num_trajectories, num_rows = sizes(experience)
        targets, masks = self._returns(self._target, experience)
        left = tf.nest.map_structure(lambda leaf: leaf[:, :-1], (experience.observation, experience.action))
        mask = rows_of(masks.weights)
        if weights is not None:
            weights = tf.repeat(one_each(self.name, weights, num_trajectories), num_rows - 1)
        observation, action = flat_rows(left)
        batch = self._masked(observation, action, rows_of(targets), mask, weights)
        guard = nan_guard(mask, batch.target, tf.reduce_max(self._q_network(batch.observation)[0], axis=1))
        return batch._replace(target=batch.target + guard)
