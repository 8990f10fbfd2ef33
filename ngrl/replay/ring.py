"""What the replay buffers have in common: a ring of items in NumPy arrays."""

from typing import Any

import numpy as np

from ngrl.checks import check_count


def _flatten(nest: Any) -> list[np.ndarray]:
    """Leaves of nested tuples and dicts (dicts by sorted key, as `tf.nest` orders them)."""
    if isinstance(nest, dict):
        return [leaf for key in sorted(nest) for leaf in _flatten(nest[key])]
    if isinstance(nest, tuple):
        return [leaf for part in nest for leaf in _flatten(part)]
    return [nest]


def _pack(structure: Any, leaves: list[Any]) -> Any:
    """Inverse of `_flatten`; takes the leaves from the front of the list."""
    if isinstance(structure, dict):
        packed = {key: _pack(structure[key], leaves) for key in sorted(structure)}
        return {key: packed[key] for key in structure}
    if isinstance(structure, tuple):
        parts = [_pack(part, leaves) for part in structure]
        return type(structure)(*parts) if hasattr(structure, "_fields") else tuple(parts)
    return leaves.pop(0)


class Ring:
    """The latest `capacity` items, each a nest of arrays.

    The content lives in NumPy arrays: adding a step costs microseconds, where a TensorFlow call costs hundreds.

    Args:
      example: One item without a batch dimension: its structure, shapes and dtypes fix the storage.
      capacity: How many items are kept.
      noun: What an item is called in errors.
      plural: The same for many.

    Raises:
      ValueError: `capacity` is not positive.
    """

    def __init__(self, example: Any, capacity: int, noun: str, plural: str):
        self._capacity = check_count("capacity", capacity)
        self._structure = example
        leaves = [np.asarray(leaf) for leaf in _flatten(example)]
        self._storage = [np.zeros((capacity, *leaf.shape), leaf.dtype) for leaf in leaves]
        self._noun = noun
        self._plural = plural
        self._cursor = 0
        self._size = 0

    def __len__(self) -> int:
        return self._size

    @property
    def capacity(self) -> int:
        """How many items are kept at most."""
        return self._capacity

    def add_batch(self, items: Any) -> None:
        """Append [B, ...] items, oldest first; the oldest content makes room.

        Raises:
          ValueError: The structure, a shape or a dtype is not the example's, or B exceeds the capacity.
        """
        leaves = [np.asarray(leaf) for leaf in _flatten(items)]
        if len(leaves) != len(self._storage):
            raise ValueError(f"a {self._noun} has {len(self._storage)} arrays, got {len(leaves)}")
        count = len(leaves[0])
        if count > self._capacity:
            raise ValueError(f"{count} {self._plural} do not fit a buffer of {self._capacity}")
        for leaf, stored in zip(leaves, self._storage, strict=True):
            if leaf.shape != (count, *stored.shape[1:]) or not np.can_cast(leaf.dtype, stored.dtype, "same_kind"):
                raise ValueError(
                    f"expected arrays of shape {(count, *stored.shape[1:])} and dtype {stored.dtype}, "
                    f"got {leaf.shape} and {leaf.dtype}"
                )
        slots = (self._cursor + np.arange(count)) % self._capacity
        for leaf, stored in zip(leaves, self._storage, strict=True):
            stored[slots] = leaf
        self._cursor = int((self._cursor + count) % self._capacity)
        self._size = min(self._size + count, self._capacity)

    @property
    def num_bytes(self) -> int:
        """Bytes of the storage."""
        return sum(stored.nbytes for stored in self._storage)

    def stored(self) -> Any:
        """All items that are kept, in no order: views [len, ...]."""
        return self._gather(slice(self._size))

    def _gather(self, index: Any) -> Any:
        """The items at these places, leaves [*index.shape, ...]."""
        return _pack(self._structure, [stored[index] for stored in self._storage])

    def _check_filled(self) -> None:
        if not self._size:
            raise ValueError("can't sample from an empty replay buffer")

    def state(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Everything later draws depend on: arrays (the filled part only) and plain JSON values."""
        arrays = {f"leaf_{i}": stored[: self._size] for i, stored in enumerate(self._storage)}
        return arrays, {"cursor": self._cursor, "size": self._size}

    def restore(self, arrays: dict[str, np.ndarray], values: dict[str, Any]) -> None:
        """Set the state that `state()` returned.

        Raises:
          ValueError: The arrays do not fit this buffer's items or capacity.
        """
        size = int(values["size"])
        if size < self._capacity:
            check_cursor(size, int(values["cursor"]), self._capacity)
        loaded = [arrays.get(f"leaf_{i}") for i in range(len(self._storage))]
        for leaf, stored in zip(loaded, self._storage, strict=True):
            if leaf is None or size > self._capacity or leaf.shape != (size, *stored.shape[1:]):
                raise ValueError(f"the saved replay buffer has other {self._plural} or another capacity")
        for leaf, stored in zip(loaded, self._storage, strict=True):
            stored[:size] = leaf
        self._size = size
        self._cursor = int(values["cursor"])


def check_cursor(size: int, cursor: int, capacity: int) -> None:
    """Refuse what was saved of a full buffer of another capacity: the next item's place would be in its middle.

    Raises:
      ValueError: It was.
    """
    if cursor != size % capacity:
        raise ValueError("the saved replay buffer is a full one of another capacity")
