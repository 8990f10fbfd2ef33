"""The part of `bench.py` that times whole loops on two cores against one."""

import time
from typing import Any

from bench_compiled import loop_rate, make_loop
from bench_rounds import interleave, quartiles, ratios

EXPERIMENTS = ("trpo_cartpole_v1", "ppo_cartpole_v1", "trpo_hopper", "ppo_hopper", "trpo_ant")
ROBOTS = ("trpo_hopper", "ppo_hopper", "trpo_ant")
GOAL = 1.3
SAME = ("Environment.num_envs = 8", "OnPolicyLoop.batch_size = 2048", "OnPolicyLoop.act_on_host = True")
#: What the second core does, by name: half of the robots, or the critic's fit; or processes do all of the stepping.
VARIANTS = {
    "one": ("SyncEnvironments", ("SyncEnvironments.cores = 1",)),
    "robots": ("SyncEnvironments", ("SyncEnvironments.cores = 2",)),
    "critic": ("SyncEnvironments", ("OnPolicyLoop.overlap_critic = True",)),
    "workers": ("AsyncEnvironments", ("AsyncEnvironments.workers = 2",)),
    "a process each": ("AsyncEnvironments", ()),
}


def measure_cores(rounds: int, seconds: float) -> dict[str, Any]:
    """Env-steps/s by the clock of whole iterations of 2,048 steps with eight environments, from update to update."""
    result = {}
    for experiment in EXPERIMENTS:
        names = list(VARIANTS) if experiment in ROBOTS else ["one", "critic"]
        loops = {name: make_loop(experiment, VARIANTS[name][0], bindings=(*SAME, *VARIANTS[name][1])) for name in names}
        rates = interleave({name: loop_rate(loop, seconds, time.perf_counter) for name, loop in loops.items()}, rounds)
        result[experiment] = {
            "env_steps_per_second": {name: quartiles(values) for name, values in rates.items()},
            **{f"{name}_over_one": {**ratios(rates[name], rates["one"]), "goal": f">= {GOAL}"} for name in names[1:]},
        }
    return result
