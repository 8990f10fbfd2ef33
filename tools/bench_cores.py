"""The part of `bench.py` that times whole loops with the critic's fit on a second core against one core for all."""

import time
from typing import Any

from bench_compiled import loop_rate, make_loop
from bench_rounds import interleave, quartiles, ratios

EXPERIMENTS = ("trpo_cartpole_v1", "ppo_cartpole_v1", "trpo_hopper", "ppo_hopper", "trpo_ant")
GOAL = 1.3
SAME = ("Environment.num_envs = 8", "OnPolicyLoop.batch_size = 2048", "OnPolicyLoop.act_on_host = True")


def measure_cores(rounds: int, seconds: float) -> dict[str, Any]:
    """Env-steps/s by the clock of whole iterations of 2,048 steps with eight environments, from update to update."""
    result = {}
    for experiment in EXPERIMENTS:
        loops = {
            name: make_loop(
                experiment, "SyncEnvironments", bindings=(*SAME, f"OnPolicyLoop.overlap_critic = {name == 'two'}")
            )
            for name in ("one", "two")
        }
        rates = interleave({name: loop_rate(loop, seconds, time.perf_counter) for name, loop in loops.items()}, rounds)
        result[experiment] = {
            "env_steps_per_second": {name: quartiles(values) for name, values in rates.items()},
            "two_over_one": {**ratios(rates["two"], rates["one"]), "goal": f">= {GOAL}"},
        }
    return result
