"""CartPole as a problem with hidden state."""

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.envs.classic_control.cartpole import CartPoleEnv

_SEEN = [0, 2]  # of (x, ẋ, θ, θ̇)


class MaskedCartPole(gymnasium.ObservationWrapper):
    """`ngrl/MaskedCartPole-v1`: gymnasium's CartPole-v1, observed (x, θ), float32 [2], without the velocities."""

    metadata = CartPoleEnv.metadata  # gymnasium 1.2 looks for it in the class, where a wrapper has a property

    def __init__(self, **kwargs: Any) -> None:
        """Take the arguments of CartPole."""
        super().__init__(CartPoleEnv(**kwargs))
        seen: Any = self.env.observation_space
        self.observation_space = spaces.Box(seen.low[_SEEN], seen.high[_SEEN], dtype=np.float32)

    def observation(self, observation: np.ndarray) -> np.ndarray:
        """Position and angle."""
        return observation[_SEEN]
