"""`python -m ngrl.launch`: run an experiment that a gin file describes."""

import argparse
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ngrl import modules, packaged, seeding, threads
from ngrl.messages import RAISED, counted, reason, short
from ngrl.signals import heed
from ngrl.terminal import EXIT_FAILURE, EXIT_USAGE, LibraryOutput, refuse, run_apart

if TYPE_CHECKING:
    from ngrl.environments import Environment

#: The least exit code that tells of a signal.
_SIGNALLED = 128

_EXAMPLES = """\
examples:
  python -m ngrl.launch --gin_file=gin/ngdqn_lunar.gin
  python -m ngrl.launch --gin_file=gin/ngdqn_lunar.gin --seed=1 --gin_bindings='run.num_env_steps=50000'
  python -m ngrl.launch --gin_file=gin/ppo_cartpole_v1.gin --seeds=0,1,2,3
  tensorboard --logdir runs

A run that was stopped goes on where its last checkpoint is when the same command is given again.
"""


class _List(argparse.Action):
    """Print the packaged experiments and end, whatever else is asked for."""

    def __init__(self, option_strings: Sequence[str], dest: str, help: str):
        super().__init__(option_strings, dest=argparse.SUPPRESS, nargs=0, help=help)

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        experiments = list(packaged.experiments())
        width = max((len(name) for name, _ in experiments), default=0)
        print("\n".join(f"{name:{width}}  {line}" for name, line in experiments))
        parser.exit()


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="ngrl.launch",
        description="Train an agent as a gin file describes, evaluate it and export its policy.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--list", action=_List, help="list the experiments that come with ngrl")
    add("--gin_file", action="append", required=True, metavar="FILE", help="experiment; may be repeated")
    add(
        "--gin_bindings",
        action="append",
        default=[],
        metavar="'NAME=VALUE'",
        help="a setting that overrides the file's, e.g. 'run.num_env_steps=1000'; may be repeated",
    )
    add("--root_dir", metavar="DIR", help="the run's directory (default: runs/<gin file name>)")
    add(
        "--seed",
        type=int,
        metavar="N",
        help="seed of the run; the default directory's name then ends in -seedN",
    )
    add(
        "--seeds",
        metavar="N,N,...",
        help="runs of these seeds, one after another in a process that compiles once; each is what --seed=N alone "
        "leaves, in DIR-seedN with --root_dir=DIR",
    )
    add("--noresume", action="store_true", help="start anew; an earlier run in the directory is moved aside")
    add(
        "--dry_run",
        action="store_true",
        help="build everything as the run would, play the environment a little to check it, and write nothing",
    )
    add("--noprogress", action="store_true", help="show no progress, only warnings and the result")
    add("--capture_video", action="store_true", help="save the first evaluation episode as video.gif")
    add(
        "--threads",
        type=int,
        metavar="N",
        help=f"threads of the numerical libraries (default: {threads.DEFAULT}, or what TF_NUM_INTRAOP_THREADS says)",
    )
    modules.add_option(parser)
    return parser


