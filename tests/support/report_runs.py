"""Run directories of reports, whose numbers are known."""

import csv
import json

import numpy as np

import ngrl

ENVIRONMENTS = {
    "cartpole_v0": "CartPole-v0",
    "cartpole_v1": "CartPole-v1",
    "acrobot": "Acrobot-v1",
    "lunar": "LunarLander-v3",
}

HEADER = "episode,env_steps,train_steps,return,length,wall_s\n"


def write_run(folder, name, env_id, levels, status="finished", **changes):
    """A run of 100 episodes at each level of return; an episode has 10 steps, a second 100."""
    root_dir = folder / name
    root_dir.mkdir(parents=True)
    returns = np.repeat(np.asarray(levels, float), 100)
    rows = [f"{n},{10 * n},{n},{value},10,{0.1 * n:.3f}\n" for n, value in enumerate(returns, start=1)]
    (root_dir / "episodes.csv").write_text(HEADER + "".join(rows))
    (root_dir / "operative_config.gin").write_text(f'Environment.env_id = "{env_id}"\n')
    record = {
        "command": f"/home/someone/ngrl/launch.py --gin_file=gin/x.gin --root_dir={root_dir} --seed=0",
        "versions": {"ngrl": ngrl.__version__},
        "status": status,
        "config": {"Environment.env_id": repr(env_id)},
        "seed": int(name.rpartition("seed")[2].partition(".")[0]),
        "final": {
            "env_steps": 10 * len(returns),
            "episodes": len(returns),
            "best_100_episode_mean": max(levels),
            "best_at_env_steps": 1000,
            "final_100_episode_mean": levels[-1],
            "wall_s": 0.1 * len(returns),
            "skipped_updates": 0,
            "evaluation": {"mean": levels[-1] + 1, "returns": [levels[-1] + 1]},
        },
        **changes,
    }
    (root_dir / "run.json").write_text(json.dumps(record))
    return root_dir


def rows(path):
    """The lines of a CSV file."""
    with path.open() as file:
        return list(csv.DictReader(file))
