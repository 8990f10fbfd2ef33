"""Gymnasium environments as batched TF-Agents environments, with exact episode boundaries and exact resume.

`load` makes one by name. Importing this package registers ngrl's own environments with gymnasium
(`ngrl.environments.registration`) and imports neither TensorFlow nor TF-Agents, so that the worker processes
of an asynchronous vector environment start quickly; both are imported when something of it is first used.
"""

import importlib
from typing import TYPE_CHECKING, Any

from ngrl.environments import registration
from ngrl.environments.faults import EnvironmentFault

if TYPE_CHECKING:
    from ngrl.environments.backends import (
        AsyncEnvironments,
        Backend,
        CompiledEnvironments,
        EnvpoolEnvironments,
        RayEnvironments,
        SyncEnvironments,
    )
    from ngrl.environments.bridge import GymnasiumEnvironment
    from ngrl.environments.checking import EnvironmentReport, check_environment
    from ngrl.environments.loading import Environment, load
    from ngrl.environments.member import Episode, episode_seed
    from ngrl.environments.preprocessing import ActionRepeat, AtariPreprocessing, Preprocessing
    from ngrl.environments.vector import Transition, VectorEnvironment

__all__ = [
    "ActionRepeat",
    "AsyncEnvironments",
    "AtariPreprocessing",
    "Backend",
    "CompiledEnvironments",
    "Environment",
    "EnvironmentFault",
    "EnvironmentReport",
    "EnvpoolEnvironments",
    "Episode",
    "GymnasiumEnvironment",
    "Preprocessing",
    "RayEnvironments",
    "SyncEnvironments",
    "Transition",
    "VectorEnvironment",
    "check_environment",
    "episode_seed",
    "load",
]

registration.register()


def __getattr__(name: str) -> Any:
    for module in ("member", "vector", "backends", "loading", "preprocessing", "checking") if name in __all__ else ():
        if (found := getattr(importlib.import_module(f"{__name__}.{module}"), name, None)) is not None:
            return found
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
