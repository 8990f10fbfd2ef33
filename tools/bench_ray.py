"""The part of `bench.py` that times a simulator of 20 ms a step: sixteen members in Ray actors against one process."""

import time
from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
from bench_rounds import interleave, quartiles, ratios

MEMBERS = 16
STEP_S = 0.02
GOAL = 8.0


class Sleeping(gymnasium.Env):
    """A simulator on a processor of its own: it lets this one be for a step's time."""

    observation_space = gymnasium.spaces.Box(-1.0, 1.0, (32,), np.float32)
    action_space = gymnasium.spaces.Box(-1.0, 1.0, (8,), np.float32)

    def __init__(self, seconds: float):
        self._seconds = seconds

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """All observations are 0."""
        super().reset(seed=seed)
        return np.zeros(32, np.float32), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Sleep."""
        time.sleep(self._seconds)
        return np.zeros(32, np.float32), 0.0, False, False, {}


def step_rate(environment: Any, seconds: float) -> Callable[[], float]:
    """Env-steps/s, by the clock, of an environment that has been warmed up."""
    actions = np.zeros((environment.batch_size, 8), np.float32)
    environment.reset_arrays()
    for _ in range(3):
        environment.step_arrays(actions)

    def run() -> float:
        start, steps = time.perf_counter(), 0
        while time.perf_counter() - start < seconds:
            environment.step_arrays(actions)
            steps += len(actions)
        return steps / (time.perf_counter() - start)

    return run


def measure_ray(rounds: int, seconds: float) -> dict[str, Any]:
    """Steps of sixteen members, one after another in this process and each in an actor of its own."""
    from ngrl import environments

    gymnasium.register("Sleeping-v0", Sleeping, kwargs={"seconds": STEP_S})
    backends = {"process": environments.SyncEnvironments(), "ray": environments.RayEnvironments()}
    loaded = {name: environments.load("Sleeping-v0", MEMBERS, backend=backend) for name, backend in backends.items()}
    rates = interleave({name: step_rate(environment, seconds) for name, environment in loaded.items()}, rounds)
    for environment in loaded.values():
        environment.close()
    return {
        f"{MEMBERS} members, {1000 * STEP_S:g} ms a step": {
            "env_steps_per_second": {name: quartiles(values) for name, values in rates.items()},
            "ray_over_process": {**ratios(rates["ray"], rates["process"]), "goal": f">= {GOAL}"},
        }
    }
