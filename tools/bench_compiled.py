"""The part of `bench.py` that times whole loops: environments compiled with all else against gymnasium's."""

import copy
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench_rounds import interleave, quartiles, ratios

GIN = Path(__file__).resolve().parents[1] / "gin"
EXPERIMENTS = ("trpo_cartpole_v1", "ppo_cartpole_v1", "ngdqn_cartpole_v1")
_PARTS = ("environment", "agent", "loop")
BINDINGS: tuple[str, ...] = ()
GOAL = 5.0
#: What `measure_seeds` runs, how far, and under which seeds.
SEEDS_EXPERIMENT, SEEDS_STEPS, SEEDS = "ppo_cartpole_v1", 100_000, range(8)


def make_loop(experiment: str, backend: str, seed: int = 0, bindings: tuple[str, ...] = ()) -> Any:
    """The loop of a gin file, on a backend."""
    import gin
    from tf_agents.specs import tensor_spec

    from ngrl import configuration

    gin.clear_config()
    configuration.parse([str(GIN / f"{experiment}.gin")], [f"Environment.backend = @{backend}()", *BINDINGS, *bindings])
    # A copy, since it is then that gin makes of @a the function, and of @a() the value.
    environment, agent, loop = (copy.deepcopy(gin.query_parameter(f"run.{part}")) for part in _PARTS)
    played = environment.load(seed)
    specs = [tensor_spec.from_spec(spec()) for spec in (played.time_step_spec, played.action_spec)]
    return loop(agent(*specs, seed=seed), played, seed=seed)


def loop_rate(loop: Any, seconds: float, clock: Callable[[], float] = time.process_time) -> Callable[[], float]:
    """Env-steps/s of whole iterations, from update to update, once it has been warmed up, by a clock."""

    def iterate() -> None:
        updates = loop.train_steps
        while loop.train_steps == updates:
            loop.step()

    for _ in range(3):
        iterate()

    def run() -> float:
        start, steps = clock(), loop.statistics.env_steps
        while clock() - start < seconds:
            iterate()
        return (loop.statistics.env_steps - steps) / (clock() - start)

    return run


def measure_compiled(rounds: int, seconds: float) -> dict[str, Any]:
    """Whole iterations on CartPole-v1 with eight environments: from one update, or call of updates, to the next.

    Of on-policy loops also with the actions chosen by NumPy, on gymnasium's environments.
    """
    result = {}
    for experiment in EXPERIMENTS:
        loops = {
            "gymnasium": make_loop(experiment, "SyncEnvironments"),
            "compiled": make_loop(experiment, "CompiledEnvironments"),
        }
        if "dqn" not in experiment:
            loops["on_host"] = make_loop(experiment, "SyncEnvironments", bindings=("OnPolicyLoop.act_on_host = True",))
        rates = interleave({name: loop_rate(loop, seconds) for name, loop in loops.items()}, rounds)
        result[experiment] = {
            "env_steps_per_second": {name: quartiles(values) for name, values in rates.items()},
            "compiled_over_gymnasium": {**ratios(rates["compiled"], rates["gymnasium"]), "goal": f">= {GOAL}"},
        }
        if "on_host" in rates:
            result[experiment]["on_host_over_gymnasium"] = ratios(rates["on_host"], rates["gymnasium"])
    return result


def measure_seeds(rounds: int, seconds: float) -> dict[str, Any]:
    """Seconds of processor time a seed, from making its loop to the last update: many in one process against one."""
    from ngrl.loops.compiled import sharing

    del seconds

    def train(seed: int) -> None:
        loop = make_loop(SEEDS_EXPERIMENT, "CompiledEnvironments", seed)
        while loop.statistics.env_steps < SEEDS_STEPS:
            loop.step()

    def alone() -> float:
        start = time.process_time()
        train(SEEDS[0])
        return time.process_time() - start

    def together() -> float:
        start = time.process_time()
        with sharing():
            for seed in SEEDS:
                train(seed)
        return (time.process_time() - start) / len(SEEDS)

    times = interleave({"alone": alone, "together": together}, rounds)
    return {
        "seconds_per_seed": {name: quartiles(values) for name, values in times.items()},
        "alone_over_together": {**ratios(times["alone"], times["together"]), "goal": ">= 3.0"},
    }
