"""Run experiments over seeds and print what they reached.

    .venv/bin/python tools/scores.py gin/ngdqn_lunar.gin --seeds 0 1 2
    .venv/bin/python tools/scores.py gin/dqn_*.gin --seeds 0 1 2 --jobs 2

Each run is an ordinary run directory, `<runs>/<experiment>-seed<N>`; one that has finished is not run again, one that
was interrupted goes on. With several jobs every run has one thread. The table is Markdown; the last line is JSON.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from concurrent import futures
from pathlib import Path
from typing import Any


def experiment(gin_file: Path) -> str:
    """The experiment's name; that of gin/paper/x.gin is paper-x."""
    folder = gin_file.resolve().parent.name
    return gin_file.stem if folder == "gin" else f"{folder}-{gin_file.stem}"


def run_one(gin_file: Path, seed: int, runs: Path, threads: int) -> dict[str, Any]:
    """What one run reached: `final` of its run.json."""
    root = runs / f"{experiment(gin_file)}-seed{seed}"
    record = root / "run.json"
    if not record.exists() or json.loads(record.read_text())["status"] != "finished":
        environment = dict(os.environ)
        if threads:
            environment.update(TF_NUM_INTRAOP_THREADS=str(threads), TF_NUM_INTEROP_THREADS=str(threads))
        command = [sys.executable, "-m", "ngrl.launch", f"--gin_file={gin_file}", f"--root_dir={root}"]
        command += [f"--seed={seed}", "--noprogress"]
        result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if result.returncode:
            raise RuntimeError(f"{' '.join(command)} failed: {result.stderr.strip()}")
    return json.loads(record.read_text())["final"]


def score(gin_files: list[Path], seeds: list[int], runs: Path, jobs: int = 1) -> dict[str, dict[int, dict[str, Any]]]:
    """Finals by experiment and seed; `jobs` runs at a time."""
    threads = 1 if jobs > 1 else 0
    with futures.ThreadPoolExecutor(jobs) as pool:
        pending = {
            (experiment(gin_file), seed): pool.submit(run_one, gin_file, seed, runs, threads)
            for gin_file in gin_files
            for seed in seeds
        }
        results: dict[str, dict[int, dict[str, Any]]] = {}
        for (name, seed), future in pending.items():
            results.setdefault(name, {})[seed] = future.result()
            print(f"{name} seed {seed}: best {results[name][seed]['best_100_episode_mean']}", file=sys.stderr)
    return results


def shown(value: float | None) -> str:
    """A score with one decimal; a dash where a run was too short for one."""
    return "–" if value is None else f"{value:.1f}"


def table(results: dict[str, dict[int, dict[str, Any]]]) -> str:
    """The results as a Markdown table with a line of means for each experiment."""
    lines = [
        "| experiment | seed | best 100-episode mean | reached at env step | final 100-episode mean "
        "| greedy, 100 fresh episodes | minutes |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, by_seed in results.items():
        for seed, final in by_seed.items():
            lines.append(
                f"| {name} | {seed} | {shown(final['best_100_episode_mean'])} | {final['best_at_env_steps']:,} "
                f"| {shown(final['final_100_episode_mean'])} | {final['evaluation']['mean']:.1f} "
                f"| {final['wall_s'] / 60:.1f} |"
            )
        if any(final["best_100_episode_mean"] is None for final in by_seed.values()):
            continue
        best, last, greedy, minutes = (
            statistics.mean(values)
            for values in zip(
                *(
                    (f["best_100_episode_mean"], f["final_100_episode_mean"], f["evaluation"]["mean"], f["wall_s"] / 60)
                    for f in by_seed.values()
                ),
                strict=True,
            )
        )
        lines.append(f"| **{name}** | mean | **{best:.1f}** | | {last:.1f} | {greedy:.1f} | {minutes:.1f} |")
    return "\n".join(lines)


def main() -> None:
    """Parse the command line, run, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("gin_files", nargs="+", type=Path, metavar="FILE", help="experiments")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2], metavar="N", help="default: 0 1 2")
    parser.add_argument("--runs", type=Path, default=Path("runs/scores"), metavar="DIR", help="default: runs/scores")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="runs at a time (default: 1)")
    options = parser.parse_args()
    missing = [str(path) for path in options.gin_files if not path.is_file()]
    if missing:
        parser.error(f"no such gin file: {', '.join(missing)}")
    try:
        results = score(options.gin_files, options.seeds, options.runs, max(options.jobs, 1))
    except RuntimeError as error:
        sys.exit(f"scores: {error}")
    print(table(results))
    last = {
        name: {
            seed: {"best_100_episode_mean": final["best_100_episode_mean"], "greedy": final["evaluation"]["mean"]}
            for seed, final in by_seed.items()
        }
        for name, by_seed in results.items()
    }
    print(json.dumps(last))


if __name__ == "__main__":
    main()
