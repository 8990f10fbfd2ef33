"""One member of a vector environment: its episodes' seeds, its record of actions, and its manners.

Imports neither TensorFlow nor TF-Agents: worker processes import it.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.wrappers import MaxAndSkipObservation, TimeLimit

from ngrl import seeding
from ngrl.environments.faults import EnvironmentFault, one_line
from ngrl.messages import RAISED
from ngrl.seeding import Stream

Check = Callable[[Any], str | None]
_FLOATS = frozenset({float, np.float64, np.float32})


class Episode(NamedTuple):
    """The episode in progress of one member: enough to bring it back by replay.

    Attributes:
      number: Which episode of this member's, from 0; -1 before the first reset.
      actions: What it was given since the reset, in the action space's dtype, [steps, *action shape].
    """

    number: int
    actions: np.ndarray


def episode_seed(run_seed: int, member: int, episode: int, stream: Stream = Stream.TRAINING_EPISODES) -> int:
    """The seed of an episode in [0, 2^31), from the run's seed, the member's and the episode's index.

    Odd in evaluations and even otherwise: no evaluation, of whatever seed, plays an episode of any training.
    """
    return seeding.integer(run_seed, stream, member, episode) & ~1 | (stream is Stream.EVALUATION_EPISODES)


class Member(gymnasium.Wrapper):
    """Seeds every episode of an environment, records its actions, and checks all that it returns.

    `infos` are dropped: nothing in TF-Agents' time steps could hold them, and collecting them costs more than
    a step of CartPole.
    """

    def __init__(self, env: gymnasium.Env, env_id: str, run_seed: int, member: int, stream: Stream):
        """Wrap an environment.

        Args:
          env: The environment, with its time limit.
          env_id: Its name, for messages.
          run_seed: The run's seed.
          member: This member's index in the vector environment.
          stream: Whether its episodes are training's or evaluation's.
        """
        super().__init__(env)
        self._env_id = env_id
        self._run_seed = run_seed
        self._member = member
        self._stream = stream
        self._scalar_actions = isinstance(env.action_space, spaces.Discrete)
        self._check = observation_check(env.observation_space)
        self._blank = _zeros(env.observation_space)
        self._episode = -1
        self._actions: list[Any] = []
        # After a restore to an episode's end the vector environment doesn't know that a reset is due.
        self._reset_due = False
        self._warned: set[str] = set()

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Start the next episode with its own seed; `seed` is not used (`reseed` sets the run's)."""
        self._episode += 1
        self._begin()
        try:
            observation, _ = self.env.reset(seed=self._seed(), options=options)
        except RAISED as error:
            raise self._fault(one_line(error)) from error
        problem = self._check(observation)
        if problem is not None:
            raise self._fault(f"observation {problem}")
        return observation, {}

    def step(self, action: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """Step the environment, or reset it when its restored episode had ended."""
        if self._reset_due:
            observation, info = self.reset()
            return observation, 0.0, False, False, info
        # A copy, since an environment may write into its action; NumPy's scalars can't be written into.
        self._actions.append(action if self._scalar_actions else np.array(action))
        try:
            observation, reward, terminated, truncated, _ = self.env.step(action)
        except RAISED as error:
            raise self._fault(one_line(error)) from error
        problem = self._check(observation)
        if problem is None and type(reward) in _FLOATS and type(terminated) is type(truncated) is bool:
            return observation, reward, terminated, truncated, {}
        reward, terminated, truncated = self._single(reward=reward, terminated=terminated, truncated=truncated)
        if problem is not None:
            problem = f"observation {problem}"
        elif not _is_number(reward):
            problem = f"reward must be one real number, got {_describe(reward)}"
        elif not isinstance(terminated, (bool, np.bool_)):
            problem = f"terminated must be a bool, got {_describe(terminated)}"
        elif not isinstance(truncated, (bool, np.bool_)):
            problem = f"truncated must be a bool, got {_describe(truncated)}"
        if problem is not None:
            raise self._fault(problem)
        return observation, _as_float(reward), terminated, truncated, {}

    def _single(self, **answers: Any) -> Iterator[Any]:
        """Arrays of one element as that element, with gymnasium's warning, once a member."""
        for name, answer in answers.items():
            if isinstance(answer, np.ndarray) and answer.ndim and answer.size == 1:
                if name not in self._warned:
                    self._warned.add(name)
                    gymnasium.logger.warn(f"{self._env_id}: {name} is {_describe(answer)}; its one element is taken")
                answer = answer.reshape(())[()]
            yield answer

    def time_limit(self) -> int | None:
        """Steps after which gymnasium truncates an episode; None where no such limit was declared."""
        limits, env, skip = [], self.env, 1
        while isinstance(env, gymnasium.Wrapper):
            if isinstance(env, TimeLimit):
                limits.append(math.ceil(env._max_episode_steps / skip))
            # A limit within a wrapper that repeats actions counts the repeated steps.
            skip *= env._skip if isinstance(env, MaxAndSkipObservation) else vars(env).get("frame_skip", 1)
            env = env.env
        return min(limits, default=None)

    def reseed(self, run_seed: int, next_episodes: Sequence[int] | None = None) -> None:
        """Count episodes anew under a run seed; the next reset starts episode 0, or the member's of `next_episodes`."""
        self._run_seed = run_seed
        self._episode = (0 if next_episodes is None else int(next_episodes[self._member])) - 1
        self._begin()

    def is_reset_due(self) -> bool:
        """Whether a restored episode had ended."""
        return self._reset_due

    def save_episode(self) -> Episode:
        """The episode in progress."""
        space: Any = self.env.action_space
        return Episode(self._episode, np.array(self._actions, dtype=space.dtype).reshape(-1, *space.shape))

    def restore_episodes(self, run_seed: int, episodes: list[Episode]) -> tuple[Any, EnvironmentFault | None]:
        """Bring this member's episode back by resetting to its seed and giving it the same actions again.

        Args:
          run_seed: The seed of the run that was saved.
          episodes: Those of all members; each member takes its own.

        Returns:
          The observation after the last action (blank before the first reset), and what went wrong, if
          anything.
        """
        self._run_seed = run_seed
        self._episode, actions = episodes[self._member]
        self._begin()
        if self._episode < 0:
            return self._blank, None
        try:
            observation, _ = self.env.reset(seed=self._seed())
            for action in actions:
                self._actions.append(np.array(action))
                observation, _, terminated, truncated, _ = self.env.step(action)
                self._reset_due = bool(terminated or truncated)
        except RAISED as error:
            return self._blank, self._fault(f"replaying its episode: {one_line(error)}")
        return observation, None

    def _begin(self) -> None:
        self._actions = []
        self._reset_due = False

    def _seed(self) -> int:
        return episode_seed(self._run_seed, self._member, self._episode, self._stream)

    def _fault(self, problem: str) -> EnvironmentFault:
        return EnvironmentFault(self._env_id, self._member, len(self._actions), problem)


def observation_check(space: spaces.Space) -> Check:
    """A function that says what is wrong with an observation of a space, or None.

    A Box may be answered in any dtype that NumPy casts to the space's within its kind (float64 for float32),
    as gymnasium's vector environments do, unless an integer would become another. Box bounds are not checked: many
    environments leave the ones they declare.
    """
    if isinstance(space, spaces.Dict):
        return _dict_check({key: observation_check(part) for key, part in space.spaces.items()})
    if isinstance(space, spaces.Discrete):
        return _discrete_check(space)
    if isinstance(space, spaces.MultiBinary):
        space = spaces.MultiDiscrete(np.full(space.shape, 2), space.dtype)
    return _multi_discrete_check(space) if isinstance(space, spaces.MultiDiscrete) else _box_check(space)


def _box_check(space: Any) -> Check:
    shape, dtype = space.shape, space.dtype

    def check(value: Any) -> str | None:
        if type(value) is np.ndarray and value.shape == shape and value.dtype == dtype:
            return None
        try:
            array = np.asarray(value)
        except ValueError:  # ragged
            return f"is {_describe(value)}, the space says shape {shape}"
        if array.shape != shape:
            return f"has shape {array.shape}, the space says {shape}"
        if not np.can_cast(array.dtype, dtype, "same_kind"):
            return f"has dtype {array.dtype}, the space says {dtype}"
        if dtype.kind in "iu" and (array.astype(dtype) != array).any():
            return f"goes from {array.min()} to {array.max()}, the space says {dtype}"
        return None

    return check


def _discrete_check(space: spaces.Discrete) -> Check:
    first: Any = space.start
    end = first + space.n

    def check(value: Any) -> str | None:
        if not _is_number(value) or np.asarray(value).dtype.kind not in "iu":
            return f"is {_describe(value)}, the space says one integer"
        if not first <= value < end:
            return f"is {value}, the space says {first} to {end - 1}"
        return None

    return check


def _multi_discrete_check(space: spaces.MultiDiscrete) -> Check:
    of_array = _box_check(space)
    first, end = space.start, space.start + space.nvec

    def check(value: Any) -> str | None:
        problem = of_array(value)
        if problem is None and not ((first <= value) & (value < end)).all():
            problem = f"is {np.asarray(value).tolist()}, the space says {first.tolist()} to {(end - 1).tolist()}"
        return problem

    return check


def _dict_check(checks: Mapping[str, Check]) -> Check:
    def check(value: Any) -> str | None:
        if not isinstance(value, Mapping) or value.keys() != checks.keys():
            found = sorted(map(str, value)) if isinstance(value, Mapping) else _describe(value)
            return f"has keys {found}, the space says {sorted(checks)}"
        for key, part in checks.items():
            problem = part(value[key])
            if problem is not None:
                return f"[{key!r}] {problem}"
        return None

    return check


def _is_number(value: Any) -> bool:
    if isinstance(value, (float, int)):
        return True
    return isinstance(value, (np.generic, np.ndarray)) and value.ndim == 0 and value.dtype.kind in "fiub"


def _as_float(number: Any) -> float:
    """An integer beyond what a float holds is infinite, as a float is that has grown so large."""
    try:
        return float(number)
    except OverflowError:
        return math.inf if number > 0 else -math.inf


def _describe(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return f"an array of shape {value.shape} and dtype {value.dtype}"
    text = " ".join(repr(value).split())
    return f"{text if len(text) <= 40 else text[:37] + '...'} ({type(value).__name__})"


def _zeros(space: spaces.Space) -> Any:
    if isinstance(space, spaces.Dict):
        return {key: _zeros(part) for key, part in space.spaces.items()}
    return np.zeros(space.shape or (), space.dtype or np.float32)
