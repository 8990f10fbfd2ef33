"""Loops that collect rows of trajectories with N environments before they train."""

import abc
from collections.abc import Iterable
from typing import Any, Protocol

import numpy as np
import tensorflow as tf
from tf_agents.trajectories import policy_step, time_step

from ngrl.loops.compiled import Compiled
from ngrl.loops.loop import Moved, TrainingLoop
from ngrl.loops.many_steps import ManySteps
from ngrl.loops.state import LoopState
from ngrl.loops.statistics import FinishedEpisode
from ngrl.replay import MEMORY


class HostPolicy(Protocol):
    """A policy that acts without TensorFlow; `ngrl.agents.host_policy` has one."""

    def __call__(self, observation: np.ndarray, call: int) -> tuple[np.ndarray, ...]:
        """The actions [N, ...] of the draw with this number, and what is said of them."""

    def forget(self) -> None:
        """Read the weights anew before the next action."""

    def prepare(self, call: int) -> None:
        """Draw what the steps from this draw on need of TensorFlow."""


class CollectingLoop(TrainingLoop):
    """Steps N environments, keeps T steps of each, and calls `_update` with them.

    The steps of an environment follow on each other; they may end in the middle of an episode and hold several, and
    the resets between them take a step each, which trains nothing. They are gathered in the host's memory; compiled
    environments take all T steps in one call, the policy's included. What a policy remembers of each environment's
    episode is carried from step to step, and from batch to batch.

    Args:
      agent: The agent, whose `collect_data_spec` says what is kept.
      environment: A batched environment of `ngrl.environments`.
      seed: Seed of the actions.
      num_steps: T.
      max_skipped_updates: Updates in a row that may be skipped because of a number that is not finite.
      jit_compile: Compile with XLA.
      act_on_host: Choose actions with NumPy, as `agent.host_policy` does.

    Raises:
      ValueError: `max_skipped_updates` is not positive, or the policy can't act on the host.
    """

    def __init__(
        self,
        agent: Any,
        environment: Any,
        seed: int,
        num_steps: int,
        max_skipped_updates: int,
        jit_compile: bool,
        act_on_host: bool = False,
    ):
        super().__init__(environment, seed, max_skipped_updates)
        self._agent = agent
        self._steps = num_steps
        self._act = Compiled(lambda *arguments: _flat_step(agent.act(*arguments)), jit_compile, self._used)
        self._host: HostPolicy | None = None
        if act_on_host:
            self._host = self._host_policy(environment, num_steps, jit_compile)
        self._collect: ManySteps | None = None
        if environment.is_compiled:
            self._collect = ManySteps(agent, environment, self._actions_key, num_steps, jit_compile)
        self._updated = 0, 0  # environment steps when the latest update began, and train steps before it
        self._row = 0
        # Arrays [N, T + 1, ...], filled up to self._row.
        self._rows = tf.nest.map_structure(
            lambda spec: np.zeros((environment.batch_size, num_steps + 1, *spec.shape), spec.dtype.as_numpy_dtype),
            agent.collect_data_spec,
        )
        self._observation_buffers = tf.nest.flatten(self._rows.observation)
        info = self._rows.policy_info
        self._info_buffers = tf.nest.flatten(info)
        # What the policy remembers before the next step [N, H]; None where it remembers nothing.
        self._memory = np.zeros_like(info[MEMORY][:, 0]) if isinstance(info, dict) and MEMORY in info else None

    @abc.abstractmethod
    def _update(self, rows: Any) -> None:
        """Train on a `Trajectory` [N, T + 1, ...], whose last row holds the observation reached and nothing else."""

    def step(self) -> list[FinishedEpisode]:
        """Step every environment, once or, if they are compiled, T times; train once the rows are complete."""
        if self._collect is not None:
            return self._collect_and_update(self._collect)
        action, *info = self._choose()
        step = self._advance(action)
        self._store(step, action, info)
        if self._row == self._steps:
            self._rows.step_type[:, -1] = self._step_type
            self._store_observation(self._steps, self._observation)
            self._row = 0
            self._update(self._rows)
            if self._host is not None:
                self._host.forget()
        return step.finished

    def _host_policy(self, environment: Any, num_steps: int, jit_compile: bool) -> HostPolicy:
        if environment.is_compiled:
            raise ValueError("act_on_host is for environments that step one by one, which compiled ones don't")
        if not hasattr(self._agent, "host_policy"):
            raise ValueError(f"act_on_host: {type(self._agent).__name__} can't act on the host: set it to False")
        shape = (num_steps, environment.batch_size)
        return self._agent.host_policy(self._actions_key, shape, lambda graph: Compiled(graph, jit_compile))

    def _choose(self) -> Iterable[np.ndarray]:
        """The next actions and what is said of them."""
        if self._host is not None:
            self._calls += 1
            return self._host(self._observation, self._calls)
        if self._memory is None:
            return [leaf.numpy() for leaf in self._act(self._observation, self._draw())]
        carried = self._act(self._observation, self._draw(), self._step_type, self._memory)
        *said, self._memory = (leaf.numpy() for leaf in carried)
        return said

    def _collect_and_update(self, collect: ManySteps) -> list[FinishedEpisode]:
        rows, self._memory = collect(self._observation, self._calls, self._memory)
        self._calls += self._steps
        self._observation, self._step_type = rows.observation[:, -1], rows.step_type[:, -1]
        moved = rows.step_type[:, :-1] != time_step.StepType.LAST
        ended = moved & (rows.next_step_type[:, :-1] == time_step.StepType.LAST)
        finished = self.statistics.add_many(rows.reward[:, :-1].T, moved.T, ended.T)
        self._updated = self.statistics.env_steps, self.train_steps
        self._update(rows)
        return finished

    def train_steps_at(self, env_steps: int) -> int:
        """Train steps finished when the latest `step` reached so many environment steps."""
        reached, before = self._updated
        return before if env_steps < reached else self.train_steps

    def _store(self, step: Moved, action: np.ndarray, info: list[np.ndarray]) -> None:
        rows, row = self._rows, self._row
        rows.step_type[:, row] = step.from_step_type
        if row:
            rows.next_step_type[:, row - 1] = step.from_step_type  # others where an episode was lost since
        rows.action[:, row] = action
        rows.next_step_type[:, row] = step.step_type
        rows.reward[:, row] = step.reward
        rows.discount[:, row] = step.discount
        self._store_observation(row, step.from_observation)
        for buffer, leaf in zip(self._info_buffers, info, strict=True):
            buffer[:, row] = leaf
        self._row += 1

    def _store_observation(self, row: int, observation: Any) -> None:
        leaves = [observation] if isinstance(observation, np.ndarray) else tf.nest.flatten(observation)
        for buffer, leaf in zip(self._observation_buffers, leaves, strict=True):
            buffer[:, row] = leaf

    def state(self) -> LoopState:
        """Everything beside the agent's variables that the loop's future depends on."""
        values, arrays, _ = super().state()
        values["row"] = self._row
        leaves = tf.nest.flatten(self._rows)
        arrays.update({f"batch/{index}": leaf[:, : self._row].copy() for index, leaf in enumerate(leaves)})
        if self._memory is not None:
            arrays[MEMORY] = self._memory
        return LoopState(values, arrays)

    def restore(self, state: LoopState) -> None:
        """Set what `state` returned. Where environments can't be restored, the rows begin anew.

        Raises:
          ValueError: More steps of a batch are done than it has here.
        """
        super().restore(state)
        if self._memory is not None:
            self._memory = state.arrays[MEMORY]
        if self._host is not None:
            self._host.forget()
        self._row = state.values["row"] if self._environment.can_restore else 0
        if self._row >= self._steps:
            raise ValueError(f"{self._row} steps of a batch are done, and a batch of {self._steps} is asked for")
        for index, buffer in enumerate(tf.nest.flatten(self._rows)):
            buffer[:, : self._row] = state.arrays[f"batch/{index}"][:, : self._row]


def _flat_step(step: policy_step.PolicyStep) -> tuple[tf.Tensor, ...]:
    """The action, what is said of it, and what is remembered after it, where anything is."""
    return step.action, *tf.nest.flatten(step.info), *tf.nest.flatten(step.state)
