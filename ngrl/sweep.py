"""`python -m ngrl.sweep`: run a study, many experiments with many settings and seeds, on this machine or a cluster."""

import argparse
import dataclasses
import fnmatch
import functools
import os
import sys
import traceback
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from ngrl import modules, packaged, seeding
from ngrl.checks import check_optional_count
from ngrl.launch import pasted, tensorboard_command
from ngrl.messages import RAISED, counted, reason
from ngrl.signals import heed
from ngrl.terminal import EXIT_FAILURE, EXIT_USAGE, LibraryOutput, refuse, run_apart

if TYPE_CHECKING:
    from ngrl.runs.record import Status
    from ngrl.studies.inventory import Standing
    from ngrl.studies.study import Plan, PlannedTrial
    from ngrl.studies.trials import Trial

_EXAMPLES = """\
examples:
  python -m ngrl.sweep --study=launch/paper.gin --dry_run
  python -m ngrl.sweep --study=launch/paper.gin --jobs=2 --only 'ngdqn_*' --seeds 0 1 2
  python -m ngrl.report --runs=runs/paper --out=report

Every trial is an ordinary run directory, RUNS/STUDY/CELL-seedN. A sweep that is started again does what is missing;
trials that were interrupted go on from their checkpoints.
"""


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="ngrl.sweep",
        description="Run the trials of a study on Ray Tune.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--study", required=True, metavar="FILE", help="what to run, e.g. launch/paper.gin")
    add("--runs", default="runs", metavar="DIR", help="run directories go to DIR/STUDY (default: runs)")
    several = functools.partial(add, nargs="+", action="extend")  # an option that is repeated adds to itself
    several("--only", default=[], metavar="CELL", help="run these cells alone; * and ? match as in file names")
    several("--seeds", type=int, metavar="N", help="run these seeds instead of the study's")
    add("--shard", metavar="I/N", help="run every N-th trial from the I-th on, counted from 0: for arrays of jobs")
    add("--jobs", type=int, metavar="N", help="trials at a time (default: as many as there are cores)")
    add("--ray_address", metavar="A", help="run on the Ray cluster at HOST:PORT, or 'auto' for that of this machine")
    add(
        "--dry_run",
        action="store_true",
        help="build the experiments with their values, say what would be run, and run nothing",
    )
    add("--noprogress", action="store_true", help="show no progress, only failures and the result")
    modules.add_option(parser)
    return parser


class UsageError(Exception):
    """What is wrong with the command line."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code.

    Returns:
      0; 1 where trials failed or couldn't be run; 2 for wrong input; 128 + n for signal n.
    """
    options = build_parser().parse_args(argv)
    try:
        shard = _check(options)
    except UsageError as error:
        return refuse("sweep", error)
    return run_apart("sweep", lambda output: _run(options, shard, output), lambda: "; the same command goes on")


def _check(options: argparse.Namespace) -> tuple[int, int]:
    """Refuse what needs no reading of files to be refused; the shard."""
    if not packaged.is_there(options.study):
        raise UsageError(f"no such study: {options.study}")
    try:
        check_optional_count("--jobs", options.jobs)
        for seed in options.seeds or ():
            seeding.check_seed(seed, "--seeds")
    except ValueError as error:
        raise UsageError(str(error)) from None
    if options.shard is None:
        return 0, 1
    index, _, count = options.shard.partition("/")
    if not (index.isdecimal() and count.isdecimal() and int(index) < int(count)):
        raise UsageError(f"--shard must be I/N with I from 0 to N - 1, got {options.shard}")
    return int(index), int(count)


def _run(options: argparse.Namespace, shard: tuple[int, int], output: LibraryOutput) -> int:
    from ngrl.cluster import RayUnavailableError, check_address
    from ngrl.configuration.binding import ConfigurationError
    from ngrl.runs.record import Status
    from ngrl.studies import study
    from ngrl.studies.inventory import standings_of

    def fail(line: str, code: int) -> int:
        print(f"ngrl.sweep: {line}", file=output.terminal)
        return code

    try:
        if options.ray_address and not options.dry_run:
            check_address(options.ray_address)
        if not options.noprogress:
            print(f"{Path(options.study).stem}: reading the study", file=output.terminal)
        # Loads TensorFlow, which takes seconds.
        plan = study.read(options.study, options.allow_gin_import, options.seeds)
        chosen = _choose(plan, options.only)[shard[0] :: shard[1]]
        folder = Path(options.runs, plan.name)
        standings = standings_of(chosen, folder)
        if options.dry_run:
            standings = _built(standings, plan.name, None if options.noprogress else output.terminal)
            print(_listing(plan.name, standings, folder, plan.study.cpus_per_trial), file=output.stdout)
            return EXIT_FAILURE if any(standing.status is Status.REFUSED for standing in standings) else 0
        return _sweep(options, plan, standings, folder, output)
    except (ConfigurationError, UsageError) as error:
        return fail(str(error), EXIT_USAGE)
    except RayUnavailableError as error:
        return fail(str(error), EXIT_FAILURE)
    except RAISED as error:
        heed(error)
        traceback.print_exc()  # into the log
        line = f"{type(error).__name__}: {reason(error)}; the traceback is in {output.keep()}"
        return fail(line, EXIT_FAILURE)


