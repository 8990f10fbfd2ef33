"""The off-policy loop: vector environments, replay, and many updates in one compiled call."""

from typing import Any, Protocol

import numpy as np
import tensorflow as tf
from tf_agents.trajectories import policy_step, time_step, trajectory

from ngrl.checks import check_count, check_number
from ngrl.configurable import configurable
from ngrl.loops.compiled import Compiled
from ngrl.loops.exploration import EpsilonSchedule, ExponentialEpsilon, check_schedule
from ngrl.loops.loop import Moved, TrainingLoop, check_agent, part
from ngrl.loops.many_rounds import ManyRounds, Rounds, RoundSettings, Standing
from ngrl.loops.state import LoopState
from ngrl.loops.statistics import FinishedEpisode
from ngrl.loops.updates import many_updates
from ngrl.replay import (
    CompiledReplayBuffer,
    Experience,
    FrameReplayBuffer,
    SequenceReplayBuffer,
    Sequences,
    Transition,
    UniformReplayBuffer,
)


class OffPolicyAgent(Protocol):
    """What the loop asks of an agent: TF-Agents' `train`, and exploration without hidden state."""

    experience: Experience
    #: 2 for transitions; n + 1 for trajectories [B, n + 1, ...], of which the first steps are trained on.
    train_sequence_length: int

    def train(self, experience: Any) -> Any:
        """One update; returns a LossInfo whose `extra.scalars(loss)` says its tags and values."""

    def zero_extra(self) -> Any:
        """An all-zero `LossInfo.extra`."""

    def set_epsilon(self, value: float) -> None:
        """Set ε of the collect policy."""

    def act(self, observation: Any, seed: Any, epsilon: Any) -> Any:
        """A `PolicyStep` for observations [N, ...], of which a share ε is drawn uniformly."""


