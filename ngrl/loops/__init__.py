"""Loops: step environments, ask an agent for actions, store, update, and hand over all state that a run saves."""

from ngrl import _tf_agents  # noqa: F401  isort: skip  (or what to install)
from ngrl.loops.exploration import ExponentialEpsilon, LinearEpsilon
from ngrl.loops.loop import NonFiniteError, TrainingLoop
from ngrl.loops.off_policy import OffPolicyLoop
from ngrl.loops.on_policy import OnPolicyLoop
from ngrl.loops.state import LoopState
from ngrl.loops.statistics import EpisodeStatistics
from ngrl.loops.trajectory_replay import TrajectoryReplayLoop

__all__ = [
    "EpisodeStatistics",
    "ExponentialEpsilon",
    "LinearEpsilon",
    "LoopState",
    "NonFiniteError",
    "OffPolicyLoop",
    "OnPolicyLoop",
    "TrainingLoop",
    "TrajectoryReplayLoop",
]
