"""`python -m ngrl.evaluate`: play episodes with an exported policy."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ngrl import modules, seeding
from ngrl.checks import check_count, check_optional_count
from ngrl.messages import RAISED, counted, short
from ngrl.signals import heed
from ngrl.terminal import EXIT_FAILURE, EXIT_USAGE, LibraryOutput, refuse, run_apart

if TYPE_CHECKING:
    from ngrl.training.progress import Progress


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="ngrl.evaluate",
        description="Evaluate an exported policy over whole episodes. The last line of standard output is a JSON "
        "object, which is also written beside the policy, if that is possible.",
    )
    add = parser.add_argument
    add("--policy_dir", required=True, metavar="DIR", help="a SavedModel, e.g. runs/ngdqn_lunar/policy")
    elsewhere = "environment (default: that of training); another has its preprocessing, frame stack and check_finite"
    add("--env_id", metavar="ID", help=elsewhere)
    add("--episodes", type=int, default=100, metavar="N", help="episodes to play (default: 100)")
    add("--seed", type=int, default=0, metavar="N", help="seed of the environments (default: 0)")
    add(
        "--max_episode_steps",
        type=int,
        metavar="N",
        help="break episodes off after N steps (default: 10,000, and 1,000 in a video, where the environment declares "
        "no time limit)",
    )
    add("--video", metavar="DIR", help="save the first episode as an animated GIF in DIR")
    modules.add_option(parser, "import MODULE first, which registers the environment")
    add(
        "--trust",
        action="store_true",
        help="load a policy from outside runs/: a SavedModel is a program, which can do whatever you can",
    )
    return parser


def needs_trust(policy_dir: Path) -> bool:
    """Whether a SavedModel lies outside `runs/` of the current folder, so that it may be a stranger's program.

    TensorFlow runs what a SavedModel says, reading and writing files included.
    """
    return (policy_dir / "saved_model.pb").exists() and not policy_dir.is_relative_to(Path("runs").resolve())


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code: 0, 1 for a failure, 2 for wrong input."""
    options = build_parser().parse_args(argv)
    policy_dir = Path(options.policy_dir).resolve()
    problem = None
    try:
        check_count("--episodes", options.episodes)
        check_optional_count("--max_episode_steps", options.max_episode_steps)
        seeding.check_seed(options.seed, "--seed")
    except ValueError as error:
        problem = str(error)
    if not os.path.isdir(policy_dir):  # also where no folder can have such a name
        problem = f"no such policy folder: {options.policy_dir}"
    elif not options.trust and needs_trust(policy_dir):
        problem = (
            f"{options.policy_dir} lies outside runs/, and a SavedModel is a program that can do whatever you can: "
            "give --trust if you trust who made it"
        )
    if problem:
        return refuse("evaluate", problem)
    if options.video:
        options.video = Path(options.video).absolute()  # what is played may leave the working folder
    done: list[str] = []
    return run_apart(
        "evaluate",
        lambda output: _run(options, policy_dir, output, done),
        lambda: f"; {short(' and '.join(done)) or 'nothing'} was written",
    )


def _run(options: argparse.Namespace, policy_dir: Path, output: LibraryOutput, done: list[str]) -> int:
    """Play, and report; `done` gets the name of each file that was written."""
    from ngrl import configuration
    from ngrl.training import errors as known
    from ngrl.training.progress import Terminal

    progress = Terminal(options.policy_dir, output.terminal)
    try:
        for name in options.allow_gin_import:
            modules.load(name)
        _evaluate(options, policy_dir, output, done, progress)
    except RAISED as error:
        progress.stop()
        heed(error)
        output.log_exception()
        line = configuration.one_line(error)
        if not isinstance(error, (*known.WHILE_BUILDING, *known.FAILURES)):
            line = f"{type(error).__name__}: {line}; the traceback is in {output.keep()}"
        print(f"ngrl.evaluate: {line}", file=output.terminal)
        return EXIT_USAGE if isinstance(error, known.WHILE_BUILDING) else EXIT_FAILURE
    return 0


def _evaluate(
    options: argparse.Namespace, policy_dir: Path, output: LibraryOutput, done: list[str], progress: "Progress"
) -> None:
    from ngrl.environments import Environment
    from ngrl.runs.files import WriteError, json_text, write_json
    from ngrl.training import evaluation, export
    from ngrl.training.progress import describe_bound

    actor, description = export.load_policy(policy_dir)
    actor = evaluation.stoppable(actor, heed)
    env_id = options.env_id or description.get("env_id")
    if env_id is None:
        raise export.PolicyError(f"{policy_dir} does not say which environment it is for: give --env_id")
    environment = Environment.described({"env_id": env_id, **description})
    if env_id != environment.env_id:
        environment = environment.elsewhere(env_id)
    if options.video:
        evaluation.check_video(environment)
    progress.start_evaluation(options.episodes)
    result = evaluation.evaluate(
        actor,
        environment,
        options.episodes,
        options.seed,
        specs=description.get("specs"),
        max_episode_steps=options.max_episode_steps,
        progress=progress.evaluated,
        warn=progress.warn,
    )
    progress.stop()
    content = {"env_id": env_id, "seed": options.seed, **result.summary()}
    # Printed before anything that may fail: it may be the fruit of hours.
    print(json_text(content), file=output.stdout, flush=True)
    bound = describe_bound(content)
    if bound is not None:
        progress.warn(bound)
    beside = policy_dir.with_name(f"{policy_dir.name}_evaluation.json")
    try:
        write_json(beside, content)
        done.append(str(beside))
    except WriteError as error:  # a policy may well lie where one can't write; what was asked for has been printed
        progress.note(str(error))
    if options.video:
        path = options.video / f"{env_id.replace('/', '_')}.gif"
        bounded = evaluation.record_video(actor, environment, path, options.seed, options.max_episode_steps)
        done.append(str(path))
        progress.note(
            f"video: {path}" + (f", broken off after {counted(bounded, 'step')}" if bounded is not None else "")
        )


if __name__ == "__main__":
    sys.exit(main())