def _built(standings: "list[Standing]", name: str, terminal: TextIO | None) -> "list[Standing]":
    """How trials stand once environment, agent and loop of as many have been built as hold every value of a setting.

    What can't be built, since a value is out of its range or a package is missing, is refused, as its run would be.
    """
    from ngrl.runs.record import Status

    cells = {standing.planned.trial.cell: standing.planned.trial for standing in standings if standing.status.is_to_run}
    if terminal is not None and cells:
        print(f"{name}: building what its trials run", file=terminal)
    refusals: dict[str, str] = {}
    known: set[tuple[str, str]] = set()
    suspected: set[tuple[str, str]] = set()  # what a cell holds that was refused
    for cell, trial in cells.items():
        held = {(trial.gin_file, binding) for binding in ("", *trial.bindings)}
        if not held <= known or held & suspected:
            refusals[cell] = _refusal(trial)
            known |= held
            suspected = suspected | held - {(trial.gin_file, "")} if refusals[cell] else suspected - held
    return [
        dataclasses.replace(standing, status=Status.REFUSED, note=refusal)
        if standing.status.is_to_run and (refusal := refusals.get(standing.planned.trial.cell))
        else standing
        for standing in standings
    ]


def _refusal(trial: "Trial") -> str:
    """What `ngrl.launch --dry_run` says of a trial that can't be built, in a line; "" where it can."""
    import gin

    from ngrl import configuration
    from ngrl.studies.study import same_folder
    from ngrl.training import configurables, errors
    from ngrl.training.context import DryRunOver, RunContext

    gin.clear_config()
    try:
        with same_folder():
            configuration.parse([trial.gin_file], trial.bindings, trial.allow_gin_import, {"seed": str(trial.seed)})
            configurables.main(RunContext(trial.name, noresume=True, dry_run=True))
    except DryRunOver:
        return ""
    except RAISED as error:
        heed(error)
        traceback.print_exc()  # into the log
        return errors.one_line(error)
    return ""


def _choose(plan: "Plan", patterns: Sequence[str]) -> "list[PlannedTrial]":
    """The trials whose cells match one of the patterns; all without patterns."""
    from ngrl.configuration.annotations import nearest

    cells = {planned.trial.cell for planned in plan.trials}
    for pattern in patterns:
        if not fnmatch.filter(cells, pattern):
            begun = f"{pattern}-*"  # an experiment's name alone, where a grid adds its settings
            hint = f'; did you mean "{begun}"?' if fnmatch.filter(cells, begun) else nearest(pattern, cells)
            raise UsageError(f'{plan.name} has no cell "{pattern}"{hint}')
    return [
        planned
        for planned in plan.trials
        if not patterns or any(fnmatch.fnmatch(planned.trial.cell, pattern) for pattern in patterns)
    ]


def _sweep(
    options: argparse.Namespace, plan: "Plan", standings: "list[Standing]", folder: Path, output: LibraryOutput
) -> int:
    from ngrl.runs.files import WriteError
    from ngrl.runs.record import Status
    from ngrl.studies.board import Board
    from ngrl.studies.engine import run_trials
    from ngrl.studies.hparams import write_hparams

    for standing in standings:
        if standing.note:
            print(f"{plan.name}: {standing.planned.trial.name} is left out: {standing.note}", file=output.terminal)
    to_run = [standing.planned for standing in standings if standing.status.is_to_run]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        output.move_to(folder / "sweep.log")
    except OSError as error:
        raise UsageError(f"can't write to {folder}: {error.strerror}") from None

    def over(planned: "PlannedTrial", outcome: Status) -> None:
        try:
            write_hparams(folder / planned.trial.name, planned.settings)
        except WriteError as error:  # no reason to end the trials that still run
            print(f"{plan.name}: {error}", file=output.terminal)

    for standing in standings:
        if standing.status.is_over:
            over(standing.planned, standing.status)
    board = Board(plan.name, len(to_run), folder, output.terminal, over, options.noprogress)
    try:
        if to_run:
            jobs = options.jobs or (
                None if options.ray_address else min(max(1, _cores() // plan.study.cpus_per_trial), len(to_run))
            )
            run_trials(to_run, plan.study, folder.resolve(), board, jobs, options.ray_address)
    finally:
        board.close()
    print(_summary(plan.name, standings, board.outcomes, folder), file=output.stdout)
    failed = board.outcomes[Status.FAILED] + sum(bool(standing.note) for standing in standings)
    return EXIT_FAILURE if failed else 0


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _listing(name: str, standings: "list[Standing]", folder: Path, threads: int) -> str:
    """How each trial stands, with the command of those that would be run."""
    counts = Counter(standing.status for standing in standings)
    lines = [
        f"{name}: {counted(len(standings), 'trial')} in {folder}: "
        + ", ".join(f"{n} {state}" for state, n in counts.items())
    ]
    for standing in standings:
        trial = standing.planned.trial
        line = f"{standing.status:<12} {trial.name}"
        if standing.status.is_to_run:
            line += f": {trial.command(folder / trial.name, threads)}"
        elif standing.note:
            line += f": {standing.note}"
        lines.append(line)
    return "\n".join(lines)


def _summary(name: str, standings: "list[Standing]", outcomes: "Counter[Status]", folder: Path) -> str:
    before = Counter(standing.status for standing in standings if not standing.status.is_to_run)
    counts = before + outcomes
    return "\n".join(
        [
            f"{name}: {counted(len(standings), 'trial')}: "
            + ", ".join(f"{n} {status}" for status, n in counts.items()),
            f"  report       python -m ngrl.report --runs {pasted(folder)} --out report",
            f"  TensorBoard  {tensorboard_command(folder)}",
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
