"""envpool's C++ environments, an optional extra."""

import importlib
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from gymnasium import spaces

from ngrl.environments.faults import EnvironmentFault, one_line
from ngrl.environments.making import unknown_env_id
from ngrl.environments.member import Episode, episode_seed
from ngrl.environments.vector import Transition, VectorEnvironment
from ngrl.seeding import Stream

_NO_LIMIT = np.iinfo(np.int32).max  # what envpool says where an environment has no time limit


class EnvpoolVector(VectorEnvironment):
    """An envpool of N environments, which follow the same reset-on-next-step rule as gymnasium's.

    Exact restore is not supported: envpool seeds an environment once, not each episode, and can't be given a
    random state. `restore` starts new episodes under other seeds instead.
    """

    can_restore = False

    def __init__(self, env_id: str, num_envs: int, seed: int, kwargs: Mapping[str, Any], stream: Stream):
        """Make the pool.

        Raises:
          ImportError: envpool is not installed.
          ValueError: envpool doesn't know the environment or its settings, or not all members would be stepped.
        """
        try:
            self._envpool = importlib.import_module("envpool")
        except ImportError as error:
            raise ImportError("backend 'envpool' needs the package envpool: pip install 'ngrl[envs]'") from error
        known = self._envpool.list_all_envs()
        self._name = env_id.removeprefix("ALE/")
        if self._name not in known:
            raise ValueError(unknown_env_id(env_id, known, "not among envpool's"))
        self.env_id = env_id
        self.num_envs = num_envs
        self._kwargs = dict(kwargs)
        self._preprocessing = self._kwargs.pop("preprocessing", None)
        if self._preprocessing is not None:
            self._kwargs = {**self._preprocessing.for_envpool(), **self._kwargs}
        if "batch_size" in self._kwargs:  # it ends the process at the first step of all members
            raise ValueError(f"{env_id}: envpool's batch_size is num_envs here: leave it out of the arguments")
        self._stream = stream
        # How often episodes were broken off by a restore or a new seed: part of the pool's seeds.
        self._restarts = 0
        self._open(seed)

    def _open(self, seed: int) -> None:
        seeds = [episode_seed(seed, member, self._restarts, self._stream) for member in range(self.num_envs)]
        try:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", message=".*precision lowered by casting", module="gymnasium")
                self._pool = self._envpool.make(
                    self._name, env_type="gymnasium", num_envs=self.num_envs, seed=seeds, **self._kwargs
                )
                self.observation_space = self._space()
                self.action_space = self._pool.action_space
        except Exception as error:
            settings = f" with {self._kwargs}" if self._kwargs else ""
            raise ValueError(f"{self.env_id} can't be made by envpool{settings}: {one_line(error)}") from error

    def _space(self) -> spaces.Space:
        space = self._pool.observation_space
        if self._preprocessing is None:
            return space
        low, high = (self._images(bound[np.newaxis])[0] for bound in (space.low, space.high))
        return spaces.Box(low, high, dtype=space.dtype.type)

    def _images(self, observation: Any) -> Any:
        """Envpool's [N, C, H, W] as gymnasium's preprocessing has them: [N, H, W] where grey, else [N, H, W, C]."""
        if self._preprocessing is None:
            return observation
        return observation[:, 0] if self._preprocessing.grayscale else np.moveaxis(observation, 1, -1)

    def reset(self) -> Any:
        return self._images(self._pool.reset()[0])

    def step(self, actions: np.ndarray) -> Transition:
        try:
            observation, reward, terminated, truncated, _ = self._pool.step(actions)
        except Exception as error:
            raise EnvironmentFault(self.env_id, None, None, one_line(error)) from error
        return Transition(self._images(observation), reward, terminated, truncated)

    @property
    def time_limit(self) -> int | None:
        limit = int(self._pool.config.get("max_episode_steps", _NO_LIMIT))
        return limit if limit < _NO_LIMIT else None

    def seed(self, seed: int) -> None:
        self._restarts = 0
        self._reopen(seed)

    def save(self) -> list[Episode]:
        """No actions, and in place of an episode's number how often episodes were broken off."""
        none = np.zeros((0, *(self.action_space.shape or ())), self.action_space.dtype)
        return [Episode(self._restarts, none)] * self.num_envs

    def restore(self, seed: int, episodes: list[Episode]) -> Any:
        """Start new episodes, under other seeds than those of the run up to the save."""
        self._restarts = episodes[0].number + 1
        self._reopen(seed)
        return self.reset()

    def _reopen(self, seed: int) -> None:
        self._pool.close()
        self._open(seed)

    def render(self) -> Sequence[Any]:
        """Not supported."""
        raise ValueError(f"{self.env_id}: the envpool backend doesn't render; use 'sync'")

    def close(self) -> None:
        self._pool.close()
