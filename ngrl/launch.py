"""`python -m ngrl.launch`: run an experiment that a gin file describes."""

import argparse
import os
import re
import sys
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ngrl.terminal import LibraryOutput

EXIT_USAGE = 2
EXIT_FAILURE = 1

_EXAMPLES = """\
examples:
  python -m ngrl.launch --gin_file=gin/ngdqn_lunar.gin
  python -m ngrl.launch --gin_file=gin/ngdqn_lunar.gin --seed=1 --gin_bindings='run.num_env_steps=50000'
  tensorboard --logdir runs

A run that was stopped goes on where its last checkpoint is when the same command is given again.
"""


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="ngrl.launch",
        description="Train an agent as a gin file describes, evaluate it and export its policy.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
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
    add("--noresume", action="store_true", help="start anew; an earlier run in the directory is moved aside")
    add("--noprogress", action="store_true", help="show no progress, only warnings and the result")
    add("--capture_video", action="store_true", help="save the first evaluation episode as video.gif")
    add(
        "--allow_gin_import",
        action="append",
        default=[],
        metavar="MODULE",
        help="let gin files import MODULE",
    )
    return parser


def default_root_dir(gin_file: str, seed: int | None) -> Path:
    """`runs/<gin file name>`, with the seed where one is asked for."""
    name = Path(gin_file).stem
    return Path("runs") / (name if seed is None else f"{name}-seed{seed}")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code: 0, 1 for a failed run, 2 for wrong input, 128 + n for signal n."""
    options = build_parser().parse_args(argv)
    # Errors in the command line need no TensorFlow, which takes seconds to import.
    missing = [name for name in options.gin_file if not Path(name).is_file()]
    if missing:
        print(f"ngrl.launch: no such gin file: {missing[0]}", file=sys.stderr)
        return EXIT_USAGE
    if options.seed is not None and not 0 <= options.seed < 2**31:
        print(f"ngrl.launch: --seed must lie between 0 and 2147483647, got {options.seed}", file=sys.stderr)
        return EXIT_USAGE

    from ngrl.terminal import LibraryOutput

    output = LibraryOutput()
    try:
        return _run(options, output)
    finally:
        output.close()


def _run(options: argparse.Namespace, output: "LibraryOutput") -> int:
    root_dir = Path(options.root_dir) if options.root_dir else default_root_dir(options.gin_file[-1], options.seed)
    name = Path(options.gin_file[-1]).stem
    if not options.noprogress:
        print(f"{name}: starting TensorFlow", file=output.terminal)
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "0"

    from ngrl.training import configurables, configuration
    from ngrl.training import errors as known
    from ngrl.training.progress import Quiet, Terminal
    from ngrl.training.run_directory import move_aside

    bindings = list(options.gin_bindings)
    if options.seed is not None:
        bindings.append(f"run.seed = {options.seed}")
    if options.capture_video:
        bindings.append("run.capture_video = True")
    started = time.monotonic()
    try:
        configuration.parse(options.gin_file, bindings, options.allow_gin_import)
        if options.noresume:
            moved = move_aside(root_dir)
            if moved is not None:
                print(f"{name}: the earlier run is now {moved}", file=output.terminal)
        result = configurables.run(
            root_dir,
            config=configuration.bindings(),
            config_text=configuration.operative_config,
            progress=Quiet(output.terminal) if options.noprogress else Terminal(name, output.terminal),
            on_start=lambda: output.move_to(root_dir / "log.txt"),
        )
    except known.Interrupted as error:
        print(f"{name}: {error}", file=output.terminal)
        return error.exit_code
    except known.EXPECTED as error:
        traceback.print_exc()  # into the log
        print(f"ngrl.launch: {configuration.one_line(error)}", file=output.terminal)
        return EXIT_USAGE if isinstance(error, known.USAGE) else EXIT_FAILURE
    except Exception as error:
        traceback.print_exc()
        log = output.keep()
        print(
            f"ngrl.launch: {type(error).__name__}: {configuration.one_line(error)}; the traceback is in {log}",
            file=output.terminal,
        )
        return EXIT_FAILURE
    print(summary(name, root_dir, result, time.monotonic() - started), file=output.stdout)
    return 0


def summary(name: str, root_dir: Path, result: dict, seconds: float) -> str:
    """What the terminal shows at the end of a run."""

    def number(value: float | None) -> str:
        return "–" if value is None else f"{value:.1f}"

    lines = [
        f"{name}: {result['env_steps']:,} steps, {result['episodes']:,} episodes, {seconds / 60:.1f} minutes",
        f"  best 100-episode mean    {number(result['best_100_episode_mean'])}"
        + (f"  (at {result['best_at_env_steps']:,} steps)" if result["best_at_env_steps"] else ""),
        f"  final 100-episode mean   {number(result['final_100_episode_mean'])}",
    ]
    evaluation = result.get("evaluation")
    if evaluation:
        lines.append(
            f"  greedy evaluation        {evaluation['mean']:.1f} ± {evaluation['std']:.1f}"
            f"  (min {evaluation['min']:.1f}, max {evaluation['max']:.1f}, {evaluation['episodes']} episodes)"
        )
    if result["skipped_updates"]:
        lines.append(f"  skipped updates          {result['skipped_updates']:,}")
    lines += [
        f"  scores       {root_dir / 'run.json'}, {root_dir / 'episodes.csv'}",
        f"  policy       {root_dir / 'policy'}",
        f"  TensorBoard  tensorboard --logdir {_quoted(root_dir.parent)}",
    ]
    return "\n".join(lines)


def _quoted(path: Path) -> str:
    text = str(path)
    return text if re.fullmatch(r"[\w./-]+", text) else f"'{text}'"


if __name__ == "__main__":
    sys.exit(main())
