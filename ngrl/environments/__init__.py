"""Gymnasium environments as batched TF-Agents environments, with exact episode boundaries and exact resume.

`load` makes one by name. Importing this package registers ngrl's own environments with gymnasium
(`ngrl.environments.registration`) and imports neither TensorFlow nor TF-Agents, so that the worker processes
of an asynchronous vector environment start quickly; both are imported when `load` is first used.
"""

from typing import TYPE_CHECKING, Any

from ngrl.environments import registration
from ngrl.environments.faults import EnvironmentFault

if TYPE_CHECKING:
    from ngrl.environments.bridge import GymnasiumEnvironment
    from ngrl.environments.loading import load

__all__ = ["EnvironmentFault", "GymnasiumEnvironment", "load"]

registration.register()


def __getattr__(name: str) -> Any:
    if name == "load":
        from ngrl.environments.loading import load

        return load
    if name == "GymnasiumEnvironment":
        from ngrl.environments.bridge import GymnasiumEnvironment

        return GymnasiumEnvironment
    raise AttributeError(f"module 'ngrl.environments' has no attribute {name!r}")