@configurable
class OffPolicyLoop(TrainingLoop):
    """Steps N environments together and trains on replayed minibatches.

    One compiled call performs `updates_per_call` updates and chooses the next actions, because a TensorFlow call costs
    more than the arithmetic in it. Actions depend on the seed and counters alone, and the state of the generator
    that draws minibatches is saved, so that a restored loop goes on bit for bit. With compiled environments one call
    does all of it, many times over (`ManyRounds`).

    Args:
      agent: The agent.
      environment: A batched environment of `ngrl.environments`.
      seed: Seed of exploration and replay.
      batch_size: Transitions in a minibatch, each with those that followed it if the agent looks several steps ahead.
      replay_capacity: Transitions kept.
      warmup_steps: Environment steps taken with uniformly random actions before the first update.
      updates_per_step: Updates per environment step.
      updates_per_call: Updates in one compiled call.
      epsilon: Schedule of ε.
      max_skipped_updates: Updates in a row that may be skipped because of a number that is not finite.
      jit_compile: Compile with XLA.
      steps_per_call: With compiled environments, how often each is stepped in one call. Numbers don't depend on it.

    Raises:
      ValueError: An argument is out of its range, `epsilon` takes other arguments than a schedule of ε, or the
        environments are compiled and it can't be.
    """

    def __init__(
        self,
        agent: OffPolicyAgent,
        environment: Any,
        seed: int = 0,
        batch_size: int = 128,
        replay_capacity: int = 50_000,
        warmup_steps: int = 1_000,
        updates_per_step: float = 1.0,
        updates_per_call: int = 8,
        epsilon: EpsilonSchedule | None = None,
        max_skipped_updates: int = 100,
        jit_compile: bool = True,
        steps_per_call: int = 32,
    ):
        self._batch_size = check_count("batch_size", batch_size)
        check_count("steps_per_call", steps_per_call)
        self._updates_per_call = check_count("updates_per_call", updates_per_call)
        self._warmup_steps = check_count("warmup_steps", warmup_steps, 0)
        self._updates_per_step = check_number("updates_per_step", updates_per_step, "[0, inf)")
        if replay_capacity < batch_size:
            raise ValueError(f"replay_capacity ({replay_capacity}) is below batch_size ({batch_size})")
        if replay_capacity < environment.batch_size:
            raise ValueError(f"replay_capacity ({replay_capacity}) is below num_envs ({environment.batch_size})")
        check_agent(Experience.TRANSITIONS, agent)
        super().__init__(environment, seed, max_skipped_updates)
        self._agent = agent
        self._epsilon_schedule = epsilon if epsilon is not None else ExponentialEpsilon()
        check_schedule(self._epsilon_schedule)
        self._replay: Any = self._make_replay(replay_capacity, agent.train_sequence_length - 1)
        self._act = Compiled(lambda *arguments: agent.act(*arguments).action, jit_compile, self._used)
        self._train_and_act = Compiled(self._train_and_act_graph, jit_compile, self._used)
        self._actions: np.ndarray | None = None
        self._rounds = self._compile_rounds(steps_per_call, jit_compile) if environment.is_compiled else None
        self._steps_trained = np.zeros((2, 0), np.int64)  # of the latest rounds: environment steps, train steps

    def _compile_rounds(self, num_rounds: int, jit_compile: bool) -> Compiled:
        """The call that does so many rounds."""
        if not hasattr(self._epsilon_schedule, "in_graph"):
            raise ValueError(
                f"{type(self._epsilon_schedule).__name__} has no in_graph(env_steps, episodes), which compiled "
                "environments need of a schedule of ε; Environment.backend = @SyncEnvironments() needs none"
            )
        settings = RoundSettings(
            self._batch_size,
            self._warmup_steps,
            self._updates_per_step,
            self._updates_per_call,
            self._max_skipped,
            self._epsilon_schedule.in_graph,
        )
        rounds = ManyRounds(self._agent, self._environment, self._replay, as_experience, settings, num_rounds)
        return Compiled(rounds, jit_compile, lambda: [*self._used(), *self._replay.variables])

    def _make_replay(
        self, capacity: int, num_steps: int
    ) -> UniformReplayBuffer | FrameReplayBuffer | CompiledReplayBuffer:
        first = tf.nest.map_structure(lambda leaf: leaf[0], self._observation)
        spec, stacked = self._environment.action_spec(), self._environment.stacks_frames
        example = Transition(first, np.zeros(spec.shape, spec.dtype), np.float32(0), np.float32(0), first)
        num_envs = self._environment.batch_size
        if self._environment.is_compiled:
            return CompiledReplayBuffer(example, capacity, num_envs, self._seed, num_steps)

        def make(example: Transition) -> UniformReplayBuffer:
            if num_steps == 1:
                return UniformReplayBuffer(example, capacity, self._seed)
            return SequenceReplayBuffer(example, capacity, num_envs, num_steps, self._seed)

        if stacked or (isinstance(first, np.ndarray) and first.ndim > 1):
            return FrameReplayBuffer(make, example, num_envs, stacked)
        return make(example)

    @property
    def replay(self) -> UniformReplayBuffer | FrameReplayBuffer | CompiledReplayBuffer:
        """What has been collected."""
        return self._replay

    def sample(self, *shape: int) -> Transition | Sequences:
        """Minibatches of what has been collected [*shape, ...]."""
        if self._rounds is not None:
            return self._replay.draw(np.int32(self.train_steps), *shape)
        return self._replay.sample(*shape)

    @property
    def epsilon(self) -> float:
        """ε of the next action."""
        if self.statistics.env_steps < self._warmup_steps:
            return 1.0
        return self._epsilon_schedule(self.statistics.env_steps, self.statistics.episodes)

    def step(self) -> list[FinishedEpisode]:
        """Step every environment once, or `steps_per_call` times; store what happened, and perform the updates due."""
        if self._rounds is not None:
            return self._adopt(self._rounds(self._standing()))
        if self._actions is None:
            self._actions = self._choose_actions()
        step = self._advance(self._actions)
        if step.moved.any():
            self._store(step, self._actions)
        self._actions = self._train() if self._updates_due() else None
        return step.finished

    def _standing(self) -> Standing:
        statistics = self.statistics
        return Standing(
            actions_key=self._actions_key,
            members=self._environment.state,
            observation=self._observation,
            calls=np.int32(self._calls),
            env_steps=np.int64(statistics.env_steps),
            episodes=np.int64(statistics.episodes),
            train_steps=np.int64(self.train_steps),
            streak=self._streak,
        )

    def _adopt(self, rounds: Rounds) -> list[FinishedEpisode]:
        """Take over what a call did."""
        count, standing = int(rounds.count), rounds.standing
        step_type, reward, next_step_type, train_steps = (
            leaf[:count].numpy()
            for leaf in (rounds.step_type, rounds.reward, rounds.next_step_type, rounds.train_steps)
        )
        self._observation, self._step_type = standing.observation.numpy(), next_step_type[-1]
        self._environment.adopt(
            standing.members, self._observation[:, np.newaxis], reward.T, rounds.discount.numpy(), self._step_type
        )
        self._calls = int(standing.calls)
        moved = step_type != time_step.StepType.LAST
        env_steps = self.statistics.env_steps + np.cumsum(moved.sum(axis=1))
        self._steps_trained = np.stack([env_steps, train_steps])
        finished = self.statistics.add_many(reward, moved, moved & (next_step_type == time_step.StepType.LAST))
        trained = rounds.trained
        if calls := float(trained.calls):
            loss, extra = tf.nest.map_structure(lambda total: total / calls, (trained.loss, trained.extra))
            count = int(standing.train_steps) - self.train_steps
            self._count_updates(count, loss, extra, trained.skipped, standing.streak)
        return finished

    def train_steps_at(self, env_steps: int) -> int:
        """Train steps finished in the step that reached so many environment steps, if that is a recent one."""
        reached, train_steps = self._steps_trained
        return int(train_steps[np.searchsorted(reached, env_steps)]) if len(reached) else self.train_steps

    def _store(self, step: Moved, actions: np.ndarray) -> None:
        items = Transition(step.from_observation, actions, step.reward, step.discount, step.observation)
        if not step.moved.all():
            items = tf.nest.map_structure(lambda leaf: leaf[step.moved], items)
        is_first = step.from_step_type == time_step.StepType.FIRST
        self._replay.add_steps(items, np.flatnonzero(step.moved), is_first[step.moved])

    def _updates_due(self) -> bool:
        env_steps = self.statistics.env_steps
        if env_steps < max(self._warmup_steps, 1) or self._gives_up:
            return False
        due = self._updates_per_step * (env_steps - self._warmup_steps) - self.train_steps
        return due >= self._updates_per_call

    def _choose_actions(self) -> np.ndarray:
        return self._act(self._observation, self._draw(), np.float32(self.epsilon)).numpy()

    def _train(self) -> np.ndarray:
        actions: Any = None
        while self._updates_due():
            batches = self.sample(self._updates_per_call, self._batch_size)
            actions, *counted = self._train_and_act(
                batches, self._observation, np.float32(self.epsilon), self._draw(), self._streak
            )
            self._count_updates(self._updates_per_call, *counted)
        return actions.numpy()

    def _train_and_act_graph(
        self, batches: Transition | Sequences, observation: Any, epsilon: tf.Tensor, seed: tf.Tensor, streak: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor, Any, tf.Tensor, tf.Tensor]:
        """The updates of one call, then the next actions."""

        def update(index: tf.Tensor) -> Any:
            return self._agent.train(as_experience(tf.nest.map_structure(lambda leaf: leaf[index], batches)))

        loss, extra, skipped, streak = many_updates(update, self._agent.zero_extra(), self._updates_per_call, streak)
        with tf.control_dependencies([loss]):
            actions = self._agent.act(observation, seed, epsilon).action
        return actions, loss, extra, skipped, streak

    def before_export(self) -> None:
        """Give the agent's collect policy the present ε."""
        self._agent.set_epsilon(self.epsilon)

    def scalars(self) -> dict[str, float]:
        """Tags and values for TensorBoard."""
        return {"ngrl/epsilon": self.epsilon, **super().scalars()}

    def state(self) -> LoopState:
        """Everything beside the agent's variables that the loop's future depends on."""
        values, arrays, _ = super().state()
        replay_arrays, values["replay"] = self._replay.state()
        arrays.update({f"replay/{name}": array for name, array in replay_arrays.items()})
        if self._actions is not None:
            arrays["actions"] = self._actions
        blocks = self._replay.blocks() if isinstance(self._replay, FrameReplayBuffer) else {}
        return LoopState(values, arrays, blocks)

    def restore(self, state: LoopState) -> None:
        """Set what `state` returned."""
        super().restore(state)
        blocks = (state.blocks,) if isinstance(self._replay, FrameReplayBuffer) else ()
        self._replay.restore(part(state.arrays, "replay/"), state.values["replay"], *blocks)
        self._actions = state.arrays.get("actions") if self._environment.can_restore else None