def default_root_dir(gin_file: str, seed: int | None) -> Path:
    """`runs/<gin file name>`, after the folders below `gin/`, and with the seed where one is asked for.

    Those of files in `gin/` are the names that trials of a study have, by which reports know what learns.
    """
    path = Path(gin_file)
    folders = path.parts[:-1]
    if "gin" in folders:  # gin/paper/x.gin: runs/paper-x
        folders = folders[len(folders) - folders[::-1].index("gin") :]
    else:
        folders = ()
    name = "-".join([*folders, path.stem])
    return Path("runs", name if seed is None else f"{name}-seed{seed}")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code: 0, 1 for a failed run, 2 for wrong input, 128 + n for signal n."""
    options = build_parser().parse_args(argv)
    # Errors in the command line need no TensorFlow, which takes seconds to import.
    missing = [name for name in options.gin_file if not packaged.is_there(name)]
    if missing:
        return refuse("launch", f"no such gin file: {missing[0]}")
    try:
        threads.check(options.threads)
        if options.seed is not None:
            seeding.check_seed(options.seed, "--seed")
        seeds = [options.seed] if options.seeds is None else _seeds(options)
        root_dirs = {seed: _root_dir(options, seed) for seed in seeds}
    except ValueError as error:
        return refuse("launch", error)
    # What is run may leave the working folder.
    options.here, options.gin_file = Path.cwd(), [str(packaged.find(name).absolute()) for name in options.gin_file]
    os.environ.update(threads.variables(options.threads) if options.threads else threads.environment())

    # So do errors in the files; the classes that they name stand in by their signatures.
    from ngrl.configuration import stand_ins

    try:
        # What is wrong is wrong with all of them.
        entry_options = _entry_options(options, seeds[0])
        stand_ins.check(options.gin_file, options.gin_bindings, options.allow_gin_import, entry_options)
    except stand_ins.ConfigurationError as error:
        return refuse("launch", error)
    started: list[Path] = []

    def stopped() -> str:
        if not started:
            return " before there was anything to save"
        return f" at once; the same command resumes {started[-1]} from its last checkpoint, if it has one"

    if options.seeds is None:
        return run_apart(
            "launch", lambda output: _run(options, seeds[0], root_dirs[seeds[0]], output, started), stopped
        )
    return run_apart("launch", lambda output: _run_all(options, root_dirs, output, started), stopped)


def _seeds(options: argparse.Namespace) -> list[int]:
    """The seeds that are asked for.

    Raises:
      ValueError: They aren't seeds, are named twice, or there is `--seed` besides.
    """
    if options.seed is not None:
        raise ValueError("--seed and --seeds exclude each other: name all seeds in --seeds")
    try:
        seeds = [int(seed) for seed in options.seeds.split(",")]
    except ValueError:
        raise ValueError(f"--seeds must be integers with commas between, as in 0,1,2, got {options.seeds!r}") from None
    if len(set(seeds)) < len(seeds):
        raise ValueError(f"--seeds names a seed twice: {options.seeds}")
    return [seeding.check_seed(seed, "--seeds") for seed in seeds]


def _root_dir(options: argparse.Namespace, seed: int | None) -> Path:
    """Where a run goes."""
    if options.root_dir is None:
        return default_root_dir(options.gin_file[-1], seed)
    path = Path(options.root_dir)
    if options.seeds is None:
        return path
    if path.name in ("", ".."):
        raise ValueError(f"--root_dir must end in a name, to which --seeds adds the seed, got {options.root_dir!r}")
    return path.with_name(f"{path.name}-seed{seed}")


def _run_all(
    options: argparse.Namespace, root_dirs: dict[int, Path], output: LibraryOutput, started: list[Path]
) -> int:
    """Run one seed after another; the exit code of the first that failed. A signal or wrong input ends all."""
    import gin

    from ngrl.loops.compiled import sharing

    codes = []
    with sharing():
        for seed, root_dir in root_dirs.items():
            gin.clear_config()
            codes.append(_run(options, seed, root_dir, output, started))
            if codes[-1] == EXIT_USAGE or codes[-1] >= _SIGNALLED:
                break
    return next((code for code in codes if code), 0)


def _entry_options(options: argparse.Namespace, seed: int | None) -> dict[str, str]:
    """The options that set a parameter of what is run, or one that is named whole, as a gin file would."""
    entry_options = {}
    if seed is not None:
        entry_options["seed"] = str(seed)
    if options.capture_video:
        entry_options["Evaluation.capture_video"] = "True"
    return entry_options


def _run(
    options: argparse.Namespace,
    seed: int | None,
    root_dir: Path,
    output: LibraryOutput,
    started: list[Path],
) -> int:
    """Run what the files describe; `started` gets the directory once that is this run's."""
    name = Path(options.gin_file[-1]).stem if options.seeds is None else root_dir.name
    has_started = len(started)
    if not options.noprogress:
        print(f"{name}: starting TensorFlow", file=output.terminal)
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "0"

    import gin

    from ngrl import configuration
    from ngrl.configuration import operative
    from ngrl.training import configurables
    from ngrl.training import errors as known
    from ngrl.training.context import DryRunOver, RunContext
    from ngrl.training.progress import Progress, Terminal

    progress = Progress(output.terminal) if options.noprogress else Terminal(name, output.terminal)

    def on_start() -> None:
        output.move_to(options.here / root_dir / "log.txt")
        started.append(root_dir)

    try:
        configuration.parse(
            options.gin_file, options.gin_bindings, options.allow_gin_import, _entry_options(options, seed)
        )
        result = configurables.main(
            RunContext(
                options.here / root_dir,
                noresume=options.noresume,
                config=lambda: operative.settled(progress.warn),
                config_text=gin.operative_config_str,
                progress=progress,
                on_start=on_start,
                dry_run=options.dry_run,
            )
        )
    except DryRunOver as over:
        return _checked(options, name, over.environment, seed, output)
    except known.Interrupted as error:
        hint = " (without --noresume)" if options.noresume else ""
        # Gin appends where the error passed through.
        print(f"{name}: {reason(error)}{hint}", file=output.terminal)
        return error.exit_code
    except RAISED as error:
        heed(error)
        output.log_exception()
        line = known.one_line(error)
        wrong_input = known.USAGE if len(started) > has_started else known.WHILE_BUILDING
        if isinstance(error, wrong_input) or configuration.lacks_value(error):
            print(f"ngrl.launch: {line}", file=output.terminal)
            return EXIT_USAGE
        if not isinstance(error, known.FAILURES):
            line = short(f"{type(error).__name__}: {line}; the traceback is in {output.keep()}")
        print(f"ngrl.launch: {line}", file=output.terminal)
        return EXIT_FAILURE
    print(summary(name, root_dir, result), file=output.stdout)
    return 0


