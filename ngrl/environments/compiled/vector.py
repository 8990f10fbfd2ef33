"""N members of a compiled environment: their state in tensors, and a step of all of them as a pure function."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from ngrl import seeding
from ngrl._tf_agents import time_step as ts
from ngrl.checks import check_count
from ngrl.environments.compiled.dynamics import Dynamics
from ngrl.environments.compiled.kinds import dynamics_of
from ngrl.environments.compiled.random_numbers import uniform
from ngrl.environments.making import MemberMaker, find_spec
from ngrl.environments.member import Episode
from ngrl.environments.vector import Transition, VectorEnvironment
from ngrl.seeding import Stream

_FIRST, _MID, _LAST = (int(kind) for kind in (ts.StepType.FIRST, ts.StepType.MID, ts.StepType.LAST))


class MemberState(NamedTuple):
    """All that the future of N members depends on beside their actions; tensors or arrays."""

    physics: Any  # [N, D] float64
    steps: Any  # of the episode in progress [N] int32
    episode: Any  # its number, from 0; -1 before the first [N] int32
    step_type: Any  # of the current time step, as in TF-Agents [N] int32
    keys: Any  # of the stream of each member's episodes [N, 2] int32


class CompiledVector(VectorEnvironment):
    """Members whose `advance` may be part of a larger compiled function; `step` calls it from the host.

    Each episode's beginning follows from the run's seed, the member and the episode's number.
    """

    #: What `advance` takes; another may be set.
    state: MemberState

    def __init__(self, env_id: str, num_envs: int, seed: int, kwargs: Mapping[str, Any], stream: Stream):
        """Find the dynamics; spaces and time limit are those that gymnasium knows under this name.

        Raises:
          ValueError: There are none for it, or an argument is not for them.
        """
        self._dynamics: Dynamics = dynamics_of(env_id)
        if others := sorted(set(kwargs) - {"max_episode_steps"}):
            raise ValueError(f"{env_id} compiled takes max_episode_steps alone, got {', '.join(others)}")
        self.env_id = env_id
        self.num_envs = num_envs
        self.observation_space, self.action_space = MemberMaker(env_id, seed, {}, stream).check()
        self._limit = find_spec(env_id).max_episode_steps
        if kwargs.get("max_episode_steps") is not None:
            self._limit = check_count("max_episode_steps", kwargs["max_episode_steps"])
        self._stream = stream
        self._reset_all = tf.function(self._begin, jit_compile=True, autograph=False)
        self._advance = tf.function(self._advance_and_observe, jit_compile=True, autograph=False)
        self.seed(seed)

    @property
    def time_limit(self) -> int | None:
        return self._limit

    def advance(self, state: MemberState, actions: tf.Tensor) -> tuple[MemberState, Any, Any, Any]:
        """One step of every member; those whose step before was their episode's last begin another.

        Returns:
          The new state, reward [N] float32 (0 where an episode begins), terminated [N] and truncated [N].
        """
        due = tf.equal(state.step_type, _LAST)
        motion = self._dynamics.step(state.physics, actions)
        episode = state.episode + tf.cast(due, tf.int32)
        physics = tf.where(due[:, tf.newaxis], self._starts(state.keys, episode), motion.physics)
        steps = tf.where(due, 0, state.steps + 1)
        terminated = ~due & motion.terminated
        over = tf.zeros_like(due) if self._limit is None else steps >= self._limit
        truncated = ~due & over
        step_type = tf.where(due, _FIRST, tf.where(terminated | truncated, _LAST, _MID))
        reward = tf.where(due, 0.0, tf.cast(motion.reward, tf.float32))
        return MemberState(physics, steps, episode, step_type, state.keys), reward, terminated, truncated

    def observe(self, state: MemberState) -> tf.Tensor:
        """The members' observations."""
        return self._dynamics.observe(state.physics)

    def _starts(self, keys: tf.Tensor, episode: tf.Tensor) -> tf.Tensor:
        return self._dynamics.start(uniform(keys, episode, self._dynamics.num_draws))

    def _begin(self, keys: tf.Tensor, episode: tf.Tensor) -> tuple[MemberState, tf.Tensor]:
        zeros = tf.zeros([self.num_envs], tf.int32)
        state = MemberState(self._starts(keys, episode), zeros, episode, zeros + _FIRST, keys)
        return state, self.observe(state)

    def _advance_and_observe(self, state: MemberState, actions: tf.Tensor) -> tuple[Any, ...]:
        state, *answer = self.advance(state, actions)
        return state, self.observe(state), *answer

    def reset(self) -> np.ndarray:
        self.state, observation = self._reset_all(self.state.keys, self.state.episode + 1)
        return observation.numpy()

    def step(self, actions: np.ndarray) -> Transition:
        self.state, *answer = self._advance(self.state, actions)
        return Transition(*(tensor.numpy() for tensor in answer))

    def seed(self, seed: int) -> None:
        keys = [seeding.key(seed, self._stream, member) for member in range(self.num_envs)]
        counts = tf.zeros([self.num_envs], tf.int32)
        self.state = MemberState(tf.zeros([self.num_envs, 0]), counts, counts - 1, counts, tf.constant(np.stack(keys)))

    def save(self) -> list[Episode]:
        """The episodes' numbers; where the members are in them is in `state`."""
        none = np.zeros((0, *(self.action_space.shape or ())), self.action_space.dtype)
        return [Episode(int(number), none) for number in self.state.episode]

    def restore(self, seed: int, episodes: list[Episode]) -> Any:
        """Begin episodes of these numbers; whoever has `state` sets it afterwards."""
        self.seed(seed)
        numbers = tf.constant([episode.number for episode in episodes], tf.int32)
        self.state, observation = self._reset_all(self.state.keys, numbers)
        return observation.numpy()

    def render(self) -> Sequence[Any]:
        raise ValueError(f"{self.env_id}: compiled environments don't render; use 'sync'")

    def close(self) -> None:
        pass
