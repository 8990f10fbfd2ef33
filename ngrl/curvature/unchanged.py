"""Whether an object does what its class is known to do, or what a subclass or its owner has made of it."""

from typing import Any, TypeGuard, TypeVar

_Kind = TypeVar("_Kind")


def is_unchanged(owner: Any, kind: type[_Kind], *methods: str) -> TypeGuard[_Kind]:
    """Whether an object is of a class and has the class's own version of some methods.

    Args:
      owner: The object.
      kind: A class. A subclass is taken too, unless it overrides one of `methods`, or the object has its own.
      *methods: Names of methods of `kind`.
    """
    return inherits(owner, kind, *methods) and not any(name in vars(owner) for name in methods)


def inherits(owner: Any, kind: type, *methods: str) -> bool:
    """As `is_unchanged`, whatever the object has of its own: while a network is recorded, so have its layers."""
    return isinstance(owner, kind) and all(getattr(type(owner), name) is getattr(kind, name) for name in methods)
