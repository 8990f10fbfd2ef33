"""A replay that holds each frame once, whichever transitions and stacks it is part of."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ngrl.replay.sequences import Sequences
from ngrl.replay.uniform import Transition, UniformReplayBuffer

_BLOCK_BYTES = 2**24


class FrameReplayBuffer:
    """A replay buffer whose transitions hold numbers of frames: a half or, with stacks of S, a 2S-th of the memory.

    Frames are numbered as they come, and lie in a ring of their own. A frame is known again where it is expected: an
    observation is compared with the one that its environment reached before, the next one with this. What isn't as
    expected is stored anew, so that what is drawn is exact whatever was added. The ring holds a sixteenth more frames
    than transitions, as an episode has one more of them, and grows where episodes are shorter.

    Args:
      make: Makes the buffer of the transitions, called with one that holds numbers.
      example: One transition, whose observations are one array.
      num_envs: How many environments fill it.
      stacked: Whether an observation [S, ...] is a stack of frames; else it is one frame.
    """

    def __init__(
        self, make: Callable[[Transition], UniformReplayBuffer], example: Transition, num_envs: int, stacked: bool
    ):
        self._stacked = stacked
        frames = self._as_stacks(np.asarray(example.observation)[np.newaxis])[0]
        per_stack = len(frames)
        numbers = np.zeros(per_stack, np.int64)
        self._transitions = make(example._replace(observation=numbers, next_observation=numbers))
        self._most_added = 2 * per_stack * num_envs
        capacity = self._transitions.capacity
        places = capacity + capacity // 16 + 2 * self._most_added
        self._frames = np.zeros((places, *frames.shape[1:]), frames.dtype)
        self._added = 0  # frames so far, and the number of the next
        self._needed = 0  # no frame of a lower number is part of anything
        self._reached = np.full((num_envs, per_stack), -1, np.int64)  # each environment's latest observation

    def __len__(self) -> int:
        return len(self._transitions)

    @property
    def num_bytes(self) -> int:
        """Bytes of all arrays."""
        return self._frames.nbytes + self._transitions.num_bytes

    def add_steps(self, items: Transition, environments: np.ndarray, is_first: np.ndarray) -> None:
        """See `UniformReplayBuffer`."""
        before, after = (self._as_stacks(leaf) for leaf in (items.observation, items.next_observation))
        self._make_room()
        numbers = self._reached[environments]
        known = (numbers >= 0).all(axis=1) & _equal(self._frames[numbers % len(self._frames)], before)
        for row in np.flatnonzero(~known):
            numbers[row] = self._store_stack(before[row])
        reached = np.concatenate([numbers[:, 1:], np.full((len(environments), 1), -1)], axis=1)
        follows = _equal(before[:, 1:], after[:, :-1])
        reached[follows, -1] = self._store(after[follows, -1])
        for row in np.flatnonzero(~follows):
            reached[row] = self._store_stack(after[row])
        self._reached[environments] = reached
        numbered = items._replace(observation=numbers, next_observation=reached)
        self._transitions.add_steps(numbered, environments, is_first)

    def sample(self, *shape: int) -> Any:
        """What the buffer of the transitions draws, with the observations."""
        drawn = self._transitions.sample(*shape)
        if isinstance(drawn, Sequences):
            return drawn._replace(transitions=self._look_up(drawn.transitions))
        return self._look_up(drawn)

    def _look_up(self, numbered: Transition) -> Transition:
        """Transitions with observations in the place of frames' numbers [..., S]."""

        def look_up(numbers: np.ndarray) -> np.ndarray:
            return self._frames[(numbers if self._stacked else numbers[..., 0]) % len(self._frames)]

        return numbered._replace(
            observation=look_up(numbered.observation), next_observation=look_up(numbered.next_observation)
        )

    def _as_stacks(self, observations: np.ndarray) -> np.ndarray:
        """Observations [B, ...] as [B, S, ...]."""
        return observations if self._stacked else observations[:, np.newaxis]

    def _store(self, frames: np.ndarray) -> np.ndarray:
        """Put frames [F, ...] into the ring; their numbers."""
        numbers = self._added + np.arange(len(frames))
        self._frames[numbers % len(self._frames)] = frames
        self._added += len(frames)
        return numbers

    def _store_stack(self, stack: np.ndarray) -> np.ndarray:
        """The same for a stack, whose beginning may be copies of one frame."""
        new = np.concatenate([[True], ~_equal(stack[1:], stack[:-1])])
        return self._store(stack[new])[np.cumsum(new) - 1]

    def _make_room(self) -> None:
        """See that the frames of one call fit beside those that are part of something."""
        if self._added + self._most_added - self._needed <= len(self._frames):
            return
        stored = self._transitions.stored()
        used = (stored.observation, stored.next_observation, self._reached[self._reached >= 0])
        self._needed = int(min(numbers.min(initial=self._added) for numbers in used))
        missing = self._added + self._most_added - self._needed - len(self._frames)
        if missing > 0:
            old, size = self._frames, len(self._frames)
            self._frames = np.zeros((size + max(missing, size // 4), *old.shape[1:]), old.dtype)
            kept = np.arange(self._needed, self._added)
            self._frames[kept % len(self._frames)] = old[kept % size]

    def state(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Everything later draws depend on but for the frames, which are in `blocks`: arrays and plain JSON values."""
        arrays, values = self._transitions.state()
        values |= {"added": self._added, "needed": self._needed, "places": len(self._frames)}
        return arrays | {"reached": self._reached.copy()}, values

    def blocks(self) -> dict[str, np.ndarray]:
        """The frames in blocks of a few megabytes, under names that are others where the content is."""
        places, size = len(self._frames), self._block_size()
        turns, cursor = divmod(self._added, places)
        found = {}
        for start in range(0, min(self._added, places), size):
            end = min(start + size, places)
            # The latest frame in it is of this turn of the ring, or of the one before.
            latest = turns * places + min(end, cursor) if start < cursor else (turns - 1) * places + end
            found[f"frames-{places}-{start}-{latest}"] = self._frames[start : min(end, self._added)]
        return found

    def _block_size(self) -> int:
        return max(1, _BLOCK_BYTES // max(1, self._frames[0].nbytes))

    def restore(self, arrays: dict[str, np.ndarray], values: dict[str, Any], blocks: Mapping[str, np.ndarray]) -> None:
        """Set the state that `state()` and `blocks()` returned.

        Raises:
          ValueError: They do not fit this buffer's transitions, frames or capacity.
        """
        reached, shape = arrays.get("reached"), self._frames.shape[1:]
        is_other = reached is None or reached.shape != self._reached.shape
        if is_other or any(block.shape[1:] != shape for block in blocks.values()):
            raise ValueError("the saved replay buffer has other frames or another number of environments")
        self._transitions.restore(arrays, values)
        self._added, self._needed = int(values["added"]), int(values["needed"])
        self._frames = np.zeros((int(values["places"]), *shape), self._frames.dtype)
        self._reached = np.array(reached)
        for name, block in blocks.items():
            start = int(name.split("-")[2])
            self._frames[start : start + len(block)] = block


def _equal(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Whether arrays are the same [B]."""
    return (one == other).all(axis=tuple(range(1, one.ndim)))
