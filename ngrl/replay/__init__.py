"""Replay buffers: seeded and checkpointable."""

from ngrl.replay.compiled import CompiledReplayBuffer
from ngrl.replay.experience import MEMORY, Experience
from ngrl.replay.frames import FrameReplayBuffer
from ngrl.replay.sequences import SequenceReplayBuffer, Sequences
from ngrl.replay.trajectories import BEHAVIOUR, TrajectoryReplayBuffer, check_behaviour
from ngrl.replay.uniform import Transition, UniformReplayBuffer

__all__ = [
    "BEHAVIOUR",
    "MEMORY",
    "CompiledReplayBuffer",
    "Experience",
    "FrameReplayBuffer",
    "SequenceReplayBuffer",
    "Sequences",
    "TrajectoryReplayBuffer",
    "Transition",
    "UniformReplayBuffer",
    "check_behaviour",
]
