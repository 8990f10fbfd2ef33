"""Kill a training run again and again, resume it each time, and compare it with one that was never interrupted.

    .venv/bin/python tools/chaos.py gin/ngdqn_cartpole_v1.gin --kills 100
    .venv/bin/python tools/chaos.py gin/trpo_pendulum.gin --kills 20 --interval 512 --gin_bindings 'Critic.epochs = 1'

Every kill is a SIGKILL to a process of `ngrl.launch`, at a moment drawn from --seed: half of them while a checkpoint is
being written, one in twenty while a policy is being exported, the others at any time from the process's start on. After
each, the same command is given again. A process takes seconds to load TensorFlow; with --forked it is loaded once for
all. At the end the two runs must have the same weights, optimizer slots, replay content, counters, episodes, scores and
exported policies, bit for bit, and nothing half written may be left.

The last line of the output is a JSON object. The exit code is 1 where anything differed, or where the run ended before
all kills were made (give it more --steps). With --kills 0 it tells only what the uninterrupted run spent on saving.
"""

import argparse
import contextlib
import csv
import itertools
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import fork_server
import numpy as np

from ngrl import modules, seeding

ROOT = Path(__file__).resolve().parents[1]
_POLL = 0.001  # seconds
_WALL_CLOCK = ("wall_s", "saving_s", "csv_size")


class Program:
    """A process of `python -m ngrl.launch`, from its very start."""

    def __init__(self, arguments: list[str], output: Path):
        with output.open("wb") as file:
            command = [sys.executable, "-m", "ngrl.launch", *arguments]
            environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
            self._process = subprocess.Popen(command, env=environment, stdout=file, stderr=subprocess.STDOUT)
        self.pid = self._process.pid

    @property
    def ended(self) -> bool:
        """Whether it has ended by itself."""
        return self._process.poll() is not None

    def wait(self) -> int:
        """Its exit code, negative where a signal ended it."""
        return self._process.wait()


class Fork:
    """A process that does the same, forked from one that has loaded TensorFlow already."""

    _server: fork_server.Server | None = None

    def __init__(self, arguments: list[str], output: Path):
        if Fork._server is None:
            Fork._server = fork_server.Server(output.with_name("server.txt"))
        self.pid = Fork._server.ask(argv=arguments, cwd=os.getcwd(), output=str(output))
        self._code: int | None = None

    @property
    def ended(self) -> bool:
        """Whether it has ended by itself."""
        return fork_server.has_ended(self.pid)

    def wait(self) -> int:
        """Its exit code, negative where a signal ended it."""
        if self._code is None:  # a process can be waited for once
            assert Fork._server is not None
            self._code = Fork._server.ask(wait=self.pid)
        return self._code


