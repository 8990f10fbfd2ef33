"""Draw Hoagland's Fig. 4: the returns of ten agents on the toy task, by policy gradient and by natural gradients.

    .venv/bin/python tools/scores.py gin/examples/toy_*.gin --seeds 0 1 2 3 4 5 6 7 8 9 --runs runs/toy
    .venv/bin/python tools/plot_toy.py runs/toy/* --out docs/images/toy_fig4.png

Thin lines are agents, bold ones their means, over updates of the policy. A point is the mean return of an update's
episodes and of those of the nine before. Prints Markdown: what the agents of each kind reached.
"""

import argparse
import itertools
import re
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np

from ngrl import figures
from ngrl.runs.episodes import Episodes

WINDOW = 10
LABELS = {"toy_pg": "policy gradient", "toy_npg": "natural policy gradient", "toy_nac": "episodic natural actor-critic"}


def curve(run: Path) -> tuple[np.ndarray, np.ndarray]:
    """Updates made, and the mean return of their episodes over the latest `WINDOW` of them."""
    episodes = Episodes.read(run / "episodes.csv")
    by_update: dict[int, list[float]] = defaultdict(list)
    for update, episode_return in zip(episodes.train_steps, episodes.returns, strict=True):
        by_update[int(update)].append(float(episode_return))
    updates = sorted(by_update)
    sums = np.array([sum(by_update[update]) for update in updates])
    counts = np.array([len(by_update[update]) for update in updates], float)
    ones = np.ones(WINDOW)
    # The first points have fewer updates behind them.
    means = np.convolve(sums, ones)[: len(sums)] / np.convolve(counts, ones)[: len(sums)]
    return np.array(updates), means


def label(name: str) -> str:
    """A reader's name for an experiment."""
    return LABELS.get(name.removeprefix("examples-"), name)


def main() -> None:
    """Parse the command line, draw, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, help="run directories, <experiment>-seed<N>")
    parser.add_argument("--out", type=Path, required=True, help="the PNG to write")
    options = parser.parse_args()
    experiments: dict[str, list[Path]] = defaultdict(list)
    for run in sorted(options.runs):
        if not (run / "episodes.csv").is_file():
            sys.exit(f"plot_toy: {run} is no run directory: it holds no episodes.csv")
        experiments[re.sub(r"-seed\d+$", "", run.name)].append(run)
    figure, (axis,) = figures.new_panels(1, 1, 7.2, 4.2)
    print(f"| | agents | mean return of the first {WINDOW} updates | of the last {WINDOW} |\n| --- | --- | --- | --- |")
    for colour, (name, runs) in zip(
        itertools.cycle(figures.COLOURS), sorted(experiments.items(), reverse=True), strict=False
    ):
        curves = [curve(run) for run in runs]
        shortest = min(len(updates) for updates, _ in curves)
        agents = np.array([means[:shortest] for _, means in curves])
        updates, mean = curves[0][0][:shortest], agents.mean(axis=0)
        axis.plot(updates, agents.T, color=colour, alpha=0.25, linewidth=0.8)
        axis.plot(updates, mean, color=colour, linewidth=2.4, label=f"{label(name)}, {len(runs)} agents")
        print(f"| {label(name)} | {len(runs)} | {mean[min(WINDOW, shortest) - 1]:.2f} | {mean[-1]:.2f} |")
    title = "a ~ N(μ, σ²) from μ = 10, σ = 14; r = −s² − a²"
    figures.tidy(axis, title, "updates of the policy", "return of an episode")
    axis.legend(fontsize=8, loc="lower right", framealpha=0.9)
    figures.save(figure, options.out)


if __name__ == "__main__":
    main()
