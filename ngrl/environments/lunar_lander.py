"""LunarLander with the observation bounds of its version 2."""

import math
from typing import Any

import numpy as np
from gymnasium import spaces
from gymnasium.envs.box2d.lunar_lander import LunarLander

# gymnasium 0.29's LunarLander-v2: position, velocity, angle, angular velocity, the two legs.
_LIMIT = np.array([1.5, 1.5, 5.0, 5.0, math.pi, 5.0, 1.0, 1.0], dtype=np.float32)
_LOWEST = np.array([-1.5, -1.5, -5.0, -5.0, -math.pi, -5.0, -0.0, -0.0], dtype=np.float32)


class LunarLanderV2(LunarLander):
    """`ngrl/LunarLander-v2`: v2-compatible, registered because gymnasium refuses `LunarLander-v2`.

    The physics is gymnasium's own (its version 3): an episode with the same seed and actions is the same as
    `LunarLander-v3`'s. Only the declared observation bounds differ: ±1.5, ±5 and ±π where version 3 says
    ±2.5, ±10 and ±2π. As in version 2 a lander in flight may leave these bounds; they are declared, not
    enforced.
    """

    def __init__(self, **kwargs: Any):
        """Take the keyword arguments of gymnasium's LunarLander."""
        super().__init__(**kwargs)
        self.observation_space = spaces.Box(_LOWEST, _LIMIT)
