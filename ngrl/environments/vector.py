"""Vector environments behind one small interface; the members are in this process here.

Batches here are gymnasium's: the spaces' own dtypes, and arrays that the next step may overwrite.
"""

import abc
import contextlib
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from gymnasium.vector.utils import create_empty_array

from ngrl.environments.faults import EnvironmentFault, one_line
from ngrl.environments.making import MemberMaker
from ngrl.environments.member import Episode, Member
from ngrl.messages import RAISED

_LONGEST_S = 2_000_000  # 23 days; a poll counts milliseconds, up to 2^31


class Transition(NamedTuple):
    """What N members answered: a batch of observations, reward [N], terminated [N] and truncated [N].

    `lost` [N] is true where an episode was lost with the process that played it: the observation is the first of the
    next episode then, and the rest of that member's answer is 0. None: nowhere.
    """

    observation: Any
    reward: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray
    lost: np.ndarray | None = None


class VectorEnvironment(abc.ABC):
    """N members stepped together. After a member's last step, its next step is its reset, with reward 0."""

    #: Whether restore() brings episodes in progress back exactly.
    can_restore: bool = True
    env_id: str
    num_envs: int
    observation_space: spaces.Space
    action_space: spaces.Space
    #: Called with a line about what was lost and begun anew; whoever runs the members may set another.
    warn: Callable[[str], None] = staticmethod(lambda line: print(f"warning: {line}", file=sys.stderr))

    @abc.abstractmethod
    def reset(self) -> Any:
        """Start the next episode of every member; returns the observation batch."""

    @abc.abstractmethod
    def step(self, actions: np.ndarray) -> Transition:
        """Step every member; the action of a member due for its reset is ignored."""

    @property
    @abc.abstractmethod
    def time_limit(self) -> int | None:
        """Steps after which an episode is truncated; None where the environment declares no such limit."""

    @abc.abstractmethod
    def seed(self, seed: int) -> None:
        """Count episodes from 0 again under another run seed; call reset next."""

    @abc.abstractmethod
    def save(self) -> list[Episode]:
        """The episode in progress of every member."""

    @abc.abstractmethod
    def restore(self, seed: int, episodes: list[Episode]) -> Any:
        """Bring episodes back (start new ones where can_restore is false); returns the observation batch."""

    @abc.abstractmethod
    def render(self) -> Sequence[Any]:
        """One frame of every member."""

    @abc.abstractmethod
    def close(self) -> None:
        """Free everything; harmless when repeated."""


