"""A replay buffer of whole trajectories, for agents that correct for the policy that acted."""

from typing import Any

import numpy as np

from ngrl.replay.ring import Ring

#: Where a trajectory's `policy_info` keeps the parameters of the distribution that its actions were drawn from.
BEHAVIOUR = "behaviour_parameters"


def check_behaviour(trajectories: Any) -> None:
    """Refuse trajectories whose `policy_info` does not say what the behaviour policy was.

    Raises:
      ValueError: They lack them.
    """
    info = trajectories.policy_info
    if not isinstance(info, dict) or BEHAVIOUR not in info:
        raise ValueError(
            f"trajectories without behaviour probabilities can't be replayed: their policy_info lacks '{BEHAVIOUR}' "
            "(logits, or means and log standard deviations), which AcerAgent's collect_policy gives"
        )


class TrajectoryReplayBuffer(Ring):
    """A ring of the latest `capacity` trajectories, sampled uniformly with replacement.

    It holds no generator: what is drawn depends on its content and on the generator that each call gives.

    Args:
      example: One TF-Agents `Trajectory` with leaves [T, ...], whose `policy_info` holds `BEHAVIOUR`.
      capacity: How many trajectories are kept.

    Raises:
      ValueError: `capacity` is not positive, or the example lacks behaviour probabilities.
    """

    def __init__(self, example: Any, capacity: int):
        check_behaviour(example)
        super().__init__(example, capacity, "trajectory", "trajectories")

    def add_batch(self, items: Any) -> None:
        """Append trajectories [B, T, ...], oldest first; the oldest content makes room.

        Raises:
          ValueError: They lack behaviour probabilities, the structure, a shape or a dtype is not the example's, or B
            exceeds the capacity.
        """
        check_behaviour(items)
        super().add_batch(items)

    def sample(self, generator: np.random.Generator, *shape: int) -> Any:
        """Independent uniform draws with leaves of shape [*shape, T, ...].

        Args:
          generator: Draws them; with the content it fixes what is drawn.
          *shape: For example updates and trajectories in each.

        Raises:
          ValueError: The buffer is empty.
        """
        self._check_filled()
        return self._gather(generator.integers(self._size, size=shape))
