"""`python -m ngrl.report`: tables and pictures of what runs reached, beside the published scores."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from ngrl.launch import pasted, tensorboard_command
from ngrl.messages import counted
from ngrl.terminal import refuse, say, stoppable

_EXAMPLES = """\
examples:
  python -m ngrl.report --runs runs/paper --out report
  python -m ngrl.report --runs runs/paper --out report --results results
  python -m ngrl.report --runs runs/mujoco_solvers --out report --tags ngrl/kl ngrl/solver_residual
  tensorboard --logdir report
"""


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="ngrl.report",
        description="Make a report of runs: Markdown, CSV, pictures, and TensorBoard images.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    folders = "run directories, or folders that hold some"
    add("--runs", nargs="+", action="extend", required=True, metavar="DIR", help=folders)
    add("--out", required=True, metavar="DIR", help="where the report goes")
    add("--results", metavar="DIR", help="also copy the runs' small files to DIR; a report can be made from them again")
    tags = "tell the means of what the runs logged in TensorBoard under these tags"
    add("--tags", nargs="+", action="extend", default=[], metavar="TAG", help=tags)
    add("--any_version", action="store_true", help="take runs of other versions of ngrl too")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code: 0, or 2 for wrong input."""
    options = build_parser().parse_args(argv)
    return stoppable("report", lambda: _run(options), lambda: "; the same command makes the report anew", sys.stderr)


def _run(options: argparse.Namespace) -> int:
    folders = [Path(name) for name in options.runs]
    missing = [str(folder) for folder in folders if not os.path.isdir(folder)]
    if missing:
        return refuse("report", f"no such folder: {missing[0]}")
    for folder in folders:
        if Path(options.out).resolve() == folder.resolve():
            return refuse("report", f"--out {options.out} holds the runs of --runs: choose a folder of its own")
        if options.results and Path(options.results).resolve().is_relative_to(folder.resolve()):
            return refuse("report", f"--results {options.results} is within {folder} of --runs: choose another folder")
    for used in filter(None, (options.out, options.results)):
        if os.path.exists(os.path.join(used, "run.json")):
            return refuse("report", f"{used} is a run's directory: choose a folder of its own")

    from ngrl import figures
    from ngrl.configuration.annotations import nearest
    from ngrl.reports import report, results, runs
    from ngrl.runs.files import ReadError, WriteError

    try:
        figures.check_matplotlib()
        found, left_out = runs.collect(folders, options.any_version)
        for line in left_out:
            print(f"ngrl.report: {line}", file=sys.stderr)
        if not found:
            return refuse("report", f"no run that is over in {', '.join(options.runs)}")
        unknown = [tag for tag in options.tags if not any(tag in run.logged for run in found)]
        if unknown:
            known = {tag for run in found for tag in run.logged}
            return refuse("report", f"no run logged {unknown[0]!r}{nearest(unknown[0], known)}")
        written = report.write(found, left_out, Path(options.out), folders, options.tags, options.any_version)
    except ImportError as error:
        return refuse("report", str(error))
    except runs.MixedRunsError as error:
        return refuse("report", str(error))
    except (OSError, ReadError, WriteError) as error:
        return refuse("report", _unwritten(error))
    say(
        f"{counted(len(found), 'trial')} in {counted(written.cells, 'cell')}, "
        f"{counted(len(left_out), 'directory', 'directories')} left out",
        *(f"  {pasted(path)}" for path in written.files),
        f"  TensorBoard  {tensorboard_command(options.out)}",
    )
    try:
        if options.results:
            results.keep(found, Path(options.results))
    except (OSError, runs.MixedRunsError, ReadError, WriteError) as error:
        return refuse("report", _unwritten(error))
    return 0


def _unwritten(error: Exception) -> str:
    return f"can't write {error.filename}: {error.strerror}" if isinstance(error, OSError) else str(error)


if __name__ == "__main__":
    sys.exit(main())
