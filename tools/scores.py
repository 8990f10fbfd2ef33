"""Run experiments over seeds and print what they reached.

    .venv/bin/python tools/scores.py gin/ngdqn_lunar.gin --seeds 0 1 2
    .venv/bin/python tools/scores.py gin/dqn_*.gin --seeds 0 1 2 --jobs 2

Each run is an ordinary run directory, `<runs>/<experiment>-seed<N>`; one that has finished is not run again, one that
was interrupted goes on. The table is Markdown; the last line is JSON.
"""

import argparse
import json
import statistics
import sys
from concurrent import futures
from pathlib import Path
from typing import Any

from ngrl import modules
from ngrl.configuration import binding as configuration
from ngrl.configuration import operative
from ngrl.runs.directory import check_same_experiment
from ngrl.runs.record import Status, read_record, status_of
from ngrl.studies.trials import Trial, TrialProcess, experiment_name, seeds_of


def run_one(trial: Trial, runs: Path, running: list[TrialProcess]) -> dict[str, Any]:
    """What one run reached: `final` of its run.json.

    Raises:
      RuntimeError: It failed, it trains no agent, or what is in its directory is another run or can't be read.
    """
    root = runs / trial.name
    record = read_record(root)
    if status_of(record) is Status.FINISHED:
        _check_same(trial, root, record)
    else:
        with TrialProcess(trial, root) as process:
            running.append(process)
            if process.wait():
                raise RuntimeError(f"{trial.command(root)} failed: {process.complaint()}")
        record = read_record(root)
    if "best_100_episode_mean" not in record["final"]:
        raise RuntimeError(f"{trial.gin_file} trains no agent: it has no scores")
    return record["final"]


def _check_same(trial: Trial, root: Path, record: dict[str, Any]) -> None:
    try:
        bindings = configuration.read(
            [trial.gin_file], [], trial.allow_gin_import, {"seed": str(trial.seed)}, "--seeds"
        )
    except configuration.ConfigurationError as error:
        raise RuntimeError(str(error)) from error
    check_same_experiment(root, record, configuration.identity_of(bindings), operative.default, complete=False)


def score(trials: list[Trial], runs: Path, jobs: int = 1) -> tuple[dict[str, dict[int, dict[str, Any]]], list[str]]:
    """Finals by experiment and seed, and what the other runs failed of; `jobs` runs at a time."""
    running: list[TrialProcess] = []
    with futures.ThreadPoolExecutor(jobs) as pool:
        pending = {(trial.cell, trial.seed): pool.submit(run_one, trial, runs, running) for trial in trials}
        results: dict[str, dict[int, dict[str, Any]]] = {}
        failures = []
        try:
            for (name, seed), future in pending.items():
                try:
                    final = future.result()
                except RuntimeError as error:  # a run that failed, or a run.json that can't be read
                    failures.append(str(error))
                    continue
                results.setdefault(name, {})[seed] = final
                print(f"{name} seed {seed}: best {results[name][seed]['best_100_episode_mean']}", file=sys.stderr)
        except KeyboardInterrupt:
            pool.shutdown(wait=False, cancel_futures=True)
            for process in running:
                process.stop()
            raise
    return results, failures


def trials_of(gin_files: list[Path], seeds: list[int], allow_gin_import: tuple[str, ...] = ()) -> list[Trial]:
    """A trial of each experiment with each seed.

    Raises:
      ValueError: The seeds are none, or out of range, or one is given twice.
    """
    return [
        Trial(experiment_name(gin_file), str(gin_file), seed, allow_gin_import=allow_gin_import)
        for gin_file in gin_files
        for seed in seeds_of(seeds)
    ]


def greedy(final: dict[str, Any]) -> float | None:
    """The mean of the final evaluation; None where `Evaluation.episodes` is 0."""
    return final.get("evaluation", {}).get("mean")


def shown(value: float | None, form: str = ".1f") -> str:
    """A score with one decimal; a dash where a run was too short for one, or evaluates nothing."""
    return "–" if value is None else f"{value:{form}}"


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
                f"| {name} | {seed} | {shown(final['best_100_episode_mean'])} "
                f"| {shown(final['best_at_env_steps'], ',')} | {shown(final['final_100_episode_mean'])} "
                f"| {shown(greedy(final))} | {final['wall_s'] / 60:.1f} |"
            )
        lacking = sum(final["best_100_episode_mean"] is None for final in by_seed.values())
        if lacking:
            lines.append(f"| **{name}** | no mean: {lacking} of {len(by_seed)} runs have no score | | | | | |")
            continue
        best, last, minutes = (
            statistics.mean(values)
            for values in zip(
                *(
                    (f["best_100_episode_mean"], f["final_100_episode_mean"], f["wall_s"] / 60)
                    for f in by_seed.values()
                ),
                strict=True,
            )
        )
        played = [mean for final in by_seed.values() if (mean := greedy(final)) is not None]
        all_played = statistics.mean(played) if len(played) == len(by_seed) else None
        lines.append(f"| **{name}** | mean | **{best:.1f}** | | {last:.1f} | {shown(all_played)} | {minutes:.1f} |")
    return "\n".join(lines)


def main() -> None:
    """Parse the command line, run, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("gin_files", nargs="+", type=Path, metavar="FILE", help="experiments")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2], metavar="N", help="default: 0 1 2")
    parser.add_argument("--runs", type=Path, default=Path("runs/scores"), metavar="DIR", help="default: runs/scores")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="runs at a time (default: 1)")
    modules.add_option(parser)
    options = parser.parse_args()
    missing = [str(path) for path in options.gin_files if not path.is_file()]
    if missing:
        parser.error(f"no such gin file: {', '.join(missing)}")
    try:
        trials = trials_of(options.gin_files, options.seeds, tuple(options.allow_gin_import))
    except ValueError as error:
        sys.exit(f"scores: {error}")
    try:
        results, failures = score(trials, options.runs, max(options.jobs, 1))
    except KeyboardInterrupt:
        sys.exit("scores: stopped; the same command goes on")
    print(table(results))
    last = {
        name: {
            seed: {"best_100_episode_mean": final["best_100_episode_mean"], "greedy": greedy(final)}
            for seed, final in by_seed.items()
        }
        for name, by_seed in results.items()
    }
    print(json.dumps(last))
    if failures:
        sys.exit("\n".join(f"scores: {line}" for line in failures))


if __name__ == "__main__":
    main()
