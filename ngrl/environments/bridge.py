"""A vector of gymnasium environments as one batched TF-Agents environment.

The boundaries of episodes, for each member on its own (N members, time step t):

| gymnasium says at t | step_type | discount | observation, reward | at t + 1, whatever the action |
| --- | --- | --- | --- | --- |
| neither | MID | 1 | of the step | the next step |
| terminated (truncated or not) | LAST | 0 | of the step: the true last observation | FIRST: reset, reward 0 |
| truncated alone | LAST | 1 (0 if `truncation_is_terminal`) | the same | FIRST: reset, reward 0 |

A FIRST that follows no LAST begins an episode after one that was lost, with the process that played it: that one was
cut after the step before, as by a time limit, and its action since then has led nowhere.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from gymnasium import spaces as gym_spaces

from ngrl import seeding
from ngrl._tf_agents import array_spec, py_environment
from ngrl._tf_agents import time_step as ts
from ngrl.environments import spaces
from ngrl.environments.faults import EnvironmentFault
from ngrl.environments.member import Episode
from ngrl.environments.stacking import FrameStack
from ngrl.environments.vector import VectorEnvironment
from ngrl.messages import counted

_FIRST, _MID, _LAST = (int(kind) for kind in (ts.StepType.FIRST, ts.StepType.MID, ts.StepType.LAST))
_MID_TYPE = np.int32(_MID)


class StepArrays(NamedTuple):
    """A batched time step as new NumPy arrays: observation [N, ...] (or a dict of them), the others [N].

    reward and discount are float32, step_type is int32 with TF-Agents' FIRST = 0, MID = 1, LAST = 2.
    """

    observation: Any
    reward: np.ndarray
    discount: np.ndarray
    step_type: np.ndarray


class GymnasiumEnvironment(py_environment.PyEnvironment):
    """A batched TF-Agents environment; `ngrl.environments.load` makes one.

    `step` takes and returns time steps; `step_arrays` and `reset_arrays` do the same with plain arrays and
    may be mixed with it. `get_state` and `set_state` bring every episode in progress back exactly.
    """

    def __init__(
        self,
        vector: VectorEnvironment,
        seed: int = 0,
        truncation_is_terminal: bool = False,
        check_finite: bool = True,
        frame_stack: int | None = None,
    ):
        """Wrap a vector environment, which is closed with this one.

        Args:
          vector: The members.
          seed: The run's seed, as the members have it.
          truncation_is_terminal: Whether a time limit ends the return too (discount 0).
          check_finite: Whether an observation or reward with NaN or infinity in it raises an
            EnvironmentFault.
          frame_stack: How many of the latest observations make one, [S, ...] in the place of [...]; None for none.
        """
        super().__init__()
        self._vector = vector
        self._seed = seed
        self._truncation_is_terminal = truncation_is_terminal
        self._check_finite = check_finite
        self._stack = None
        if frame_stack is not None:
            self._stack = FrameStack(vector.observation_space, frame_stack, vector.num_envs, vector.env_id)
        self._observation_spec = spaces.observation_spec(self.observation_space, vector.env_id)
        self._action_spec = spaces.action_spec(vector.action_space, vector.env_id)
        self._observation_names = [name for name, _ in spaces.leaves(self._observation_spec)]
        self._convert_observation = spaces.observation_converter(vector.observation_space)
        self._convert_actions = spaces.action_converter(
            vector.action_space, vector.num_envs, vector.env_id, check_finite
        )
        # Members whose last step was LAST, and how many steps each member's episode has had.
        self._ended = np.zeros(vector.num_envs, bool)
        self._steps = np.zeros(vector.num_envs, np.int64)

    @property
    def env_id(self) -> str:
        """The environment's name."""
        return self._vector.env_id

    @property
    def batched(self) -> bool:
        """Always true, for one member too."""
        return True

    @property
    def batch_size(self) -> int:
        """The number of members N."""
        return self._vector.num_envs

    @property
    def observation_space(self) -> gym_spaces.Space:
        """One member's gymnasium observation space, with the bounds that the spec leaves out."""
        return self._vector.observation_space if self._stack is None else self._stack.space

    @property
    def stacks_frames(self) -> bool:
        """Whether an observation [S, ...] is a stack of frames, of which the next one holds all but the oldest."""
        return self._stack is not None

    @property
    def action_space(self) -> gym_spaces.Space:
        """One member's gymnasium action space."""
        return self._vector.action_space

    @property
    def is_compiled(self) -> bool:
        """Whether it is a `CompiledEnvironment`, whose steps a loop may compile."""
        return False

    @property
    def can_restore(self) -> bool:
        """Whether `set_state` brings episodes in progress back exactly; if not, it starts new ones."""
        return self._vector.can_restore

    @property
    def time_limit(self) -> int | None:
        """Steps after which an episode is truncated; None where the environment declares no such limit."""
        return self._vector.time_limit

    def on_warning(self, warn: Callable[[str], None]) -> None:
        """Hand over what to call with a line about what was lost and begun anew; it goes to standard error else."""
        self._vector.warn = warn  # type: ignore[method-assign]

    def observation_spec(self) -> Any:
        """One member's observation: float32 or integers, or a dict of these."""
        return self._observation_spec

    def action_spec(self) -> array_spec.BoundedArraySpec:
        """One member's action; discrete ones count from 0."""
        return self._action_spec

    def reset_arrays(self) -> StepArrays:
        """`reset` without a TimeStep: begin the next episode of every member, even in the middle of one."""
        self._current_time_step = None
        return self._first_step(self._vector.reset())

    def step_arrays(self, actions: np.ndarray) -> StepArrays:
        """`step` without a TimeStep.

        The arrays are the current time step's too, until the next step: read them, don't write into them.

        Args:
          actions: [N, *action shape]; those of members that are due for their reset are ignored. Before the
            first reset this is `reset_arrays`, as in TF-Agents.

        Raises:
          EnvironmentFault: A member raised, hung, died, or answered with something its spaces don't allow.
            The next step is a reset then. A hanging member is noticed in worker processes only.
          ValueError: Actions of the wrong shape, out of range, or not finite.
        """
        if self._current_time_step is None:
            return self.reset_arrays()
        actions = self._convert_actions(actions)
        try:
            transition = self._vector.step(actions)
        except EnvironmentFault as fault:
            self._current_time_step = None
            if fault.member is None or fault.step is not None:
                raise
            # A worker that hangs or has died can't say where it was.
            step = 0 if self._ended[fault.member] else int(self._steps[fault.member]) + 1
            raise EnvironmentFault(self.env_id, fault.member, step, fault.problem) from fault
        terminated, first = transition.terminated, self._ended
        if transition.lost is not None:
            first = first | transition.lost
        ended = terminated | transition.truncated
        return_ends = ended if self._truncation_is_terminal else terminated
        with np.errstate(over="ignore"):  # a number beyond float32 becomes infinite, which _accept reports
            observation = self._observed(transition.observation, first)
            reward = transition.reward.astype(np.float32)
        step_type = ended + _MID_TYPE  # LAST = MID + 1
        self._steps += 1
        if True in first.tolist():
            step_type[first] = _FIRST
            self._steps[first] = 0
        self._ended = ended
        return self._accept(StepArrays(observation, reward, (~return_ends).astype(np.float32), step_type))

    def _reset(self) -> ts.TimeStep:
        self.reset_arrays()
        return self._current_time_step

    def _step(self, action: np.ndarray) -> ts.TimeStep:
        self.step_arrays(action)
        return self._current_time_step

    def _observed(self, batch: Any, first: np.ndarray) -> Any:
        """The members' answers as new arrays of the spec, `first` where an episode begins [N]."""
        observation = self._convert_observation(batch)
        return observation if self._stack is None else self._stack.push(observation, first)

    def _first_step(self, batch: Any) -> StepArrays:
        size = self.batch_size
        observation = self._observed(batch, np.ones(size, bool))
        self._ended = np.zeros(size, bool)
        self._steps = np.zeros(size, np.int64)
        return self._accept(
            StepArrays(
                observation,
                np.zeros(size, np.float32),
                np.ones(size, np.float32),
                np.full(size, _FIRST, np.int32),
            )
        )

    def _accept(self, step: StepArrays) -> StepArrays:
        """Make a step the current one, once it is known to be finite."""
        if self._check_finite:
            self._require_finite("reward", step.reward)
            for name, array in spaces.leaves(step.observation):
                if array.dtype.kind == "f":
                    self._require_finite(name, array)
        self._current_time_step = ts.TimeStep(step.step_type, step.reward, step.discount, step.observation)
        return step

    def _require_finite(self, name: str, array: np.ndarray) -> None:
        finite = np.isfinite(array)
        if finite.all():
            return
        self._current_time_step = None
        member = int(np.flatnonzero(~finite.reshape(self.batch_size, -1).all(axis=1))[0])
        raise EnvironmentFault(
            self.env_id,
            member,
            int(self._steps[member]),
            f"{name} is not finite: {spaces.not_finite(array[member])}; check_finite=False lets it pass",
        )

    def seed(self, seed: int) -> None:
        """Begin anew under another run seed: the next step or reset starts every member's episode 0."""
        self._seed = seeding.check_seed(seed)
        self._vector.seed(self._seed)
        self._current_time_step = None

    def get_state(self) -> dict[str, np.ndarray]:
        """What `set_state` needs, as a flat dict of arrays that `np.savez` keeps without pickle.

        `seed` (int64), `started` (bool), `episode` [N] and `length` [N] (int64: number and steps of each
        member's episode in progress), `actions` [Σ length, *action shape] (member after member), and the
        current time step in `step_type`, `reward`, `discount`, `observation` (or `observation/key` for each
        entry of a dict).
        """
        episodes = self._vector.save()
        step = self._current_time_step
        if step is None:  # a reset is due, so only the count of episodes matters, not the one a fault broke off
            episodes = [Episode(number, actions[:0]) for number, actions in episodes]
        state = {
            "seed": np.int64(self._seed),
            "started": np.bool_(step is not None),
            "episode": np.array([episode.number for episode in episodes], np.int64),
            "length": np.array([len(episode.actions) for episode in episodes], np.int64),
            "actions": np.concatenate([episode.actions for episode in episodes]),
        }
        if step is not None:
            state |= {"step_type": step.step_type, "reward": step.reward, "discount": step.discount}
            state |= dict(spaces.leaves(step.observation))
        return {name: np.array(value) for name, value in state.items()}

    def set_state(self, state: dict[str, np.ndarray]) -> None:
        """Continue from a state that `get_state` returned, here or in another process.

        Every member is reset to its episode's seed and given its actions again, so it takes as long as the
        episodes in progress took. Where `can_restore` is false (envpool), new episodes are started, under
        other seeds than the saved ones, and the current time step is FIRST everywhere.

        Raises:
          ValueError: The state is of another environment or number of members.
          EnvironmentFault: Replaying an episode did not lead to the observation saved, or failed.
        """
        lengths, numbers = self._check_state(state)
        actions = np.split(np.asarray(state["actions"]), np.cumsum(lengths)[:-1])
        episodes = [Episode(int(number), part) for number, part in zip(numbers, actions, strict=True)]
        self._current_time_step = None
        self._seed = int(state["seed"])
        batch = self._vector.restore(self._seed, episodes)
        if not self.can_restore:
            self._first_step(batch)
            return
        if not state["started"]:
            return
        observation = self._convert_observation(batch)
        for name, array in spaces.leaves(observation):
            saved = np.asarray(state[name])
            self._require_replayed(name, array, saved if self._stack is None else saved[:, -1], lengths)
        if self._stack is not None:
            observation = self._stack.frames = np.array(state["observation"])
        self._steps = lengths.copy()
        reward, discount = (np.array(state[name], np.float32) for name in ("reward", "discount"))
        step_type = np.array(state["step_type"], np.int32)
        self._ended = step_type == _LAST
        self._current_time_step = ts.TimeStep(step_type, reward, discount, observation)

    def _check_state(self, state: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        names = ["seed", "started", "episode", "length", "actions"]
        if state.get("started"):
            names += ["step_type", "reward", "discount", *self._observation_names]
        missing = [name for name in names if name not in state]
        if missing:
            raise ValueError(f"{self.env_id}: the state has no {', '.join(missing)}")
        lengths, numbers = (np.asarray(state[name], np.int64) for name in ("length", "episode"))
        if lengths.shape != (self.batch_size,) or numbers.shape != (self.batch_size,):
            raise ValueError(
                f"{self.env_id}: the state has {counted(lengths.size, 'member')}, this has {self.batch_size}"
            )
        actions, dtype = np.asarray(state["actions"]), self.action_space.dtype
        shape = (int(lengths.sum()), *(self.action_space.shape or ()))
        if actions.shape != shape or actions.dtype != dtype:
            raise ValueError(
                f"{self.env_id}: the state's actions are {actions.dtype} {actions.shape}, not {dtype} {shape}"
            )
        return lengths, numbers

    def _require_replayed(self, name: str, array: np.ndarray, saved: np.ndarray, lengths: np.ndarray) -> None:
        for member in range(self.batch_size):
            if not np.array_equal(array[member], saved[member], equal_nan=array.dtype.kind == "f"):
                raise EnvironmentFault(
                    self.env_id,
                    member,
                    int(lengths[member]),
                    f"replaying the episode gave another {name} than was saved: the environment does not "
                    "follow from its seed and actions, or has changed",
                )

    def render(self, mode: str = "rgb_array") -> np.ndarray:
        """One frame of every member, [N, height, width, 3] uint8.

        Raises:
          ValueError: Another mode, or the environment was not loaded with `render_mode="rgb_array"`.
        """
        if mode != "rgb_array":
            raise ValueError(f"{self.env_id}: render mode must be rgb_array, got {mode!r}")
        return np.stack(self._vector.render())

    def close(self) -> None:
        """Close every member and end every worker process; harmless when repeated."""
        self._vector.close()
