"""Gymnasium spaces as TF-Agents specs, and the arrays that go with them."""

from collections.abc import Callable
from typing import Any

import numpy as np
from gymnasium import spaces

from ngrl import specs
from ngrl._tf_agents import array_spec

Convert = Callable[[Any], Any]

# So many numbers are told one by one.
_FEW = 8


def observation_spec(space: spaces.Space, env_id: str) -> Any:
    """The spec of an observation space: an ArraySpec, or a dict of them.

    Floats become float32 and lose their bounds: environments leave the bounds they declare (a random policy
    takes LunarLander out of its version 2's in a third of the episodes) and TF-Agents' checks would stop
    there. Integers keep their bounds, and the name says which of them are categories (`ngrl.specs`): those of
    Discrete and MultiDiscrete, not those of a Box. Bools become the quantities 0 and 1. Arrays of uint8, int32 and
    int64 keep their dtype, other integers become int32 or int64: TF-Agents draws numbers of no others.

    Args:
      space: A Box, a Discrete, a MultiDiscrete, a MultiBinary, whose bits are the quantities 0 and 1, or a Dict of
        these (nested as deep as you like).
      env_id: The environment's name, for the message.

    Raises:
      ValueError: Any other space, or a Dict with keys that are no texts, or of which paths are the same.
    """
    spec = _observation_spec(space, env_id, "observation")
    names = [name for name, _ in leaves(spec)]
    twice = [name for name in names if names.count(name) > 1]
    if twice:  # by which a saved state knows its parts
        raise ValueError(f"{env_id}: two parts of the observation are {twice[0]}: call a key with a / otherwise")
    return spec


def _observation_spec(space: spaces.Space, env_id: str, name: str) -> Any:
    if isinstance(space, spaces.Dict) and space.spaces:
        keys: list[Any] = [key for key in space.spaces if not isinstance(key, str)]
        if keys:  # which no SavedModel has
            raise ValueError(f"{env_id}: the keys of {name} must be texts, got {keys[0]!r}")
        return {key: _observation_spec(part, env_id, f"{name}[{key!r}]") for key, part in space.spaces.items()}
    if isinstance(space, spaces.Discrete):
        return _discrete_spec(space, first=_integer(space.start), name=name)
    if isinstance(space, spaces.MultiBinary):
        space = spaces.Box(0, 1, space.shape, space.dtype)
    if isinstance(space, spaces.MultiDiscrete):
        last = space.start + space.nvec - 1
        return array_spec.BoundedArraySpec(space.shape, _kept(space), space.start, last, name=specs.categories(name))
    if isinstance(space, spaces.Box) and np.issubdtype(space.dtype, np.floating):
        return array_spec.ArraySpec(space.shape, np.float32, name=name)
    if isinstance(space, spaces.Box):
        dtype = _kept(space)
        low, high = (_in_range(bound).astype(dtype) for bound in (space.low, space.high))
        return array_spec.BoundedArraySpec(
            space.shape, dtype, low, high, name=name if space.shape else specs.quantities(name)
        )
    raise ValueError(
        f"{env_id}: {name} space {_text(space)} is not supported; ngrl takes Box, Discrete, MultiDiscrete, MultiBinary "
        "and Dict"
    )


def action_spec(space: spaces.Space, env_id: str) -> array_spec.BoundedArraySpec:
    """The spec of an action space: Discrete and MultiDiscrete count from 0 whatever their start.

    A MultiDiscrete or MultiBinary is a vector whatever its shape, and so is a Box of floats, of float32, their elements
    in NumPy's order. Its bounds are within the space's own.

    Args:
      space: A Discrete, a MultiDiscrete, a MultiBinary, a Box of floats, or one of integers, which is for agents of
        your own.
      env_id: The environment's name, for the message.

    Raises:
      ValueError: Any other space, or a Box without elements.
    """
    if isinstance(space, spaces.Discrete):
        return _discrete_spec(space, first=0, name="action")
    if isinstance(space, spaces.MultiDiscrete | spaces.MultiBinary) and np.prod(space.shape):
        last, dtype = _counts(space) - 1, np.int64 if np.dtype(space.dtype).itemsize == 8 else np.int32
        return array_spec.BoundedArraySpec(last.shape, dtype, np.zeros_like(last), last, name="action")
    if isinstance(space, spaces.Box) and np.issubdtype(space.dtype, np.floating) and space.low.size:
        low, high = (bound.reshape(-1) for bound in _finite_bounds(space))
        return array_spec.BoundedArraySpec(low.shape, np.float32, *_within(low, high), name="action")
    if isinstance(space, spaces.Box) and np.issubdtype(space.dtype, np.integer):
        name = specs.quantities("action") if space.shape else "action"
        return array_spec.BoundedArraySpec(space.shape, space.dtype, space.low, space.high, name=name)
    raise ValueError(
        f"{env_id}: action space {_text(space)} is not supported; ngrl's agents take Discrete, MultiDiscrete, "
        "MultiBinary and Box of floats"
    )