class SyncVector(VectorEnvironment):
    """Members stepped one after another in this process: the fastest for quick environments."""

    def __init__(self, maker: MemberMaker, members: Iterable[int], on_made: Callable[[], object] = lambda: None):
        """Make the members of these indices; `on_made` is called after each.

        Raises:
          EnvironmentFault: One can't be made, or has other spaces than the first.
        """
        made: dict[int, Member] = {}
        with contextlib.ExitStack() as opened:  # what has been made, where another can't be
            for index in members:
                made[index] = maker.member(index)()
                opened.callback(made[index].close)
                on_made()
            check_alike(maker.env_id, {index: (env.observation_space, env.action_space) for index, env in made.items()})
            opened.pop_all()
        # copy=False: the bridge copies once, while converting dtypes.
        vector = SyncVectorEnv(
            [lambda member=member: member for member in made.values()],  # type: ignore[misc]
            copy=False,
            autoreset_mode=AutoresetMode.NEXT_STEP,
        )
        self.env_id = maker.env_id
        self.num_envs = vector.num_envs
        self.observation_space = vector.single_observation_space
        self.action_space = vector.single_action_space
        self.render_mode = vector.render_mode
        self._vector = vector
        self._indices = list(made)
        self._members: Any = vector.envs
        self._batch: Any = create_empty_array(self.observation_space, self.num_envs)
        self._due: Sequence[bool] = [False] * self.num_envs  # members whose next step is their reset

    def reset(self) -> Any:
        self._due = [False] * self.num_envs
        return self._fill([member.reset()[0] for member in self._members])

    def step(self, actions: np.ndarray) -> Transition:
        # What gymnasium's loop does, at half the price: no infos, no copies.
        answers = [
            (member.reset()[0], 0.0, False, False, None) if due else member.step(action)
            for member, action, due in zip(self._members, actions, self._due, strict=True)
        ]
        observations, rewards, terminated, truncated, _ = zip(*answers, strict=True)
        self._due = [ends or cut for ends, cut in zip(terminated, truncated, strict=True)]
        return Transition(
            self._fill(observations),
            np.array(rewards, np.float64),
            np.array(terminated, bool),
            np.array(truncated, bool),
        )

    def _fill(self, observations: Sequence[Any]) -> Any:
        """The observations in the batch that the next step overwrites."""
        _place(self._batch, observations)
        return self._batch

    @property
    def time_limit(self) -> int | None:
        return self._call("time_limit")[0]

    def seed(self, seed: int) -> None:
        self._call("reseed", seed)

    def save(self) -> list[Episode]:
        return list(self._call("save_episode"))

    def restore(self, seed: int, episodes: list[Episode]) -> Any:
        """Replay the actions of each; `episodes` are those of all members of the run, of which some may be here."""
        self.reset()  # the episodes that it starts are replaced
        results = self._call("restore_episodes", seed, episodes)
        for _, fault in results:
            if fault is not None:
                raise fault
        return self._fill([observation for observation, _ in results])

    def render(self) -> Sequence[Any]:
        if self.render_mode != "rgb_array":
            raise no_picture(self.env_id)
        return self._call("render")

    def close(self) -> None:
        """Close all members; one that can't be is told of, since what has been played is not to be lost with it."""
        if self._vector.closed:
            return
        self._vector.closed = True
        for index, member in zip(self._indices, self._members, strict=True):
            try:
                member.close()
            except RAISED as error:
                self.warn(f"{self.env_id}, member {index}: it can't be closed: {one_line(error)}")

    def _call(self, name: str, *args: Any) -> tuple[Any, ...]:
        """Call a method of every member."""
        return self._vector.call(name, *args)


def check_alike(env_id: str, described: Mapping[int, tuple[spaces.Space, spaces.Space]]) -> None:
    """See that members have the same observation and action space; `described` may have one of several for all.

    Raises:
      EnvironmentFault: One has others than the first.
    """
    first = next(iter(described), 0)
    for member, own in described.items():
        for kind, space, of_first in zip(("observation", "action"), own, described[first], strict=True):
            if space != of_first:
                there, here = (" ".join(str(each).split()) for each in (of_first, space))
                problem = f"its {kind} space is {here}, that of member {first} is {there}"
                raise EnvironmentFault(env_id, member, None, problem)


def no_picture(env_id: str) -> ValueError:
    """The error of members that are to be drawn and can't."""
    return ValueError(f'{env_id}: to render, load it with render_mode="rgb_array"')


def waited(seconds: float | None) -> float | None:
    """How long to wait for an answer: for ever (None) too where that is longer than the system can count."""
    return None if seconds is None or seconds > _LONGEST_S else seconds


def shares(num_envs: int, parts: int | None) -> list[np.ndarray]:
    """The members 0 to N − 1 shared out among parts as equal as can be; None makes one of each."""
    return np.array_split(np.arange(num_envs), min(parts or num_envs, num_envs))


def concatenated(batches: Sequence[Any]) -> Any:
    """Batches of observations, arrays or dicts of them, as one."""
    if isinstance(batches[0], Mapping):
        return {key: concatenated([batch[key] for batch in batches]) for key in batches[0]}
    return np.concatenate(batches)


def _place(batch: Any, observations: Sequence[Any]) -> None:
    """Write observations into the rows of a batch, an array or a dict of them, whatever numbers they are made of."""
    if isinstance(batch, Mapping):
        for key, part in batch.items():
            _place(part, [observation[key] for observation in observations])
        return
    for row, observation in enumerate(observations):
        batch[row] = observation
