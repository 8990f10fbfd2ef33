"""Draw learning curves of run directories: mean return of the latest 100 episodes against environment steps.

    .venv/bin/python tools/plot_runs.py runs/scores/*lunar* --out curves.png

Runs whose names differ in `-seed<N>` alone share a colour and one panel holds one environment. Dashed lines are the
published mean of NGDQN (Knight & Lerner 2018). `python -m ngrl.report` makes tables and more pictures of the same runs.
"""

import argparse
import itertools
import sys
from collections import defaultdict
from pathlib import Path

from ngrl import figures
from ngrl.reports import runs as run_directories
from ngrl.reports.published import by_environment


def main() -> None:
    """Parse the command line and draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, help="run directories")
    parser.add_argument("--out", type=Path, required=True, help="the PNG to write")
    options = parser.parse_args()
    try:
        found, left_out = run_directories.collect(options.runs, any_version=True)
    except run_directories.MixedRunsError as error:
        sys.exit(f"plot_runs: {error}")
    for line in left_out:
        print(f"plot_runs: {line}", file=sys.stderr)
    if not found:
        sys.exit("plot_runs: no run that is over")
    panels: dict[str, dict[str, list[run_directories.Run]]] = defaultdict(lambda: defaultdict(list))
    for run in found:
        panels[run.env_id][run.method].append(run)
    figure, axes = figures.new_panels(len(panels), 2, 5.4, 3.3)
    for axis, (env_id, methods) in zip(axes, sorted(panels.items()), strict=True):
        for colour, (method, members) in zip(
            itertools.cycle(figures.COLOURS), sorted(methods.items(), reverse=True), strict=False
        ):
            for number, run in enumerate(members):
                label = f"{method}, {len(members)} seeds" if number == 0 else None
                axis.plot(
                    run.curve.env_steps / 1e3, run.curve.means, color=colour, alpha=0.85, linewidth=1.3, label=label
                )
        if env_id in by_environment():
            score = by_environment()[env_id].score
            axis.axhline(score, color="0.35", linestyle="--", linewidth=0.9, label="published NGDQN")
        figures.tidy(axis, env_id, "environment steps (thousands)", "mean return, 100 episodes")
        axis.legend(fontsize=7.5, loc="lower right", framealpha=0.9)
    figures.save(figure, options.out)


if __name__ == "__main__":
    main()
