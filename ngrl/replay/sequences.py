"""A uniform replay buffer whose draws go on with the steps that followed."""

from typing import Any, NamedTuple

import numpy as np

from ngrl.checks import check_count
from ngrl.replay.uniform import Transition, UniformReplayBuffer

_NONE = -1  # no slot


class Sequences(NamedTuple):
    """Steps of one environment that followed on each other in one episode, T at most."""

    transitions: Transition  # leaves [..., T, ...]; beyond the last valid step that step again
    valid: np.ndarray  # [..., T] bool, True at first


class SequenceReplayBuffer(UniformReplayBuffer):
    """A `UniformReplayBuffer` that gives each transition drawn with up to T − 1 that followed it in its episode.

    A sequence is shorter where its episode ends, or where nothing has followed yet. Which transitions are drawn is what
    a `UniformReplayBuffer` of the same seed would draw.

    Args:
      example: One transition without a batch dimension: its structure, shapes and dtypes fix the storage.
      capacity: How many transitions are kept.
      num_envs: How many environments fill it.
      num_steps: T.
      seed: Seed of the generator that draws minibatches.

    Raises:
      ValueError: An argument is out of its range.
    """

    def __init__(self, example: Any, capacity: int, num_envs: int, num_steps: int, seed: int = 0):
        super().__init__(example, capacity, seed)
        self._num_steps = check_count("num_steps", num_steps)
        # Where what followed a transition is. It is newer and so overwritten later: such a place is never stale.
        self._successor = np.full(capacity, _NONE)
        self._latest = np.full(num_envs, _NONE)

    def add_steps(self, items: Any, environments: np.ndarray, is_first: np.ndarray) -> None:
        """See `UniformReplayBuffer`."""
        slots = (self._cursor + np.arange(len(environments))) % self._capacity
        self.add_batch(items)
        self._successor[slots] = _NONE
        self._latest[np.isin(self._latest, slots)] = _NONE  # overwritten
        before = self._latest[environments]
        follows = ~np.asarray(is_first, bool) & (before != _NONE)
        self._successor[before[follows]] = slots[follows]
        self._latest[environments] = slots

    def sample(self, *shape: int) -> Sequences:
        """Independent uniform draws, each with what followed it: leaves [*shape, T, ...].

        Raises:
          ValueError: The buffer is empty.
        """
        self._check_filled()
        index = np.empty((*shape, self._num_steps), np.int64)
        valid = np.ones(index.shape, bool)
        index[..., 0] = self._generator.integers(self._size, size=shape)
        for step in range(1, self._num_steps):
            following = self._successor[index[..., step - 1]]
            valid[..., step] = valid[..., step - 1] & (following != _NONE)
            index[..., step] = np.where(valid[..., step], following, index[..., step - 1])
        return Sequences(self._gather(index), valid)

    def state(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Everything later draws depend on: arrays (the filled part only) and plain JSON values."""
        arrays, values = super().state()
        return arrays | {"successor": self._successor[: self._size], "latest": self._latest}, values

    def restore(self, arrays: dict[str, np.ndarray], values: dict[str, Any]) -> None:
        """Set the state that `state()` returned.

        Raises:
          ValueError: The arrays do not fit this buffer's transitions, capacity or environments.
        """
        super().restore(arrays, values)
        links = arrays.get("successor"), arrays.get("latest")
        if links[0] is None or links[1] is None or links[1].shape != self._latest.shape:
            raise ValueError("the saved replay buffer holds no sequences, or those of another number of environments")
        self._successor[: self._size], self._latest[:] = links