def as_experience(items: Transition | Sequences) -> trajectory.Transition | trajectory.Trajectory:
    """A minibatch [B, ...] as TF-Agents' agents take it: sequences of T steps as a trajectory [B, T + 1]."""
    return as_trajectory(items) if isinstance(items, Sequences) else as_transition(items)


def as_transition(items: Transition) -> trajectory.Transition:
    """A minibatch [B, ...] as TF-Agents' agents take it: no boundary among its steps."""
    zeros = tf.zeros_like(items.reward)
    middle = tf.zeros_like(items.reward, tf.int32) + int(time_step.StepType.MID)
    return trajectory.Transition(
        time_step=time_step.TimeStep(middle, zeros, zeros + 1, items.observation),
        action_step=policy_step.PolicyStep(items.action, (), ()),
        next_time_step=time_step.TimeStep(middle, items.reward, items.discount, items.next_observation),
    )


def as_trajectory(items: Sequences) -> trajectory.Trajectory:
    """Sequences of T steps [B, T] as a trajectory [B, T + 1]; after a sequence that is shorter come rows that are none.

    Whether an episode ended there or nothing has followed yet, a target bootstraps from the state reached as far as the
    discount says so: the step counts as the last of its episode.
    """
    steps, valid = items

    def with_last(leaf: tf.Tensor) -> tf.Tensor:
        return tf.concat([leaf, leaf[:, -1:]], axis=1)

    def observed(left: tf.Tensor, reached: tf.Tensor) -> tf.Tensor:
        inside = tf.reshape(valid, [*valid.shape, *[1] * (left.shape.rank - 2)])
        return tf.concat([tf.where(inside, left, reached), reached[:, -1:]], axis=1)

    step_type = tf.where(with_last(valid), int(time_step.StepType.MID), int(time_step.StepType.LAST))
    return trajectory.Trajectory(
        step_type=step_type,
        observation=tf.nest.map_structure(observed, steps.observation, steps.next_observation),
        action=with_last(steps.action),
        policy_info=(),
        next_step_type=tf.concat([step_type[:, 1:], step_type[:, -1:]], axis=1),
        reward=with_last(steps.reward),
        discount=with_last(steps.discount),
    )
