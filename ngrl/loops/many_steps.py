"""Many steps of a policy and a compiled environment in one call."""

from typing import Any

import numpy as np
import tensorflow as tf
from tf_agents.trajectories import trajectory

from ngrl import seeding
from ngrl.loops.compiled import Compiled
from ngrl.loops.loop import variables_of


class ManySteps:
    """Collects T steps of a compiled environment in one call of `agent.act` and `environment.advance`, in turn.

    Args:
      agent: The agent.
      environment: A `CompiledEnvironment`.
      actions_key: Key of the stream of actions [2]; step t of the run draws number t of it, from 1.
      num_steps: T.
      jit_compile: Compile with XLA.
    """

    def __init__(self, agent: Any, environment: Any, actions_key: np.ndarray, num_steps: int, jit_compile: bool):
        self._agent = agent
        self._environment = environment
        self._key = actions_key
        self._steps = num_steps
        self._collect = Compiled(self._graph, jit_compile, lambda: variables_of(agent))

    def __call__(self, observation: np.ndarray, calls: int, memory: np.ndarray | None) -> tuple[Any, Any]:
        """Step every environment T times.

        Args:
          observation: The present observation [N, ...].
          calls: How many numbers of the stream of actions have been drawn.
          memory: What the policy remembers [N, H]; None where it remembers nothing.

        Returns:
          A `Trajectory` of arrays [N, T + 1, ...], whose last row holds the observation reached, its step type, and
          nothing else; and what the policy remembers then.
        """
        carried = () if memory is None else (memory,)
        rows, state, carried = self._collect(self._environment.state, observation, np.int32(calls), self._key, carried)
        rows, carried = tf.nest.map_structure(lambda leaf: leaf.numpy(), (rows, carried))
        discount, step_type = rows.discount[:, -2], rows.step_type[:, -1]
        self._environment.adopt(state, rows.observation, rows.reward[:, :-1], discount, step_type)
        return rows, carried[0] if carried else None

    def _graph(
        self, state: Any, observation: tf.Tensor, calls: tf.Tensor, key: tf.Tensor, memory: Any
    ) -> tuple[Any, Any, Any]:
        spec = self._agent.collect_data_spec
        arrays = [tf.TensorArray(leaf.dtype, self._steps) for leaf in tf.nest.flatten(spec)]

        def body(step: tf.Tensor, state: Any, observation: tf.Tensor, memory: Any, *arrays: Any) -> tuple[Any, ...]:
            carried = (state.step_type, *memory) if memory else ()
            chosen = self._agent.act(observation, seeding.at(key, calls + step + 1), *carried)
            after, reached = self._environment.advance(state, chosen.action)
            row = trajectory.Trajectory(
                step_type=state.step_type,
                observation=observation,
                action=chosen.action,
                policy_info=chosen.info,
                next_step_type=reached.step_type,
                reward=reached.reward,
                discount=reached.discount,
            )
            written = [array.write(step, leaf) for array, leaf in zip(arrays, tf.nest.flatten(row), strict=True)]
            return step + 1, after, reached.observation, (chosen.state,) if memory else (), *written

        _, state, observation, memory, *arrays = tf.while_loop(
            lambda step, *_: step < self._steps, body, (tf.constant(0), state, observation, memory, *arrays)
        )
        rows = tf.nest.pack_sequence_as(spec, [_member_major(array.stack()) for array in arrays])
        last = tf.concat([rows.observation[:, :-1], observation[:, tf.newaxis]], axis=1)
        step_type = tf.concat([rows.step_type[:, :-1], state.step_type[:, tf.newaxis]], axis=1)
        return rows._replace(observation=last, step_type=step_type), state, memory


def _member_major(leaf: tf.Tensor) -> tf.Tensor:
    """[T, N, ...] as [N, T + 1, ...], with zeros in the last row."""
    padded = tf.pad(leaf, [[0, 1], *[[0, 0]] * (leaf.shape.rank - 1)])
    return tf.transpose(padded, [1, 0, *range(2, leaf.shape.rank)])
