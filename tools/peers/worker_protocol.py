"""What a worker of `tools/compare_peers.py` speaks: lines on standard input and output.

    worker → ready                                   built, warmed up, compiled
    tool   → run 8192                                train for (at least) 8,192 environment steps
    worker → {"env_steps": 8192, "seconds": 1.9, "update_seconds": [0.2, 0.2, 0.2, 0.2]}

Standard input's end ends the worker. What libraries print, C++ ones included, goes to standard error. Workers run under
two Pythons with different packages, so this module imports nothing but the standard library.
"""

import dataclasses
import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any, TextIO

# Performs that many environment steps; the number performed, and each update's seconds where they can be told.
Run = Callable[[int], tuple[int, list[float] | None]]


@dataclasses.dataclass(frozen=True)
class Settings:
    """What both sides of a row share, but for the number of environments.

    Attributes:
      algorithm: "trpo", "npg", "ppo", "pqn", "dqn" or "ngdqn"; of a row that compares steps of optimizers the method.
      env_id: A gymnasium id; of a row that compares steps of optimizers a name in `networks.NETWORKS`.
      hidden: Widths of the hidden layers of every network.
      activation: "tanh" or "relu".
      minibatch: Transitions in a minibatch: the critic's (TRPO, NPG), the whole agent's (PPO, PQN, DQN); examples.
      epochs: Passes over the batch: the critic's (TRPO, NPG), the whole agent's (PPO, PQN); DQN has none.
      batch_steps: Environment steps in an on-policy batch, over all environments.
      cg_iterations: Most iterations of conjugate gradients (TRPO, NPG).
      num_envs: Environments stepped together.
      threads: Threads of the numerical library; 0 for its own default.
      gin_file: ngrl's experiment; empty for peers.
      bindings: What else is bound on ngrl's side.
      compiled: Whether ngrl's environments are compiled.
      processor_time: Whether seconds are the processor's, not the clock's.
    """

    algorithm: str
    env_id: str
    hidden: tuple[int, ...]
    activation: str
    minibatch: int
    epochs: int = 0
    batch_steps: int = 2_048
    cg_iterations: int = 15
    num_envs: int = 8
    threads: int = 0
    gin_file: str = ""
    bindings: tuple[str, ...] = ()
    compiled: bool = False
    processor_time: bool = False

    @property
    def is_on_policy(self) -> bool:
        """Whether it trains once a batch of fresh steps, not from replay."""
        return self.algorithm in ("trpo", "npg", "ppo", "pqn")

    def to_json(self) -> str:
        """One line that `from_json` reads."""
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "Settings":
        """What `to_json` wrote."""
        values = json.loads(text)
        return cls(**{**values, "hidden": tuple(values["hidden"]), "bindings": tuple(values["bindings"])})


# DQN's, the same on both sides. Exploration is at its end from the start, because a random action needs no network.
REPLAY_CAPACITY = 50_000
WARMUP_STEPS = 1_000
TARGET_PERIOD = 500
EPSILON = 0.05


_processor_time = False


def now() -> float:
    """Seconds, by the clock that the settings ask for."""
    return time.process_time() if _processor_time else time.perf_counter()


class Stopwatch:
    """Wraps a function and keeps the seconds of each call."""

    def __init__(self, function: Callable[..., Any]):
        self._function = function
        self._seconds: list[float] = []

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """What the function returns."""
        start = now()
        result = self._function(*args, **kwargs)
        self._seconds.append(now() - start)
        return result

    def take(self) -> list[float]:
        """Seconds of each call since the last `take`."""
        seconds, self._seconds = self._seconds, []
        return seconds


def quickest(ways: list[Callable[[], None]], steps: int) -> Run:
    """A worker's `run`, by that of some ways to make so many steps that is the quickest once all is compiled."""
    taken = []
    for way in ways:
        way()
        start = now()
        way()
        taken.append(now() - start)
    chosen = ways[taken.index(min(taken))]

    def run(count: int) -> tuple[int, list[float]]:
        start, calls = now(), -(-count // steps)
        for _ in range(calls):
            chosen()
        return calls * steps, [(now() - start) / (calls * steps)]

    return run


def limit_torch(threads: int) -> None:
    """Set torch's threads; 0 leaves its default."""
    if threads:
        import torch

        torch.set_num_threads(threads)
        torch.set_num_interop_threads(threads)


def limit_tensorflow(threads: int) -> None:
    """Set TensorFlow's threads; 0 leaves its default."""
    if threads:
        import tensorflow as tf

        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(threads)


def limit_jax(threads: int) -> None:
    """Set JAX's threads, before it is imported; 0 leaves its default."""
    if threads:
        os.environ["NPROC"] = str(threads)  # of the CPU client's pool
        os.environ["XLA_FLAGS"] = f"--xla_cpu_multi_thread_eigen={str(threads > 1).lower()}"


def answer(lines: Any, channel: TextIO, run: Run) -> None:
    """Say that the worker is ready, and do what the lines ask for.

    Raises:
      ValueError: A line is not `run N` with a positive N.
    """
    print("ready", file=channel, flush=True)
    for line in lines:
        command, _, number = line.strip().partition(" ")
        if command != "run" or not number.isdigit() or int(number) < 1:
            raise ValueError(f"expected 'run N', got {line.strip()!r}")
        start = now()
        env_steps, update_seconds = run(int(number))
        seconds = now() - start
        result = {"env_steps": env_steps, "seconds": seconds, "update_seconds": update_seconds}
        print(json.dumps(result), file=channel, flush=True)


def serve(make: Callable[[Settings], Run]) -> None:
    """Be a worker: `make` builds and warms up what the settings in the first argument ask for."""
    sys.stdout.flush()
    channel = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    settings = Settings.from_json(sys.argv[1])
    global _processor_time
    _processor_time = settings.processor_time
    answer(sys.stdin, channel, make(settings))
