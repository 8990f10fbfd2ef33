"""The mark of what gin files may name. It is put where that is defined, and knows nothing of gin.

`ngrl.configuration` looks for it in the sources: it reads signatures there, and registers with gin what is marked.
"""

from typing import TypeVar

_T = TypeVar("_T")


def configurable(target: _T) -> _T:
    """`target` itself, whose arguments gin files may set, positional-only ones aside."""
    return target