def _checked(
    options: argparse.Namespace,
    name: str,
    environment: "Environment | None",
    seed: int | None,
    output: LibraryOutput,
) -> int:
    """Say that a dry run could build everything, and what is found out about its environment; the exit code."""
    print(f"{name}: everything can be built as the files say", file=output.stdout)
    # The environment is the same for all seeds.
    if environment is None or (options.seeds is not None and seed != _seeds(options)[0]):
        return 0
    from ngrl.environments import check_environment

    print(f"{name}: playing {environment.env_id}", file=output.terminal)
    report = check_environment(environment, seed or 0)
    print(report, file=output.stdout)
    return EXIT_FAILURE if report.problems else 0


def summary(name: str, root_dir: Path, result: dict) -> str:
    """What the terminal shows at the end of a run; an entry that isn't a training run says it under `summary`."""
    from ngrl.runs.episodes import WINDOW
    from ngrl.training.progress import describe_bound, describe_evaluation

    def number(value: float | None) -> str:
        return "–" if value is None else f"{value:.1f}"

    tensorboard = f"  TensorBoard  {tensorboard_command(root_dir.parent)}"
    if "summary" in result:
        first, *others = map(short, result["summary"])
        return "\n".join([f"{name}: {first}", *(f"  {line}" for line in others), tensorboard])
    last = f"final {min(result['episodes'], WINDOW) or WINDOW}-episode mean"
    lines = [
        f"{name}: {counted(result['env_steps'], 'step')}, {counted(result['episodes'], 'episode')}, "
        f"{result['wall_s'] / 60:.1f} minutes of training",
        f"  best 100-episode mean    {number(result['best_100_episode_mean'])}"
        + (f"  (at {counted(result['best_at_env_steps'], 'step')})" if result["best_at_env_steps"] else ""),
        f"  {last:24} {number(result['final_100_episode_mean'])}",
    ]
    evaluation = result.get("evaluation")
    if evaluation:
        lines.append(f"  greedy evaluation        {describe_evaluation(evaluation)}")
        bound = describe_bound(evaluation)
        lines += [f"    {bound}"] if bound else []
    if best := result.get("best_evaluation"):
        where = f"at {counted(best['env_steps'], 'step')}, {counted(best['episodes'], 'episode')}"
        lines.append(f"  best evaluation          {best['mean']:.1f}  ({where})")
    if not result["train_steps"]:
        lines.append("  no update was made: the steps ended within the loop's warm-up or its first batch")
    if result["skipped_updates"]:
        lines.append(f"  skipped updates          {result['skipped_updates']:,}")
    lines += [
        f"  scores       {pasted(root_dir / 'run.json')}, {pasted(root_dir / 'episodes.csv')}",
        f"  policy       {pasted(root_dir / 'policy')}",
        *([f"  best policy  {pasted(root_dir / 'policy_best')}"] if best else []),
        tensorboard,
    ]
    return "\n".join(lines)


def pasted(path: str | Path) -> str:
    """A path as a shell takes it."""
    return shlex.quote(str(path))


def tensorboard_command(folder: str | Path) -> str:
    """The command that shows a folder's event files."""
    return f"{_program('tensorboard')} --logdir {pasted(folder)}"


def _program(name: str) -> str:
    """How to start a program of this environment from the current folder."""
    path = Path(sys.executable).with_name(name)
    return pasted(short(str(path))) if path.exists() else name


if __name__ == "__main__":
    sys.exit(main())
