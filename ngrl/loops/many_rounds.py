"""Collect, store, sample and update in one call: what `OffPolicyLoop` does with a compiled environment."""

from collections.abc import Callable
from typing import Any, NamedTuple

import tensorflow as tf
from tf_agents.trajectories import time_step

from ngrl import seeding
from ngrl.loops.updates import many_updates
from ngrl.replay import CompiledReplayBuffer, Transition

_LAST = int(time_step.StepType.LAST)


class Standing(NamedTuple):
    """Where a loop is between two rounds; tensors or arrays."""

    actions_key: Any  # of the stream of actions [2]
    members: Any  # the environments' state
    observation: Any  # [N, ...]
    calls: Any  # numbers of the stream of actions that were drawn or passed over, int32
    env_steps: Any  # int64, and so the next two
    episodes: Any
    train_steps: Any
    streak: Any  # [2], as in `many_updates`


class Trained(NamedTuple):
    """What calls of `many_updates` have added up to."""

    calls: Any
    loss: Any  # sums over those calls of the means over their updates
    extra: Any
    skipped: Any  # updates


class Rounds(NamedTuple):
    """What T rounds at most did; tensors, whose rows from `count` on hold nothing."""

    count: Any
    standing: Standing
    trained: Trained
    discount: Any  # of the last step [N]
    step_type: Any  # before each step [T, N]
    reward: Any  # [T, N]
    next_step_type: Any  # [T, N]
    train_steps: Any  # finished after each round [T]


class RoundSettings(NamedTuple):
    """What a round depends on beside its standing; `OffPolicyLoop` says what each is."""

    batch_size: int
    warmup_steps: int
    updates_per_step: float
    updates_per_call: int
    max_skipped_updates: int
    epsilon: Callable[[Any, Any], Any]  # as a tensor, of env_steps and episodes


class ManyRounds:
    """Rounds of `OffPolicyLoop` as one graph: every environment acts once, is stored, and what is due is trained.

    The numbers are those of the loop that steps, but for the replay's draws, of which number t follows train step t. It
    stops, as that one does, where too many updates in a row were skipped or an observation or reward is not finite.

    Args:
      agent: The agent.
      environment: A `CompiledEnvironment`.
      replay: What has been collected.
      as_experience: Makes of a minibatch what `agent.train` takes.
      settings: The loop's.
      num_rounds: T.
    """

    def __init__(
        self,
        agent: Any,
        environment: Any,
        replay: CompiledReplayBuffer,
        as_experience: Callable[[Any], Any],
        settings: RoundSettings,
        num_rounds: int,
    ):
        self._agent = agent
        self._environment = environment
        self._replay = replay
        self._as_experience = as_experience
        self._settings = settings
        self._rounds = num_rounds

    def __call__(self, standing: Standing) -> Rounds:
        """T rounds, or fewer where one is the last."""
        shape = standing.observation.shape[:1]
        kinds = (tf.int32, tf.float32, tf.int32)
        rows = [tf.TensorArray(kind, self._rounds, element_shape=shape) for kind in kinds]
        rows.append(tf.TensorArray(tf.int64, self._rounds, element_shape=[]))
        zero = tf.zeros([])
        trained = Trained(zero, zero, self._agent.zero_extra(), zero)

        def goes_on(number: tf.Tensor, healthy: tf.Tensor, *_: Any) -> tf.Tensor:
            return healthy & (number < self._rounds)

        start = (tf.constant(0), tf.constant(True), standing, tf.ones(shape), trained, rows)
        count, _, standing, discount, trained, rows = tf.while_loop(goes_on, self._round, start, parallel_iterations=1)
        return Rounds(count, standing, trained, discount, *(row.stack() for row in rows))

    def _round(
        self, number: tf.Tensor, healthy: tf.Tensor, at: Standing, discount: tf.Tensor, trained: Trained, rows: Any
    ) -> tuple[Any, ...]:
        del healthy, discount
        epsilon = self._settings.epsilon(at.env_steps, at.episodes)
        epsilon = tf.where(at.env_steps < self._settings.warmup_steps, tf.ones_like(epsilon), epsilon)
        seed = seeding.at(at.actions_key, at.calls + 1)
        action = self._agent.act(at.observation, seed, tf.cast(epsilon, tf.float32)).action
        members, reached = self._environment.advance(at.members, action)
        finite = tf.constant(True)
        if self._environment.checks_finite:
            finite = tf.reduce_all(tf.math.is_finite(reached.reward))
            finite &= tf.reduce_all(tf.math.is_finite(reached.observation))
        moved = tf.not_equal(at.members.step_type, _LAST)
        items = Transition(at.observation, action, reached.reward, reached.discount, reached.observation)
        self._replay.add_steps(items, moved, tf.equal(at.members.step_type, int(time_step.StepType.FIRST)))
        ended = moved & tf.equal(reached.step_type, _LAST)
        after = at._replace(
            members=members,
            observation=reached.observation,
            env_steps=at.env_steps + _count(moved),
            episodes=at.episodes + _count(ended),
        )
        after, trained, calls = self._train(after, trained, finite)
        # A loop that steps draws at every choice of actions, and chooses after every call for updates.
        after = after._replace(calls=after.calls + tf.maximum(calls, 1))
        values = (at.members.step_type, reached.reward, reached.step_type, after.train_steps)
        rows = [row.write(number, value) for row, value in zip(rows, values, strict=True)]
        healthy = finite & (after.streak[0] < self._settings.max_skipped_updates)
        return number + 1, healthy, after, reached.discount, trained, rows

    def _train(self, at: Standing, trained: Trained, finite: tf.Tensor) -> tuple[Standing, Trained, tf.Tensor]:
        """The updates that are due, `updates_per_call` at a time; the last is how many times."""
        per_call, most = self._settings.updates_per_call, self._settings.max_skipped_updates
        warmup, per_step = self._settings.warmup_steps, tf.constant(self._settings.updates_per_step, tf.float64)
        trains = finite & (at.env_steps >= max(warmup, 1))
        allowed = per_step * tf.cast(at.env_steps - warmup, tf.float64)

        def due(calls: tf.Tensor, train_steps: tf.Tensor, streak: tf.Tensor, _: Trained) -> tf.Tensor:
            del calls
            return trains & (allowed - tf.cast(train_steps, tf.float64) >= per_call) & (streak[0] < most)

        def train(calls: tf.Tensor, train_steps: tf.Tensor, streak: tf.Tensor, trained: Trained) -> tuple[Any, ...]:
            number = tf.cast(train_steps, tf.int32)
            batches = self._replay.draw(number, per_call, self._settings.batch_size)

            def update(index: tf.Tensor) -> Any:
                minibatch = tf.nest.map_structure(lambda leaf: leaf[index], batches)
                return self._agent.train(self._as_experience(minibatch))

            loss, extra, skipped, streak = many_updates(update, self._agent.zero_extra(), per_call, streak)
            trained = tf.nest.map_structure(tf.add, trained, Trained(tf.ones([]), loss, extra, skipped))
            return calls + 1, train_steps + per_call, streak, trained

        calls, train_steps, streak, trained = tf.while_loop(
            due, train, (tf.constant(0), at.train_steps, at.streak, trained), parallel_iterations=1
        )
        return at._replace(train_steps=train_steps, streak=streak), trained, calls


def _count(mask: tf.Tensor) -> tf.Tensor:
    return tf.reduce_sum(tf.cast(mask, tf.int64))
