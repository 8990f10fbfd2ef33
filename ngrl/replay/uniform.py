"""A uniform replay buffer whose draws and content survive a checkpoint bit for bit."""

from typing import Any, NamedTuple

import numpy as np

from ngrl import seeding
from ngrl.replay.ring import Ring


class Transition(NamedTuple):
    """One environment step. Leaves are [B, ...] arrays, or nests of such where the space is a Dict."""

    observation: Any
    action: Any
    reward: Any
    discount: Any  # the environment's: 0 where the step terminated, 1 elsewhere (truncation included)
    next_observation: Any


class UniformReplayBuffer(Ring):
    """A ring of the latest `capacity` transitions, sampled uniformly with replacement.

    The generator is this object's own, so that `state()` holds everything that the next draws depend on.

    Args:
      example: One transition without a batch dimension: its structure, shapes and dtypes fix the storage.
      capacity: How many transitions are kept.
      seed: Seed of the generator that draws minibatches.

    Raises:
      ValueError: `capacity` is not positive.
    """

    def __init__(self, example: Any, capacity: int, seed: int = 0):
        super().__init__(example, capacity, "transition", "transitions")
        self._generator = seeding.generator(seed, seeding.Stream.REPLAY)

    def add_steps(self, items: Transition, environments: np.ndarray, is_first: np.ndarray) -> None:
        """Append a transition of each of some environments.

        Args:
          items: Transitions [B, ...].
          environments: Which they are of [B], each at most once.
          is_first: Whether each began an episode, and so followed nothing [B].

        Raises:
          ValueError: As `add_batch`.
        """
        del environments, is_first
        self.add_batch(items)

    def sample(self, *shape: int) -> Any:
        """Independent uniform draws with leaves of shape [*shape, ...], e.g. `sample(updates, batch_size)`.

        Raises:
          ValueError: The buffer is empty.
        """
        self._check_filled()
        return self._gather(self._generator.integers(self._size, size=shape))

    def state(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Everything later draws depend on: arrays (the filled part only) and plain JSON values."""
        arrays, values = super().state()
        return arrays, values | {"generator": self._generator.bit_generator.state}

    def restore(self, arrays: dict[str, np.ndarray], values: dict[str, Any]) -> None:
        """Set the state that `state()` returned.

        Raises:
          ValueError: The arrays do not fit this buffer's transitions or capacity.
        """
        super().restore(arrays, values)
        self._generator.bit_generator.state = values["generator"]