class Run:
    """A run of `ngrl.launch` in a directory, started as often as it takes.

    Args:
      process: What starts a process, `Program` or `Fork`.
      gin_file: The experiment.
      options: Its other options, such as settings that override the file's.
      directory: The run's directory; what the process prints goes to a file beside it.
    """

    def __init__(self, process: type[Program | Fork], gin_file: Path, options: list[str], directory: Path):
        self.directory = directory
        self.output = directory.with_name(f"{directory.name}.txt")
        self._arguments = [f"--gin_file={gin_file}", f"--root_dir={directory}", *options]
        self._start = process
        self._process: Program | Fork | None = None
        self._left: set[tuple[int, int]] = set()

    @property
    def process(self) -> Program | Fork:
        """The present process."""
        assert self._process is not None
        return self._process

    def start(self) -> None:
        """Give the command."""
        self._left = self._half_written()
        # A process killed before it opens the file must not be taken to have said what the one before it did.
        self.output.unlink(missing_ok=True)
        self._process = self._start(self._arguments, self.output)

    def kill(self) -> bool:
        """Kill the process and wait for its end; whether it was still running."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.process.pid, signal.SIGKILL)
        return self.process.wait() == -signal.SIGKILL

    def finish(self) -> None:
        """Wait for the process to reach the end of the run.

        Raises:
          RuntimeError: It failed.
        """
        if self.process.wait():
            raise RuntimeError(f"ngrl.launch {' '.join(self._arguments)} failed: {self.output.read_text().strip()}")

    @property
    def checkpoints(self) -> list[int]:
        """The steps of the checkpoints that are there, ascending."""
        return sorted(int(path.name[5:]) for path in (self.directory / "checkpoints").glob("step_*"))

    def _half_written(self) -> set[tuple[int, int]]:
        """Step and time of the latest change of what is no checkpoint yet, or never became one."""
        found = set()
        for path in (self.directory / "checkpoints").glob("writing_*"):
            with contextlib.suppress(FileNotFoundError):  # finished just now
                found.add((int(path.name[8:]), path.stat().st_ctime_ns))
        return found

    @property
    def unfinished(self) -> list[int]:
        """The steps of the checkpoints that this process is writing, or was writing when it was killed."""
        return [step for step, _ in self._half_written() - self._left]

    def resumed_at(self) -> int | None:
        """Where the process said that it resumes; None where it said nothing, at a fresh start or for lack of time."""
        said = self.output.read_text() if self.output.exists() else ""
        found = re.search(r"resuming at ([\d,]+) environment steps", said)
        return int(found.group(1).replace(",", "")) if found else None


class Chaos:
    """Kills a run; the moments follow from a seed and, as processes go, from the machine's speed.

    Args:
      run: The run.
      seed: Seed of the moments.
    """

    def __init__(self, run: Run, seed: int):
        self._run = run
        self._random = random.Random(seeding.integer(seed, seeding.Stream.KILLS))
        self._start_up = 10.0  # seconds until a process saves for the first time, as last seen
        self._saving = 0.02  # seconds that a save takes, as last seen
        self._between = 0.05  # seconds from one save to the next, as last seen
        self.kills = 0
        self.inside_save = 0
        self.inside_export = 0
        self.exact_resumes = 0
        self.wrong_resumes: list[str] = []
        self.done_again = 0  # most environment steps between a save that was cut off and the checkpoint before it
        self.most_checkpoints = 0  # unfinished ones included
        self._newest = 0  # step of the newest checkpoint when the present process was started

    def kill_times(self, kills: int) -> None:
        """Make so many kills, or as many as the run lasts for; the run is left running."""
        exports = max(1, kills // 20) if kills > 1 else 0
        self._run.start()
        while self.kills < kills and not self._run.process.ended:
            in_training = self.kills < kills - exports
            if not in_training:
                self._await_export()
            elif self.inside_save * 2 <= self.kills:
                self._await_save()
            else:
                self._await_any_moment()
            if self._run.kill():
                self.kills += 1
                self._inspect()
                newest = max(self._run.checkpoints, default=0)
                print(f"kill {self.kills} of {kills}: the newest checkpoint is of step {newest:,}", file=sys.stderr)
                self._run.start()

    def _wait(self, what: Any) -> None:
        while not self._run.process.ended and not what():
            time.sleep(_POLL)

    def _await_saves(self, number: int) -> None:
        """Wait until the process begins its n-th save, and learn how long things take."""
        started = time.monotonic()
        self._wait(lambda: self._run.unfinished)
        self._start_up = time.monotonic() - started
        for _ in range(number - 1):
            self._await_end_of_save()
            ended = time.monotonic()
            self._wait(lambda: self._run.unfinished)
            self._between = time.monotonic() - ended

    def _await_end_of_save(self) -> None:
        seen = time.monotonic()
        self._wait(lambda: not self._run.unfinished)
        self._saving = time.monotonic() - seen

    def _await_save(self) -> None:
        """Wait until the first, second or third save of the process is under way."""
        self._await_saves(self._random.randint(1, 3))
        time.sleep(self._random.uniform(0, 0.6 * self._saving))

    def _await_any_moment(self) -> None:
        """Wait until some moment from the process's start to the middle between its second and third save."""
        if self._random.random() < 0.4:  # while it starts, or as it begins to train
            until = time.monotonic() + self._random.uniform(0, self._start_up)
            self._wait(lambda: time.monotonic() > until or self._run.unfinished)
        else:
            self._await_saves(self._random.randint(1, 2))
            self._await_end_of_save()
            time.sleep(self._random.uniform(0, self._between))

    def _await_export(self) -> None:
        """Wait until one of the policies is being exported."""
        name = self._random.choice(["policy.writing", "policy_collect.writing"])
        self._wait(lambda: (self._run.directory / name).exists())
        time.sleep(self._random.uniform(0, 0.05))

    def _inspect(self) -> None:
        """Count what the kill left, and see where the killed process had resumed."""
        run, checkpoints, unfinished = self._run, self._run.checkpoints, self._run.unfinished
        self.inside_save += bool(unfinished)
        self.inside_export += any(run.directory.glob("*.writing"))
        self.most_checkpoints = max(self.most_checkpoints, len(checkpoints) + len(unfinished))
        for step in unfinished:
            self.done_again = max(self.done_again, step - max(checkpoints, default=0))
        self.note_resume(checkpoints)

    def note_resume(self, checkpoints: list[int]) -> None:
        """Compare where the process resumed with the newest checkpoint that it found, then remember the newest now."""
        resumed, found, newest = self._run.resumed_at(), self._newest, max(checkpoints, default=0)
        if newest < found or resumed not in (None, found):
            self.wrong_resumes.append(f"resumed at {resumed} where {found} was the newest checkpoint; now at {newest}")
        elif resumed is not None:
            self.exact_resumes += 1
        self._newest = newest


