"""TF-Agents, imported without its noise on the terminal.

TF-Agents 0.19 imports the retired `gym`, which prints an end-of-life notice, and has `is ()` comparisons that
Python reports as SyntaxWarnings whenever it compiles the files anew. Neither concerns a user of ngrl. Import
this module before anything of `tf_agents`; a package of ngrl does so first thing in its `__init__`, or takes
the names it needs from here.
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import ngrl  # noqa: F401  (selects Keras 2 before TensorFlow is imported)


@contextmanager
def _without_notices() -> Iterator[None]:
    """Empty gym's table of notices, and ignore what Python says of TF-Agents' old syntax, while importing."""
    try:
        from gym_notices import notices
    except ImportError:  # gym has nothing to print then
        table: dict[str, str] = {}
    else:
        table = notices.notices
    kept = dict(table)
    table.clear()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SyntaxWarning)
            warnings.simplefilter("ignore", DeprecationWarning)
            yield
    finally:
        table.update(kept)


with _without_notices():
    import tf_agents
    from tf_agents.environments import py_environment
    from tf_agents.specs import array_spec
    from tf_agents.trajectories import time_step

__all__ = ["array_spec", "py_environment", "tf_agents", "time_step"]
