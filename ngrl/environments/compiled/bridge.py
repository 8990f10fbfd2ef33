"""A compiled environment as a batched TF-Agents environment, whose steps a loop may compile with its policy."""

from typing import Any

import numpy as np
import tensorflow as tf

from ngrl._tf_agents import time_step as ts
from ngrl.environments import spaces
from ngrl.environments.bridge import GymnasiumEnvironment, StepArrays
from ngrl.environments.compiled.vector import CompiledVector, MemberState
from ngrl.environments.faults import EnvironmentFault


class CompiledEnvironment(GymnasiumEnvironment):
    """A `GymnasiumEnvironment` with `state`, `advance` and `adopt` besides, for loops that take many steps a call."""

    _vector: CompiledVector

    def __init__(self, vector: CompiledVector, seed: int, truncation_is_terminal: bool, check_finite: bool, stack: Any):
        """As in `GymnasiumEnvironment`.

        Raises:
          ValueError: Frames are to be stacked.
        """
        if stack is not None:
            raise ValueError(f"{vector.env_id}: compiled environments don't stack frames; frame_stack must be None")
        super().__init__(vector, seed, truncation_is_terminal, check_finite)

    @property
    def is_compiled(self) -> bool:
        """True."""
        return True

    @property
    def checks_finite(self) -> bool:
        """Whether an observation or reward that is not finite is to stop who takes steps."""
        return self._check_finite

    @property
    def state(self) -> MemberState:
        """The members' state after the current time step, tensors [N, ...]."""
        return self._vector.state

    def advance(self, state: MemberState, actions: tf.Tensor) -> tuple[MemberState, StepArrays]:
        """`step` as a pure function of tensors: the next state and the time step reached.

        Args:
          state: The state before.
          actions: [N, *action shape] within the spec's bounds; those of members due for their reset are ignored.
        """
        state, reward, terminated, truncated = self._vector.advance(state, actions)
        return_ends = terminated | truncated if self._truncation_is_terminal else terminated
        discount = tf.where(return_ends, 0.0, 1.0)
        return state, StepArrays(self._vector.observe(state), reward, discount, state.step_type)

    def adopt(self, state: MemberState, observations: Any, rewards: Any, discount: Any, step_type: Any) -> None:
        """Go on from T steps that were taken by `advance`; the rest are arrays.

        Args:
          state: The state after them.
          observations: Those on the way [N, ≥ 1, ...], the last of which was reached.
          rewards: [N, T].
          discount: Of the last step [N].
          step_type: Of what was reached [N].

        Raises:
          EnvironmentFault: An observation or reward is not finite, and `check_finite` was asked for. The next step is
            a reset then.
        """
        self._vector.state = state
        for name, array in (("reward", rewards), ("observation", observations)):
            if self._check_finite and not np.isfinite(array).all():
                self._current_time_step = None
                member, time = np.argwhere(~np.isfinite(array.reshape(*array.shape[:2], -1)).all(axis=-1))[0]
                problem = (
                    f"{name} is not finite: {spaces.not_finite(array[member, time])}; check_finite=False lets it pass"
                )
                raise EnvironmentFault(self.env_id, int(member), None, problem)
        self._present(ts.TimeStep(step_type, rewards[:, -1], discount, observations[:, -1]))

    def _present(self, step: ts.TimeStep) -> None:
        """Make a time step the current one."""
        self._ended = step.step_type == ts.StepType.LAST
        self._steps = self._vector.state.steps.numpy().astype(np.int64)
        self._current_time_step = step

    def get_state(self) -> dict[str, np.ndarray]:
        """What `set_state` needs: as in `GymnasiumEnvironment`, with `physics` and `steps` in the place of actions."""
        state = self._vector.state
        return super().get_state() | {"physics": state.physics.numpy(), "steps": state.steps.numpy()}

    def set_state(self, state: dict[str, np.ndarray]) -> None:
        """Continue from a state that `get_state` returned, here or in another process.

        Raises:
          ValueError: The state is of another environment or number of members.
        """
        _, numbers = self._check_state(state)
        if missing := [name for name in ("physics", "steps") if name not in state]:
            raise ValueError(f"{self.env_id}: the state has no {', '.join(missing)}")
        shape = (self.batch_size, *self._observation_spec.shape)
        if state["started"] and np.shape(state["observation"]) != shape:
            found = np.shape(state["observation"])
            raise ValueError(f"{self.env_id}: the state's observation is {found}, not {shape}")
        self.seed(int(state["seed"]))
        self._vector.state = MemberState(
            tf.constant(state["physics"]),
            tf.constant(state["steps"]),
            tf.constant(numbers, tf.int32),
            tf.constant(state["step_type"] if state["started"] else np.zeros(self.batch_size), tf.int32),
            self._vector.state.keys,
        )
        if state["started"]:
            names = ("step_type", "reward", "discount", "observation")
            self._present(ts.TimeStep(*(np.array(state[name]) for name in names)))
