"""The latest frames of each member as one observation, whichever backend steps them."""

import numpy as np
from gymnasium import spaces


class FrameStack:
    """The latest S observations of each of N members, the oldest first; an episode's first observation fills it.

    Args:
      space: One member's observation space.
      size: S.
      num_envs: N.
      env_id: The environment's name, for the message.

    Raises:
      ValueError: Observations are no arrays.
    """

    def __init__(self, space: spaces.Space, size: int, num_envs: int, env_id: str):
        if not isinstance(space, spaces.Box):
            raise ValueError(f"{env_id}: frame_stack is for observations that are one array, a Box; set it to None")
        low, high = (np.repeat(bound[np.newaxis], size, axis=0) for bound in (space.low, space.high))
        #: One member's stack [S, ...].
        self.space = spaces.Box(low, high, dtype=space.dtype.type)
        self._size = size
        self.frames = np.zeros((num_envs, 0))

    def push(self, newest: np.ndarray, first: np.ndarray) -> np.ndarray:
        """Add the newest observations [N, ...] of members, of whose episodes some begin [N]; new stacks [N, S, ...]."""
        filled = np.repeat(newest[:, np.newaxis], self._size, axis=1)
        goes_on = ~first
        if goes_on.any():
            filled[goes_on, :-1] = self.frames[goes_on, 1:]
        self.frames = filled
        return filled
