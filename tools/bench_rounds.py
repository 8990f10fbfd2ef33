"""What the parts of `bench.py` share: turns, ratios, and the time of an update inside a compiled call."""

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

from ngrl import seeding


def quartiles(values: list[float]) -> dict[str, float]:
    """Median and quartiles of at least two values."""
    low, median, high = statistics.quantiles(values, n=4)
    return {"median": round(median, 3), "q1": round(low, 3), "q3": round(high, 3)}


def interleave(runs: dict[Any, Callable[[], float]], rounds: int) -> dict[Any, list[float]]:
    """Call every function in turn, `rounds` times; each returns a rate or a time."""
    measured: dict[Any, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            measured[name].append(run())
    return measured


def ratios(numerator: list[float], denominator: list[float]) -> dict[str, float]:
    """Median and quartiles of each round's ratio."""
    return quartiles([a / b for a, b in zip(numerator, denominator, strict=True)])


def quickest(times: dict[tuple[str, ...], list[float]], kind: str) -> tuple[str, ...]:
    """Of the variants whose keys begin with a kind, the quickest by its median."""
    return min((key for key in times if key[0] == kind), key=lambda key: statistics.median(times[key]))


def quickest_over_quickest(times: dict[tuple[str, ...], list[float]], goal: float) -> dict[str, Any]:
    """The quickest variant of the natural gradient, by its median, over Adam's; keys begin with the optimizer."""
    adam, natural = quickest(times, "adam"), quickest(times, "natural")
    return {
        "milliseconds": {" ".join(key): quartiles(values) for key, values in times.items()},
        "quickest": {"adam": " ".join(adam[1:]), "natural": " ".join(natural[1:])},
        "natural_over_adam": {**ratios(times[natural], times[adam]), "goal": f"<= {goal}"},
    }


def in_process(command: list[str], **variables: str) -> str:
    """What a Python process of its own prints, with more environment variables: TensorFlow reads some but once."""
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", **variables}
    result = subprocess.run([sys.executable, *command], capture_output=True, text=True, env=environment, check=False)
    if result.returncode:
        sys.exit(f"bench: {' '.join(command)} failed:\n{result.stderr}")
    return result.stdout


def normal(*shapes: list[int]) -> Any:
    """A float32 tensor of standard normal numbers for each shape."""
    import tensorflow as tf

    generator = seeding.generator(0, seeding.Stream.POINTS)
    return [tf.constant(generator.normal(size=shape), tf.float32) for shape in shapes]


def q_learning_spec(shape: list[int], num_actions: int) -> tuple[Any, Any]:
    """The specs of time steps with float observations, and of the actions."""
    import tensorflow as tf
    from tf_agents.specs import tensor_spec
    from tf_agents.trajectories import time_step as ts

    observation_spec = tensor_spec.TensorSpec(shape, tf.float32)
    return ts.time_step_spec(observation_spec), tensor_spec.BoundedTensorSpec([], tf.int64, 0, num_actions - 1)


def timed_updates(
    agent: Any,
    shape: list[int],
    num_actions: int,
    batch: int,
    updates: int,
    compiled: bool,
    calls: int = 0,
    clock: Callable[[], float] = time.perf_counter,
) -> Callable[[], float]:
    """Milliseconds of one update inside a call of so many, a graph or compiled by XLA; so many calls a round."""
    import tensorflow as tf

    from ngrl.loops.off_policy import as_transition
    from ngrl.loops.updates import many_updates
    from ngrl.replay import Transition

    generator = seeding.generator(0, seeding.Stream.POINTS)
    rows = (updates, batch)

    def observations() -> Any:
        return tf.constant(generator.normal(size=(*rows, *shape)), tf.float32)

    batches = Transition(
        observations(),
        tf.constant(generator.integers(num_actions, size=rows)),
        tf.constant(generator.normal(size=rows), tf.float32),
        tf.ones(rows),
        observations(),
    )

    def update(index: Any) -> Any:
        return agent.train(as_transition(tf.nest.map_structure(lambda leaf: leaf[index], batches)))

    call = tf.function(lambda: many_updates(update, agent.zero_extra(), updates, tf.zeros(2))[0], jit_compile=compiled)
    call().numpy()

    calls = calls or (max(1, 256 // updates) if updates > 2 else 1)

    def run() -> float:
        start = clock()
        for _ in range(calls):
            call().numpy()
        return (clock() - start) * 1e3 / (calls * updates)

    return run
