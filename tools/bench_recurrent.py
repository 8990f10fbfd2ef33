"""The part of `bench.py` that times updates of a network that reads sequences with a GRU.

Adam has its choice: Keras' loop over time or unrolled steps, a graph or XLA. The natural gradient unrolls in any case.
What counts is the quickest of each, by its median, in processor time.
"""

import time
from typing import Any

from bench_pixels import make_optimizer
from bench_rounds import interleave, q_learning_spec, quickest_over_quickest, timed_updates

#: Steps and numbers of an observation, GRU's units, updates a call; batches.
STEPS, WIDTH, UNITS, UPDATES = 16, 8, 64, 8
BATCHES = (32, 128)
NUM_ACTIONS = 4
GOAL = 2
VARIANTS = tuple((kind, way) for kind in ("loop", "unrolled") for way in ("graph", "xla"))


def updates(count: int, batch: int, optimizer: str, kind: str, way: str) -> Any:
    """Milliseconds of one of so many updates a call: Q-learning without target network, of the GRU's last state."""
    import tensorflow as tf

    from ngrl import agents, networks

    spec = q_learning_spec([STEPS, WIDTH], NUM_ACTIONS)
    trunk = tf.keras.layers.GRU(UNITS, unroll=kind == "unrolled")
    network = networks.QNetwork(spec[0].observation, NUM_ACTIONS, (), trunk=trunk)
    agent = agents.DqnAgent(*spec, network, make_optimizer(optimizer == "natural"))
    clock = time.process_time
    return timed_updates(agent, [STEPS, WIDTH], NUM_ACTIONS, batch, count, way == "xla", clock=clock)


def measure_gru(rounds: int, seconds: float) -> dict[str, Any]:
    """Updates inside the many-update call, of every variant in turn."""
    del seconds
    keys = [(optimizer, *variant) for optimizer in ("adam", "natural") for variant in VARIANTS]
    result = {}
    for batch in BATCHES:
        times = interleave({key: updates(UPDATES, batch, *key) for key in keys}, rounds)
        result[f"GRU({UNITS}), {STEPS} steps, B = {batch}"] = quickest_over_quickest(times, GOAL)
    return result
