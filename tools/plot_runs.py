"""Draw learning curves of run directories: mean return of the latest 100 episodes against environment steps.

    .venv/bin/python tools/plot_runs.py runs/scores/*lunar* --out docs/images/curves.png

Runs whose names differ in `-seed<N>` alone share a colour and one panel holds one environment. Dashed lines are the
published mean of NGDQN (Knight & Lerner 2018).
"""

import argparse
import csv
import json
import re
from collections import defaultdict
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np

matplotlib.use("Agg")
from matplotlib import pyplot as plt

WINDOW = 100
# Mean over ten trials of the best 100-episode mean, NGDQN without target network.
PUBLISHED = {"CartPole-v0": 200.0, "CartPole-v1": 499.0, "Acrobot-v1": -63.2, "LunarLander-v3": 108.2}
COLOURS = ("#1b6ca8", "#d1603d", "#4c956c", "#7d5ba6", "#8d99ae")


def curve(run: Path) -> tuple[np.ndarray, np.ndarray]:
    """Environment steps and running 100-episode means of a run."""
    with (run / "episodes.csv").open(encoding="utf-8") as file:
        rows = [(int(row["env_steps"]), float(row["return"])) for row in csv.DictReader(file)]
    steps, returns = (np.array(column, float) for column in zip(*rows, strict=True))
    sums = np.cumsum(np.insert(returns, 0, 0.0))
    return steps[WINDOW - 1 :], (sums[WINDOW:] - sums[:-WINDOW]) / WINDOW


def label(name: str) -> str:
    """A reader's name for an experiment."""
    for prefix, text in (("ngdqn", "NGDQN, no target network"), ("dqn", "DQN (Adam), target network")):
        if name.startswith(prefix):
            return text
    return name


def dress(axis: Any, legend_size: float) -> None:
    """Grid, legend and frame of a panel."""
    axis.grid(alpha=0.25)
    axis.legend(fontsize=legend_size, loc="lower right", framealpha=0.9)
    axis.spines[["top", "right"]].set_visible(False)


def save(figure: Any, out: Path) -> None:
    """Write a PNG, and say where."""
    figure.tight_layout()
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, dpi=110)
    print(out)


def main() -> None:
    """Parse the command line and draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, help="run directories")
    parser.add_argument("--out", type=Path, required=True, help="the PNG to write")
    options = parser.parse_args()
    panels: dict[str, dict[str, list[Path]]] = defaultdict(lambda: defaultdict(list))
    for run in sorted(options.runs):
        env_id = json.loads((run / "run.json").read_text())["config"]["run.env_id"].strip("'")
        panels[env_id][re.sub(r"-seed\d+$", "", run.name)].append(run)
    columns = min(2, len(panels))
    figure, axes = plt.subplots(
        -(-len(panels) // columns), columns, figsize=(5.4 * columns, 3.3 * -(-len(panels) // 2))
    )
    for axis, (env_id, experiments) in zip(np.atleast_1d(axes).flat, sorted(panels.items()), strict=False):
        for colour, (name, runs) in zip(COLOURS, sorted(experiments.items(), reverse=True), strict=False):
            for number, run in enumerate(runs):
                steps, means = curve(run)
                text = f"{label(name)}, {len(runs)} seeds" if number == 0 else None
                axis.plot(steps / 1e3, means, color=colour, alpha=0.85, linewidth=1.3, label=text)
        if env_id in PUBLISHED:
            axis.axhline(PUBLISHED[env_id], color="0.35", linestyle="--", linewidth=0.9, label="published NGDQN")
        axis.set_title(env_id, fontsize=11)
        axis.set_xlabel("environment steps (thousands)", fontsize=9)
        axis.set_ylabel("mean return, 100 episodes", fontsize=9)
        dress(axis, legend_size=7.5)
    save(figure, options.out)


if __name__ == "__main__":
    main()
