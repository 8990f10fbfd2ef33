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
    if not isinstance(owner, kind):
        return False
    own = vars(owner)
    return all(name not in own and getattr(type(owner), name) is getattr(kind, name) for name in methods)
