"""Training runs: the loop, metrics, checkpoints, export, evaluation."""

from ngrl import _tf_agents  # noqa: F401  isort: skip  (quiet import of tf_agents, before anything of it)
from ngrl.training.checkpoints import CheckpointError, CheckpointStore, LoopState
from ngrl.training.evaluation import EvaluationResult, evaluate
from ngrl.training.experiment import Result, run
from ngrl.training.exploration import ExponentialEpsilon, LinearEpsilon
from ngrl.training.export import PolicyError, export_policy, load_policy
from ngrl.training.loop import NonFiniteError
from ngrl.training.metrics import Episode, EpisodeStatistics
from ngrl.training.off_policy import OffPolicyLoop
from ngrl.training.on_policy import OnPolicyLoop
from ngrl.training.run_directory import RunDirectory, RunDirectoryError
from ngrl.training.stopping import Interrupted
from ngrl.training.trajectory_replay import TrajectoryReplayLoop

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
    "evaluate",
    "export_policy",
    "load_policy",
    "run",
]
