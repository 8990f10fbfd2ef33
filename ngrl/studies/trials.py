"""A trial: one experiment with one seed, as a process of its own with a run directory of its own.

Nothing here imports TensorFlow: whoever waits for trials needs none.
"""

import dataclasses
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from ngrl import seeding
from ngrl.threads import DEFAULT, environment

#: Exit codes of `ngrl.launch` for a fault that the same command meets again: a failed run, wrong input.
LASTING_FAILURES = (1, 2)

_CACHE = "--tf_xla_persistent_cache_directory"
#: Free bytes without which trials don't share what is compiled.
_ROOM = 2**28


def experiment_name(gin_file: str | Path) -> str:
    """The name of an experiment in a study; that of gin/paper/x.gin is paper-x."""
    path = Path(gin_file)
    folder = path.resolve().parent.name
    return path.stem if folder == "gin" else f"{folder}-{path.stem}"


@dataclasses.dataclass(frozen=True)
class Trial:
    """What to run."""

    cell: str  # the experiment with its settings; trials of one cell differ in the seed alone
    gin_file: str
    seed: int
    bindings: tuple[str, ...] = ()  # settings that override the file's, each as a gin file would hold it
    allow_gin_import: tuple[str, ...] = ()  # modules outside ngrl that the file may import

    @property
    def name(self) -> str:
        """Name of the trial's run directory."""
        return f"{self.cell}-seed{self.seed}"

    def arguments(self, root_dir: Path) -> list[str]:
        """Those of `ngrl.launch`."""
        return [
            f"--gin_file={self.gin_file}",
            *(f"--gin_bindings={binding}" for binding in self.bindings),
            *(f"--allow_gin_import={module}" for module in self.allow_gin_import),
            f"--root_dir={root_dir}",
            f"--seed={self.seed}",
            "--noprogress",
        ]

    def command(self, root_dir: Path, threads: int = DEFAULT) -> str:
        """The command that runs it, for people, on so many threads."""
        asked = [] if threads == DEFAULT else [f"--threads={threads}"]
        return shlex.join(["python", "-m", "ngrl.launch", *self.arguments(root_dir), *asked])


class TrialProcess:
    """A trial that runs in a process of its own until it ends or this context is left.

    However the process that holds this object ends, the trial's ends with it: it watches its standard input, which
    closes then, and stops as on SIGTERM, after a checkpoint (`ngrl.studies.child`).

    Args:
      trial: What to run.
      root_dir: Its run directory.
      threads: Threads of its numerical libraries, unless the environment variables say otherwise.
      cwd: Where to start it; the current folder by default.
      compiled: A folder in which trials of this machine leave each other what XLA has compiled.
    """

    def __init__(
        self,
        trial: Trial,
        root_dir: Path,
        threads: int = DEFAULT,
        cwd: str | Path | None = None,
        compiled: str | None = None,
    ):
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 (closed with this context)
        command = [sys.executable, "-m", "ngrl.studies.child", *trial.arguments(root_dir)]
        self._process = subprocess.Popen(
            command,
            cwd=cwd,
            env=sharing(environment(threads), compiled),
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=self._stderr,
            # Ctrl-C in a terminal reaches every process of the foreground; this one is told by its standard input.
            start_new_session=True,
        )

    @property
    def pid(self) -> int:
        """The process's id."""
        return self._process.pid

    def poll(self) -> int | None:
        """The exit code; None while it runs."""
        return self._process.poll()

    def wait(self) -> int:
        """Wait for the end; the exit code."""
        return self._process.wait()

    def stop(self) -> None:
        """Ask the process to stop after a checkpoint."""
        if self._process.stdin is not None:
            self._process.stdin.close()

    def complaint(self) -> str:
        """The last line that it wrote to standard error, or what is known otherwise. To be read at the end."""
        self._stderr.seek(0)
        lines = self._stderr.read().decode("utf-8", "replace").strip().splitlines()
        code = self._process.poll()
        if lines and code in LASTING_FAILURES:
            return lines[-1].removeprefix("ngrl.launch: ")
        return f"the process ended with {f'signal {-code}' if code is not None and code < 0 else f'exit code {code}'}"

    def __enter__(self) -> "TrialProcess":
        return self

    def __exit__(self, *failure: object) -> None:
        self.stop()
        self._process.wait()
        self._stderr.close()


def sharing(variables: dict[str, str], folder: str | None) -> dict[str, str]:
    """Environment variables with which XLA looks in a folder, if there is one, and leaves there what it compiled.

    The code found is bit for bit what it would make: it is for one kind of processor. A folder that the user set stays,
    and one without room isn't used, since TensorFlow takes a file that it can't write for the run's failure.
    """
    flags = variables.get("TF_XLA_FLAGS", "")
    if folder is None or _CACHE in flags:
        return variables
    Path(folder).mkdir(parents=True, exist_ok=True)
    if shutil.disk_usage(folder).free < _ROOM:
        return variables
    return {**variables, "TF_XLA_FLAGS": f"{flags} {_CACHE}={folder}".strip()}


def seeds_of(value: int | Sequence[int]) -> tuple[int, ...]:
    """`10` means seeds 0 to 9.

    Raises:
      ValueError: There is none, one is given twice, or one is out of range.
    """
    seeds = tuple(range(value)) if isinstance(value, int) else tuple(value)
    for seed in seeds:
        seeding.check_seed(seed, "seeds")
    if not seeds or len(set(seeds)) < len(seeds):
        raise ValueError(f"seeds must be a positive number of them, or a list of different ones, got {value!r}")
    return seeds