def _counts(space: spaces.MultiDiscrete | spaces.MultiBinary) -> np.ndarray:
    """How many choices each element of an action has [n]."""
    nvec = space.nvec if isinstance(space, spaces.MultiDiscrete) else np.full(space.shape, 2)
    return nvec.reshape(-1).astype(np.int64)


def _finite_bounds(space: spaces.Box) -> tuple[np.ndarray, np.ndarray]:
    """A space's bounds in its dtype, without the infinite ones, which no number lies beyond."""
    if not np.issubdtype(space.dtype, np.floating):
        return space.low, space.high
    dtype: Any = space.low.dtype
    limit = np.finfo(dtype).max
    return np.maximum(space.low, -limit), np.minimum(space.high, limit)


def _within(low: np.ndarray, high: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The widest float32 bounds within others: the nearest ones may lie outside, and 1.8e308 is far beyond them."""
    limit = np.finfo(np.float32).max
    low32, high32 = (np.clip(bound, -limit, limit).astype(np.float32) for bound in (low, high))
    inner_low = np.where(low32 < low, np.nextafter(low32, np.float32(np.inf)), low32)
    inner_high = np.where(high32 > high, np.nextafter(high32, np.float32(-np.inf)), high32)
    between = inner_low <= inner_high  # else no float32 lies within, and the nearest has to do
    return np.where(between, inner_low, low32), np.where(between, inner_high, high32)


def observation_converter(space: spaces.Space) -> Convert:
    """A function from a batch of observations to new arrays in the spec's dtypes, safe to keep."""
    if isinstance(space, spaces.Dict):
        parts = {key: observation_converter(part) for key, part in space.spaces.items()}
        return lambda batch: {key: convert(batch[key]) for key, convert in parts.items()}
    dtype = np.dtype(np.float32) if np.issubdtype(space.dtype, np.floating) else _kept(space)
    return lambda batch: np.array(batch, dtype=dtype)


def action_converter(
    space: spaces.Space, num_envs: int, env_id: str, check_finite: bool = True
) -> Callable[[Any], np.ndarray]:
    """A function from a batch of actions as the spec has them to what the environment takes.

    It raises a ValueError when the batch's shape is wrong, a discrete action is out of range, or a continuous
    one is not finite; without `check_finite` it takes 0 for that. Those of a Box are clipped to the space's own bounds,
    in its own dtype: in float32 0.1 is more than 0.1 in float64.
    """
    shape = (num_envs, *action_spec(space, env_id).shape)
    dtype = space.dtype

    def check_shape(actions: np.ndarray) -> None:
        if actions.shape != shape:
            raise ValueError(f"{env_id}: actions must have shape {shape}, got {actions.shape}")

    def convert_discrete(actions: Any) -> np.ndarray:
        actions = np.asarray(actions)
        check_shape(actions)
        if actions.dtype.kind not in "iu":
            raise ValueError(f"{env_id}: actions must be integers, got dtype {actions.dtype}")
        wide = actions.astype(np.int64)  # before the space's own dtype, which may be too small for what is out of range
        # One comparison for both ends: a negative action, read as unsigned, is larger than any space.
        if (wide.view(np.uint64) >= count).any():
            raise ValueError(f"{env_id}: actions must lie in 0 to {count - 1}, got {actions.tolist()}")
        return (wide if start == 0 else wide + start).astype(dtype, copy=False)

    def convert_box(actions: Any) -> np.ndarray:
        actions = np.asarray(actions)
        check_shape(actions)
        finite = np.isfinite(actions)
        if not finite.all():
            if check_finite:
                raise ValueError(f"{env_id}: actions must be finite, these are not: {not_finite(actions)}")
            actions = np.where(finite, actions, np.zeros((), actions.dtype))
        # Before the cast, which would turn numbers beyond the dtype over; it keeps an order that is there.
        clipped = np.minimum(np.maximum(actions.reshape(-1, *low.shape), low), high)
        return clipped.astype(dtype, copy=False)

    if isinstance(space, spaces.Discrete):
        count, start = _integer(space.n), _integer(space.start)
        return convert_discrete
    if isinstance(space, spaces.MultiDiscrete | spaces.MultiBinary):
        return _choices_converter(space, check_shape, env_id)
    assert isinstance(space, spaces.Box)  # as `action_spec` has seen to
    low, high = _finite_bounds(space)
    return convert_box


def _choices_converter(
    space: spaces.MultiDiscrete | spaces.MultiBinary, check_shape: Callable[[np.ndarray], None], env_id: str
) -> Callable[[Any], np.ndarray]:
    counts, starts = _counts(space), _starts(space)

    def convert(actions: Any) -> np.ndarray:
        actions = np.asarray(actions)
        check_shape(actions)
        if actions.dtype.kind not in "iu":
            raise ValueError(f"{env_id}: actions must be integers, got dtype {actions.dtype}")
        if ((actions < 0) | (actions >= counts)).any():
            raise ValueError(f"{env_id}: actions must lie in 0 to {(counts - 1).tolist()}, got {actions.tolist()}")
        return (actions.reshape(-1, *starts.shape) + starts).astype(space.dtype)

    return convert


def describe_converter(space: spaces.Space) -> dict[str, Any]:
    """What `action_converter` does, as JSON values, for those who act without ngrl.

    Args:
      space: One that `action_spec` takes.

    Returns:
      `start`, to whose shape a discrete action is brought and added; or `low` and `high`, to whose shape an action is
      brought, and within which it is clipped; and the `dtype` that it is given then.
    """
    if isinstance(space, spaces.Discrete | spaces.MultiDiscrete | spaces.MultiBinary):
        return {"start": _starts(space).tolist(), "dtype": str(space.dtype)}
    assert isinstance(space, spaces.Box)  # as `action_spec` has seen to
    low, high = _finite_bounds(space)
    return {"low": low.tolist(), "high": high.tolist(), "dtype": str(space.dtype)}


def _starts(space: Any) -> np.ndarray:
    """What a discrete action counts from in its environment, in its shape."""
    return np.zeros(space.shape, np.int64) if isinstance(space, spaces.MultiBinary) else np.asarray(space.start)


def not_finite(array: np.ndarray) -> str:
    """What of an array isn't finite, in a few words."""
    if array.size <= _FEW:
        return f"{array.tolist()}"
    places = np.argwhere(~np.isfinite(array))
    return f"{len(places):,} of {array.size:,} numbers, the first at {places[0].tolist()}"


def leaves(nest: Any, name: str = "observation") -> list[tuple[str, Any]]:
    """The arrays (or specs) of an observation, named "observation", or "observation/key" in a dict."""
    if isinstance(nest, dict):
        return [leaf for key in sorted(nest) for leaf in leaves(nest[key], f"{name}/{key}")]
    return [(name, nest)]


def _discrete_spec(space: spaces.Discrete, first: int, name: str) -> array_spec.BoundedArraySpec:
    return array_spec.BoundedArraySpec((), _kept(space), first, first + _integer(space.n) - 1, name=name)


def _kept(space: spaces.Space) -> np.dtype:
    """The dtype in which integers and bools are handed on."""
    dtype: Any = np.dtype(space.dtype)
    if dtype == np.bool_ or (dtype == np.uint8 and space.shape):
        return np.dtype(np.uint8)
    return dtype if dtype in (np.int32, np.int64) else np.dtype(np.int32 if dtype.itemsize < 4 else np.int64)


def _in_range(bound: np.ndarray) -> np.ndarray:
    """A bound that int64 can hold."""
    return np.minimum(bound, np.uint64(np.iinfo(np.int64).max)) if bound.dtype == np.uint64 else bound


def _integer(value: Any) -> int:
    return int(value)  # gymnasium types the fields of a Discrete loosely


def _text(space: spaces.Space) -> str:
    text = " ".join(str(space).split())
    if len(text) > 100 and isinstance(space, spaces.Box | spaces.MultiDiscrete):  # the bounds make it long
        return f"{type(space).__name__}(..., {space.shape}, {space.dtype})"
    return text if len(text) <= 100 else text[:97] + "..."
