"""Replay buffers: seeded and checkpointable."""

from ngrl.replay.experience import Experience
from ngrl.replay.trajectories import BEHAVIOUR, TrajectoryReplayBuffer, check_behaviour
from ngrl.replay.uniform import Transition, UniformReplayBuffer

__all__ = ["BEHAVIOUR", "Experience", "TrajectoryReplayBuffer", "Transition", "UniformReplayBuffer", "check_behaviour"]
