"""Replay buffers: seeded and checkpointable."""

from ngrl.replay.uniform import Transition, UniformReplayBuffer

__all__ = ["Transition", "UniformReplayBuffer"]
