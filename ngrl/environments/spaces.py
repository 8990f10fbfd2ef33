"""Gymnasium spaces as TF-Agents specs, and the arrays that go with them."""

from collections.abc import Callable
from typing import Any

import numpy as np
from gymnasium import spaces

from ngrl._tf_agents import array_spec

Convert = Callable[[Any], Any]


def observation_spec(space: spaces.Space, env_id: str) -> Any:
    """The spec of an observation space: an ArraySpec, or a dict of them.

    Floats become float32 and lose their bounds: environments leave the bounds they declare (a random policy
    takes LunarLander out of its version 2's in a third of the episodes) and TF-Agents' checks would stop
    there. Integers keep dtype and bounds.

    Args:
      space: A Box, a Discrete, or a Dict of these (nested as deep as you like).
      env_id: The environment's name, for the message.

    Raises:
      ValueError: Any other space.
    """
    return _observation_spec(space, env_id, "observation")


def _observation_spec(space: spaces.Space, env_id: str, name: str) -> Any:
    if isinstance(space, spaces.Dict) and space.spaces:
        return {key: _observation_spec(part, env_id, f"{name}[{key!r}]") for key, part in space.spaces.items()}
    if isinstance(space, spaces.Discrete):
        return _discrete_spec(space, first=_integer(space.start), name=name)
    if isinstance(space, spaces.Box) and np.issubdtype(space.dtype, np.floating):
        return array_spec.ArraySpec(space.shape, np.float32, name=name)
    if isinstance(space, spaces.Box) and np.issubdtype(space.dtype, np.integer):
        return array_spec.BoundedArraySpec(space.shape, space.dtype, space.low, space.high, name=name)
    raise ValueError(f"{env_id}: {name} space {_text(space)} is not supported; ngrl takes Box, Discrete and Dict")


def action_spec(space: spaces.Space, env_id: str) -> array_spec.BoundedArraySpec:
    """The spec of an action space: Discrete counts from 0 whatever its start, floats become float32.

    Args:
      space: A Discrete or a Box.
      env_id: The environment's name, for the message.

    Raises:
      ValueError: Any other space.
    """
    if isinstance(space, spaces.Discrete):
        return _discrete_spec(space, first=0, name="action")
    if isinstance(space, spaces.Box) and np.issubdtype(space.dtype, np.floating):
        # float64 bounds beyond float32 (some environments say ±1.8e308) become float32's own.
        limit = np.finfo(np.float32).max
        low, high = (np.clip(bound, -limit, limit).astype(np.float32) for bound in (space.low, space.high))
        return array_spec.BoundedArraySpec(space.shape, np.float32, low, high, name="action")
    if isinstance(space, spaces.Box) and np.issubdtype(space.dtype, np.integer):
        return array_spec.BoundedArraySpec(space.shape, space.dtype, space.low, space.high, name="action")
    raise ValueError(f"{env_id}: action space {_text(space)} is not supported; ngrl takes Discrete and Box")


def observation_converter(space: spaces.Space) -> Convert:
    """A function from a batch of observations to new arrays in the spec's dtypes, safe to keep."""
    if isinstance(space, spaces.Dict):
        parts = {key: observation_converter(part) for key, part in space.spaces.items()}
        return lambda batch: {key: convert(batch[key]) for key, convert in parts.items()}
    dtype = np.dtype(np.float32 if np.issubdtype(space.dtype, np.floating) else space.dtype)
    return lambda batch: np.array(batch, dtype=dtype)


def action_converter(space: spaces.Space, num_envs: int, env_id: str) -> Callable[[Any], np.ndarray]:
    """A function from a batch of actions as the spec has them to what the environment takes.

    It raises a ValueError when the batch's shape is wrong, a discrete action is out of range, or a continuous
    one is not finite. Continuous actions are not clipped.
    """
    shape = (num_envs, *(space.shape or ()))
    dtype = space.dtype

    def check_shape(actions: np.ndarray) -> None:
        if actions.shape != shape:
            raise ValueError(f"{env_id}: actions must have shape {shape}, got {actions.shape}")

    def convert_discrete(actions: Any) -> np.ndarray:
        actions = np.asarray(actions)
        check_shape(actions)
        if actions.dtype.kind not in "iu":
            raise ValueError(f"{env_id}: actions must be integers, got dtype {actions.dtype}")
        actions = actions.astype(dtype)
        # One comparison for both ends: a negative action, read as unsigned, is larger than any space.
        if (actions.view(f"u{actions.itemsize}") >= count).any():
            raise ValueError(f"{env_id}: actions must lie in 0 to {count - 1}, got {actions.tolist()}")
        return actions if start == 0 else actions + start

    def convert_box(actions: Any) -> np.ndarray:
        actions = np.asarray(actions)
        check_shape(actions)
        if not np.isfinite(actions).all():
            raise ValueError(f"{env_id}: actions must be finite, got {actions.tolist()}")
        return actions.astype(dtype)

    if isinstance(space, spaces.Discrete):
        count, start = _integer(space.n), _integer(space.start)
        return convert_discrete
    return convert_box


def leaves(nest: Any, name: str = "observation") -> list[tuple[str, Any]]:
    """The arrays (or specs) of an observation, named "observation", or "observation/key" in a dict."""
    if isinstance(nest, dict):
        return [leaf for key in sorted(nest) for leaf in leaves(nest[key], f"{name}/{key}")]
    return [(name, nest)]


def _discrete_spec(space: spaces.Discrete, first: int, name: str) -> array_spec.BoundedArraySpec:
    return array_spec.BoundedArraySpec((), space.dtype, first, first + _integer(space.n) - 1, name=name)


def _integer(value: Any) -> int:
    return int(value)  # gymnasium types the fields of a Discrete loosely


def _text(space: spaces.Space) -> str:
    text = " ".join(str(space).split())
    return text if len(text) <= 100 else text[:97] + "..."
