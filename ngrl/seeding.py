"""Where all random numbers come from: named streams, of which no two share a draw.

A run's seed, a stream's name and counters fix a draw; nothing else does, so that whoever keeps the counters resumes bit
for bit (replay keeps its generator's state). No seed is derived in any other way, by arithmetic on another seed least
of all: then one run's draws for one purpose are soon its own for another purpose, or its neighbour's.
`tests/test_seeding.py` sees to it.

Imports neither TensorFlow nor gin, and NumPy when the first number is asked for: commands read their options with it.
"""

import enum
import numbers
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

LIMIT = 2**31

#: The generator that stateless draws name. Where none is named, XLA takes one that is a hundred times as slow on a CPU.
GENERATOR = "philox"


class Stream(enum.IntEnum):
    """All streams, with the counters that tell their draws apart. A number once given never changes its meaning."""

    TRAINING_EPISODES = 0  # environments' episodes: member, episode
    EVALUATION_EPISODES = 1  # those of evaluations and videos: member, episode
    ACTIONS = 2  # the acting policy's, and exploration: the loop's calls
    REPLAY = 3  # replayed minibatches or trajectories; of trajectories: rounds, first
    REPLAYED_UPDATES = 4  # how many updates ACER replays: rounds
    POLICY_MINIBATCHES = 5  # their order: train step
    CRITIC_MINIBATCHES = 6  # the same of the critic's fit: train step
    CRITIC_DRAWS = 7  # actions of the policy's over which the dueling critic averages: train step
    ACTOR_WEIGHTS = 8  # first weights; these and the next five: layer
    VALUE_WEIGHTS = 9
    Q_WEIGHTS = 10
    DUELING_VALUE_WEIGHTS = 11
    DUELING_ADVANTAGE_WEIGHTS = 12
    LIBRARIES = 13  # the global generators of Python, NumPy and TensorFlow, for what is not ngrl's
    POINTS = 14  # data that examples and tools make up: which set
    FISHER_SAMPLES = 15  # of the examples' sampled Fisher: step
    BOOTSTRAP = 16  # of reports
    KILLS = 17  # moments at which tools/chaos.py kills
    TRUNK_WEIGHTS = 18  # first weights of convolutions: the stream of their network's weights, layer
    FACTOR_TARGETS = 19  # of K-FAC's sampled factors: step
    FACTOR_SKETCHES = 20  # of K-FAC's factors of low rank: the place of the layer's kernel, inputs or derivatives
    INTERIM_EPISODES = 21  # episodes of evaluations amid training, the same in each of them: member, episode
    CHECK_ACTIONS = 22  # with which an environment is checked before training


def check_seed(seed: Any, name: str = "seed") -> int:
    """The seed of a run as an int.

    Raises:
      ValueError: It is not an integer in [0, 2^31); the message calls it by `name`.
    """
    whole = isinstance(seed, numbers.Integral) and not isinstance(seed, bool)  # NumPy's integers too
    if not whole or not 0 <= seed < LIMIT:
        raise ValueError(f"{name} must lie between 0 and {LIMIT - 1}, got {seed!r}")
    return int(seed)


def generator(seed: int, stream: Stream, *counters: int) -> "np.random.Generator":
    """A generator on the host.

    Args:
      seed: The run's seed.
      stream: What for.
      *counters: Which draw, in [0, 2^32).

    Raises:
      ValueError: `seed` is not in [0, 2^31).
    """
    import numpy as np

    return np.random.default_rng(_sequence(seed, stream, counters))


def integer(seed: int, stream: Stream, *counters: int) -> int:
    """A seed in [0, 2^31) for what takes nothing better: environments, Keras' initializers. See `generator`."""
    return int(_sequence(seed, stream, counters).generate_state(1)[0]) >> 1


def key(seed: int, stream: Stream, *counters: int) -> "np.ndarray":
    """A stream inside graphs, two integers [2] (int32); `at` gives the seeds of its draws. See `generator`."""
    import numpy as np

    return _sequence(seed, stream, counters).generate_state(2).view(np.int32)


_constant_keys = 0


def constant_keys() -> int:
    """How often `at` was given a key that is an array: tells whether a graph made meanwhile holds one as a constant."""
    return _constant_keys


def at(stream_key: Any, counter: Any) -> Any:
    """The seed [2] (int32) of a stream's draw number `counter`, for TensorFlow's stateless functions.

    Args:
      stream_key: From `key`.
      counter: An int, or a scalar int32 tensor. Streams start 2^64 numbers apart at random; these count up from there.
    """
    import numpy as np

    global _constant_keys
    _constant_keys += isinstance(stream_key, np.ndarray)
    return stream_key + counter * np.array([0, 1], np.int32)


def _sequence(seed: int, stream: Stream, counters: tuple[int, ...]) -> "np.random.SeedSequence":
    import numpy as np

    # Spawn keys, not entropy: NumPy keeps sequences of different keys apart, whatever their seeds.
    return np.random.SeedSequence(check_seed(seed), spawn_key=(int(stream), *counters))
