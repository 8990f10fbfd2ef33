"""The loop of ACER: an on-policy update, then replayed ones, all of them in one compiled call."""

import math
from typing import Any, Protocol

import numpy as np
import tensorflow as tf

from ngrl import seeding
from ngrl.checks import check_count, check_number
from ngrl.configurable import configurable
from ngrl.loops.collecting import CollectingLoop
from ngrl.loops.compiled import Compiled
from ngrl.loops.loop import check_agent, part
from ngrl.loops.on_policy import OnPolicyAgent
from ngrl.loops.state import LoopState
from ngrl.loops.updates import many_updates
from ngrl.replay import Experience, TrajectoryReplayBuffer
from ngrl.seeding import Stream


class TrajectoryReplayAgent(OnPolicyAgent, Protocol):
    """What the loop asks of an agent: what the on-policy loop does, and zeros to add up from."""

    def zero_extra(self) -> Any:
        """An all-zero `LossInfo.extra`."""

    def act(self, observation: Any, seed: Any, *memory: Any) -> Any:
        """A `PolicyStep` for observations [N, ...], whose info tells the distribution of each action."""


@configurable
class TrajectoryReplayLoop(CollectingLoop):
    """Collects T steps of N environments, trains on them, and then n ~ Poisson(`replay_ratio`) times on replayed ones.

    Wang et al. 2017, algorithm 1. Each update, the first as well as the replayed ones, is on N trajectories of T
    steps, so that one compiled function serves both: the N just collected, and N drawn from the buffer, to which
    those just collected already belong. n and the draws depend on the seed and counters alone.

    Args:
      agent: The agent.
      environment: A batched environment of `ngrl.environments`.
      seed: Seed of the actions, of the numbers of updates and of the replay.
      num_steps: T.
      replay_capacity: Environment steps kept, those of all environments together; a multiple of `num_steps`.
      replay_ratio: Mean number of replayed updates for each on-policy one.
      warmup_steps: Environment steps before the first replayed update.
      max_skipped_updates: Updates in a row that may be skipped because of a number that is not finite.
      jit_compile: Compile with XLA.

    Raises:
      ValueError: An argument is out of its range.
    """

    def __init__(
        self,
        agent: TrajectoryReplayAgent,
        environment: Any,
        seed: int = 0,
        num_steps: int = 20,
        replay_capacity: int = 50_000,
        replay_ratio: float = 4.0,
        warmup_steps: int = 1_000,
        max_skipped_updates: int = 100,
        jit_compile: bool = True,
    ):
        num_envs = environment.batch_size
        num_steps = check_count("num_steps", num_steps)
        if replay_capacity < num_steps * num_envs:
            raise ValueError(
                f"replay_capacity ({replay_capacity}) is below num_steps · num_envs ({num_steps * num_envs})"
            )
        if replay_capacity % num_steps:
            raise ValueError(f"replay_capacity ({replay_capacity}) must be a multiple of num_steps ({num_steps})")
        check_number("replay_ratio", replay_ratio, "[0, inf)")
        check_count("warmup_steps", warmup_steps, 0)
        check_agent(Experience.REPLAYED_TRAJECTORIES, agent)
        super().__init__(agent, environment, seed, num_steps, max_skipped_updates, jit_compile)
        self._replay_ratio = replay_ratio
        self._warmup_steps = warmup_steps
        self._most_replayed = math.ceil(2 * replay_ratio)  # in one call; more are rare
        self._replay = TrajectoryReplayBuffer(
            tf.nest.map_structure(lambda buffer: buffer[0], self._rows), replay_capacity // num_steps
        )
        self._train = Compiled(self._train_graph, jit_compile, self._used)
        self._batches = tf.nest.map_structure(
            lambda buffer: np.zeros((1 + self._most_replayed, *buffer.shape), buffer.dtype), self._rows
        )
        self._rounds = 0

    def _update(self, rows: Any) -> None:
        """The on-policy update and the replayed ones."""
        self._replay.add_batch(rows)
        self._rounds += 1
        replayed = self._num_replayed()
        index, fresh = 0, 1
        while (fresh or index < replayed) and not self._gives_up:
            count = min(replayed - index, self._most_replayed + 1 - fresh)
            self._fill(rows if fresh else None, index, count)
            self._train_on(fresh + count)
            index, fresh = index + count, 0

    def _num_replayed(self) -> int:
        if self.statistics.env_steps < self._warmup_steps:
            return 0
        generator = seeding.generator(self._seed, Stream.REPLAYED_UPDATES, self._rounds)
        return int(generator.poisson(self._replay_ratio))

    def _fill(self, rows: Any | None, first: int, count: int) -> None:
        """Put the rows, if there are any, and replayed trajectories into the batches of the next call."""
        num_envs = self._environment.batch_size
        start = 0
        if rows is not None:
            tf.nest.map_structure(lambda batch, leaf: np.copyto(batch[0], leaf), self._batches, rows)
            start = 1
        if count:
            generator = seeding.generator(self._seed, Stream.REPLAY, self._rounds, first)
            drawn = self._replay.sample(generator, count, num_envs)
            tf.nest.map_structure(
                lambda batch, leaf: np.copyto(batch[start : start + count], leaf), self._batches, drawn
            )

    def _train_on(self, count: int) -> None:
        self._count_updates(count, *self._train(self._batches, np.int32(count), self._streak))

    def _train_graph(
        self, batches: Any, count: tf.Tensor, streak: tf.Tensor
    ) -> tuple[tf.Tensor, Any, tf.Tensor, tf.Tensor]:
        def update(index: tf.Tensor) -> Any:
            return self._agent.train(tf.nest.map_structure(lambda leaf: leaf[index], batches))

        return many_updates(update, self._agent.zero_extra(), count, streak)

    def scalars(self) -> dict[str, float]:
        """Tags and values for TensorBoard."""
        return {"ngrl/replayed_trajectories": float(len(self._replay)), **super().scalars()}

    def state(self) -> LoopState:
        """Everything beside the agent's variables that the loop's future depends on."""
        values, arrays, _ = super().state()
        replay_arrays, values["replay"] = self._replay.state()
        values["rounds"] = self._rounds
        arrays.update({f"replay/{name}": array for name, array in replay_arrays.items()})
        return LoopState(values, arrays)

    def restore(self, state: LoopState) -> None:
        """Set what `state` returned."""
        super().restore(state)
        self._replay.restore(part(state.arrays, "replay/"), state.values["replay"])
        self._rounds = state.values["rounds"]
