"""What agents learn from, by which they fit a training loop."""

import enum

#: Where a trajectory's `policy_info` keeps what a recurrent policy remembered before each step.
MEMORY = "memory"


class Experience(enum.Enum):
    """The kinds of experience; an agent and a loop that fit name the same."""

    TRANSITIONS = "replayed transitions"
    TRAJECTORIES = "trajectories of the present policy"
    REPLAYED_TRAJECTORIES = "trajectories, replayed ones too, that say how likely each action was"
