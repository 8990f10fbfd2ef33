"""TF-Agents, imported without its noise on the terminal, and without `gym`.

TF-Agents 0.19 has `is ()` comparisons that Python reports as SyntaxWarnings whenever it compiles the files anew, and
imports the retired `gym`, which prints a notice, has no wheel and serves nothing that ngrl uses: its place is taken
while TF-Agents is imported. Its own environments for gym can still be had where gym is installed:
`from tf_agents.environments import suite_gym`.

Import this module before anything of `tf_agents`; a package of ngrl does so first thing in its `__init__`, or takes
the names it needs from here.
"""

import sys
import types
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from ngrl import _releases  # (ngrl selects Keras 2 before TensorFlow is imported)

if not _releases.has_tf_agents():
    raise ImportError(_releases.TF_AGENTS_MISSING)


class _Gym(types.ModuleType):
    """Stands in for gym; TF-Agents passes over the modules that really need it."""

    def __getattr__(self, name: str) -> types.ModuleType:
        raise ImportError(f"TF-Agents' gym.{name} needs gym: pip install gym==0.23.0")


@contextmanager
def _without_notices() -> Iterator[None]:
    """Keep gym away while importing, and what Python says of TF-Agents' old syntax."""
    stands_in = sys.modules.setdefault("gym", _Gym("gym"))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SyntaxWarning)
            warnings.simplefilter("ignore", DeprecationWarning)
            yield
    finally:
        if isinstance(stands_in, _Gym):
            del sys.modules["gym"]


with _without_notices():
    import tf_agents
    from tf_agents.environments import py_environment
    from tf_agents.specs import array_spec
    from tf_agents.trajectories import time_step

__all__ = ["array_spec", "py_environment", "tf_agents", "time_step"]
