"""Training runs: the loop, metrics, checkpoints, export, evaluation.

What this package offers is imported when it is first used, so that the parts that need no TensorFlow (reading gin
files) can be used without it.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ngrl.training.checkpoints import CheckpointError, CheckpointStore, LoopState
    from ngrl.training.evaluation import EvaluationResult, evaluate
    from ngrl.training.experiment import Result, run
    from ngrl.training.exploration import ExponentialEpsilon, LinearEpsilon
    from ngrl.training.export import PolicyError, export_policy, load_policy
    from ngrl.training.files import WriteError
    from ngrl.training.loop import NonFiniteError
    from ngrl.training.metrics import Episode, EpisodeStatistics
    from ngrl.training.off_policy import OffPolicyLoop
    from ngrl.training.on_policy import OnPolicyLoop
    from ngrl.training.run_directory import RunDirectory, RunDirectoryError
    from ngrl.training.stopping import Interrupted
    from ngrl.training.trajectory_replay import TrajectoryReplayLoop

_HOMES = {
    "CheckpointError": "checkpoints",
    "CheckpointStore": "checkpoints",
    "Episode": "metrics",
    "EpisodeStatistics": "metrics",
    "EvaluationResult": "evaluation",
    "ExponentialEpsilon": "exploration",
    "Interrupted": "stopping",
    "LinearEpsilon": "exploration",
    "LoopState": "checkpoints",
    "NonFiniteError": "loop",
    "OffPolicyLoop": "off_policy",
    "OnPolicyLoop": "on_policy",
    "PolicyError": "export",
    "Result": "experiment",
    "RunDirectory": "run_directory",
    "RunDirectoryError": "run_directory",
    "TrajectoryReplayLoop": "trajectory_replay",
    "WriteError": "files",
    "evaluate": "evaluation",
    "export_policy": "export",
    "load_policy": "export",
    "run": "experiment",
}

__all__ = [
    "CheckpointError",
    "CheckpointStore",
    "Episode",
    "EpisodeStatistics",
    "EvaluationResult",
    "ExponentialEpsilon",
    "Interrupted",
    "LinearEpsilon",
    "LoopState",
    "NonFiniteError",
    "OffPolicyLoop",
    "OnPolicyLoop",
    "PolicyError",
    "Result",
    "RunDirectory",
    "RunDirectoryError",
    "TrajectoryReplayLoop",
    "WriteError",
    "evaluate",
    "export_policy",
    "load_policy",
    "run",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