def contents(directory: Path) -> dict[str, Any]:
    """What a run has to show, by name: arrays, and JSON values as text; nothing that the wall clock decides."""
    import tensorflow as tf

    newest = sorted((directory / "checkpoints").glob("step_*"))[-1]
    found: dict[str, Any] = {}
    prefixes = {"checkpoint": newest / "variables"}
    for name in ("policy", "policy_collect"):
        if (directory / name).exists():
            prefixes[name] = directory / name / "variables" / "variables"
    for owner, prefix in prefixes.items():
        reader = tf.train.load_checkpoint(str(prefix))
        for name in reader.get_variable_to_shape_map():
            if "OBJECT_GRAPH" not in name:
                found[f"{owner}: {name}"] = reader.get_tensor(name)
    with np.load(newest / "arrays.npz", allow_pickle=False) as arrays:
        found |= {f"loop: {name}": arrays[name] for name in arrays.files}
    found |= {f"loop: {path.name}": np.load(path, allow_pickle=False) for path in newest.glob("*.npy")}
    state = json.loads((newest / "state.json").read_text())
    final = json.loads((directory / "run.json").read_text()).get("final", {})
    for values in (state["run"], final):
        for name in _WALL_CLOCK:
            values.pop(name, None)
    found |= {f"state: {name}": json.dumps(value) for name, value in state.items()}
    found |= {f"final: {name}": json.dumps(value) for name, value in final.items()}
    with (directory / "episodes.csv").open(encoding="utf-8") as file:
        rows = [{name: value for name, value in row.items() if name != "wall_s"} for row in csv.DictReader(file)]
    found["episodes.csv"] = json.dumps(rows)
    return found


def differences(one: Path, other: Path) -> list[str]:
    """Names of what differs between two runs' directories, in the least bit."""
    first, second = contents(one), contents(other)

    def same(name: str) -> bool:
        if name not in first or name not in second:
            return False
        a, b = (np.asarray(found[name]) for found in (first, second))
        return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()

    return [name for name in sorted({*first, *second}) if not same(name)]


def litter(directory: Path) -> list[str]:
    """What was never finished and never removed."""
    patterns = ("*.writing", "writing_*", "*_temp*", "*.tmp")
    found = itertools.chain.from_iterable(directory.rglob(pattern) for pattern in patterns)
    return sorted(str(path.relative_to(directory)) for path in found)


def saving_share(directory: Path) -> float:
    """The part of a finished run's training time that went into checkpoints."""
    final = json.loads((directory / "run.json").read_text())["final"]
    return final["saving_s"] / final["wall_s"]


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    description, _, rest = __doc__.partition("\n\n")
    parser = argparse.ArgumentParser(
        description=description, epilog=rest, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("gin_file", type=Path)
    add("--kills", type=int, default=100)
    add("--seed", type=int, default=0, help="of the kills (default: 0)")
    add("--interval", type=int, default=200, help="environment steps between checkpoints (default: 200)")
    add("--steps", type=int, help="environment steps of the run (default: four intervals a kill)")
    add("--gin_bindings", action="append", default=[], metavar="'NAME=VALUE'")
    modules.add_option(parser)
    add("--forked", action="store_true", help="fork the processes from one that has loaded TensorFlow: much quicker")
    add("--runs", type=Path, default=Path("runs/chaos"), help="where the two runs go (default: runs/chaos)")
    return parser


def main() -> int:
    """Run the command and return its exit code."""
    options = build_parser().parse_args()
    steps = options.steps or options.interval * max(options.kills, 1) * 4
    bindings = [f"run.num_env_steps={steps}", f"run.checkpoint_every={options.interval}", "Evaluation.episodes=3"]
    passed = [f"--gin_bindings={binding}" for binding in [*bindings, *options.gin_bindings]]
    passed += [f"--allow_gin_import={module}" for module in options.allow_gin_import]
    folder = options.runs.resolve() / options.gin_file.stem
    if folder.exists():
        print(f"chaos: {folder} exists: remove it, or choose another --runs", file=sys.stderr)
        return 2
    folder.mkdir(parents=True)
    started = time.monotonic()
    process = Fork if options.forked else Program
    whole = Run(process, options.gin_file.resolve(), passed, folder / "whole")
    whole.start()
    whole.finish()
    report: dict[str, Any] = {
        "processes": process.__name__.lower(),
        "experiment": options.gin_file.stem,
        "env_steps": steps,
        "interval": options.interval,
    }
    report["saving_share"] = round(saving_share(whole.directory), 4)
    failed = False
    if options.kills:
        killed = Run(process, options.gin_file.resolve(), passed, folder / "killed")
        chaos = Chaos(killed, options.seed)
        chaos.kill_times(options.kills)
        killed.finish()
        chaos.note_resume(killed.checkpoints)
        differing, left = differences(whole.directory, killed.directory), litter(killed.directory)
        report |= {
            "kills": chaos.kills,
            "inside_a_save": chaos.inside_save,
            "inside_an_export": chaos.inside_export,
            "resumes_seen": chaos.exact_resumes + len(chaos.wrong_resumes),
            "resumes_exact": chaos.exact_resumes,
            "most_intervals_done_again": chaos.done_again / options.interval,
            "most_checkpoints": chaos.most_checkpoints,
            "identical": not differing,
            "differing": differing,
            "litter": left,
        }
        failed = bool(differing or left or chaos.wrong_resumes) or chaos.kills < options.kills
        for line in chaos.wrong_resumes:
            print(line, file=sys.stderr)
    report["wall_s"] = round(time.monotonic() - started, 1)
    print(json.dumps(report))
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
