"""A uniform replay buffer in TensorFlow variables, filled and drawn from inside a compiled function."""

from typing import Any

import numpy as np
import tensorflow as tf

from ngrl import seeding
from ngrl.checks import check_count
from ngrl.replay.ring import check_cursor
from ngrl.replay.sequences import Sequences
from ngrl.replay.uniform import Transition

_NONE = -1  # no slot


class CompiledReplayBuffer:
    """What `UniformReplayBuffer` and `SequenceReplayBuffer` keep, slot for slot, drawn by a stateless generator.

    `add_steps` and `draw` belong into a graph. The arrays have a slot beyond the last, into which goes what isn't kept,
    since a compiled function's shapes don't depend on how many environments moved.

    Args:
      example: One transition without a batch dimension: its structure, shapes and dtypes fix the storage.
      capacity: How many transitions are kept.
      num_envs: How many environments fill it.
      seed: Seed of the draws.
      num_steps: T; 1 draws transitions, more draws `Sequences` of T steps at most.

    Raises:
      ValueError: A number is not positive.
    """

    def __init__(self, example: Transition, capacity: int, num_envs: int, seed: int, num_steps: int = 1):
        self._capacity = check_count("capacity", capacity)
        self._num_steps = check_count("num_steps", num_steps)
        self._example = example

        def variable(initial: Any) -> tf.Variable:
            return tf.Variable(initial, trainable=False)

        leaves = [np.asarray(leaf) for leaf in tf.nest.flatten(example)]
        self._storage = [variable(tf.zeros([capacity + 1, *leaf.shape], leaf.dtype)) for leaf in leaves]
        self._cursor, self._size = variable(0), variable(0)
        self._key = variable(seeding.key(seed, seeding.Stream.REPLAY))
        if num_steps > 1:
            # As in `SequenceReplayBuffer`: where what followed a transition is, and each environment's latest slot.
            self._successor = variable(tf.fill([capacity + 1], _NONE))
            self._latest = variable(tf.fill([num_envs], _NONE))

    def __len__(self) -> int:
        return int(self._size)

    @property
    def variables(self) -> list[tf.Variable]:
        """All variables."""
        links = [self._successor, self._latest] if self._num_steps > 1 else []
        return [*self._storage, self._cursor, self._size, self._key, *links]

    @property
    def capacity(self) -> int:
        """How many transitions are kept at most."""
        return self._capacity

    def add_steps(self, items: Transition, moved: tf.Tensor, is_first: tf.Tensor) -> None:
        """Append a transition of each environment that moved.

        Args:
          items: Transitions [N, ...], one an environment.
          moved: [N] bool.
          is_first: Whether each began an episode, and so followed nothing [N].
        """
        order = tf.cumsum(tf.cast(moved, tf.int32), exclusive=True)
        slots = tf.where(moved, (self._cursor + order) % self._capacity, self._capacity)
        for stored, leaf in zip(self._storage, tf.nest.flatten(items), strict=True):
            stored.scatter_nd_update(slots[:, tf.newaxis], tf.cast(leaf, stored.dtype))
        if self._num_steps > 1:
            self._link(slots, moved, is_first)
        count = tf.reduce_sum(tf.cast(moved, tf.int32))
        self._cursor.assign((self._cursor + count) % self._capacity)
        self._size.assign(tf.minimum(self._size + count, self._capacity))

    def _link(self, slots: tf.Tensor, moved: tf.Tensor, is_first: tf.Tensor) -> None:
        none = tf.fill(tf.shape(slots), _NONE)
        self._successor.scatter_nd_update(slots[:, tf.newaxis], none)
        overwritten = tf.reduce_any(tf.equal(self._latest[:, tf.newaxis], slots[tf.newaxis]), axis=1)
        latest = tf.where(overwritten, _NONE, self._latest)
        follows = moved & ~is_first & tf.not_equal(latest, _NONE)
        before = tf.where(follows, latest, self._capacity)
        self._successor.scatter_nd_update(before[:, tf.newaxis], slots)
        self._latest.assign(tf.where(moved, slots, latest))

    def draw(self, number: Any, *shape: int) -> Transition | Sequences:
        """Independent uniform draws with leaves [*shape, ...], or [*shape, T, ...] of sequences.

        Args:
          number: Which draw of the stream it is, int32.
          *shape: E.g. updates, minibatch.
        """
        seed, alg = seeding.at(self._key, number), seeding.GENERATOR
        index = tf.random.stateless_uniform(shape, seed, maxval=self._size, dtype=tf.int32, alg=alg)
        if self._num_steps == 1:
            return self._gather(index)
        indices, valid = [index], [tf.ones_like(index, tf.bool)]
        for _ in range(1, self._num_steps):
            following = tf.gather(self._successor, index)
            valid.append(valid[-1] & tf.not_equal(following, _NONE))
            index = tf.where(valid[-1], following, index)
            indices.append(index)
        return Sequences(self._gather(tf.stack(indices, axis=-1)), tf.stack(valid, axis=-1))

    def _gather(self, index: tf.Tensor) -> Transition:
        leaves = [tf.gather(stored, index) for stored in self._storage]
        return tf.nest.pack_sequence_as(self._example, leaves)

    def state(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Everything later draws depend on beside their seeds: arrays (the filled part only) and JSON values."""
        size = len(self)
        arrays = {f"leaf_{i}": stored[:size].numpy() for i, stored in enumerate(self._storage)}
        if self._num_steps > 1:
            arrays |= {"successor": self._successor[:size].numpy(), "latest": self._latest.numpy()}
        return arrays, {"cursor": int(self._cursor), "size": size}

    def restore(self, arrays: dict[str, np.ndarray], values: dict[str, Any]) -> None:
        """Set the state that `state()` returned.

        Raises:
          ValueError: The arrays do not fit this buffer's transitions, capacity or environments.
        """
        size, targets = int(values["size"]), {f"leaf_{i}": stored for i, stored in enumerate(self._storage)}
        if size < self._capacity:
            check_cursor(size, int(values["cursor"]), self._capacity)
        if self._num_steps > 1:
            targets["successor"] = self._successor
            latest = arrays.get("latest")
            if latest is None or latest.shape != self._latest.shape:
                raise ValueError(
                    "the saved replay buffer holds no sequences, or those of another number of environments"
                )
        for name, stored in targets.items():
            if size > self._capacity or name not in arrays or arrays[name].shape != (size, *stored.shape[1:]):
                raise ValueError("the saved replay buffer has other transitions or another capacity")
        for name, stored in targets.items():
            rest = stored.shape[0] - size
            filled = np.pad(arrays[name], [(0, rest), *[(0, 0)] * (stored.shape.rank - 1)])
            stored.assign(filled)
        if self._num_steps > 1:
            self._latest.assign(latest)
        self._cursor.assign(int(values["cursor"]))
        self._size.assign(size)
