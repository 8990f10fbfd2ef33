"""The small files of runs: what is worth keeping in a repository, and enough to make the report from."""

import shlex
from collections.abc import Sequence
from pathlib import Path

from ngrl.reports.runs import MixedRunsError, Run
from ngrl.runs.files import reading, write_bytes, write_json
from ngrl.runs.record import read_record, record_path


def keep(runs: Sequence[Run], folder: Path) -> None:
    """Copy `run.json`, `operative_config.gin` and the thinned learning curve of every run to a folder of its name.

    What is copied names no folder of this machine, and no checkpoints, events or policies are copied. A run that is
    already in the folder is replaced.

    Raises:
      MixedRunsError: Two runs have folders of the same names; nothing is written then.
      ReadError: A run can't be read.
      WriteError: A file can't be written.
      OSError: A folder can't be made.
    """
    targets: dict[Path, Run] = {}
    for run in runs:
        target = folder / run.path.parent.resolve().name / run.path.name
        if (other := targets.setdefault(target, run)) is not run:
            raise MixedRunsError(f"{other.path} and {run.path} would both be kept as {target}: keep them apart")
    for target, run in targets.items():
        if target.resolve() == run.path.resolve():
            continue
        target.mkdir(parents=True, exist_ok=True)
        record = read_record(run.path) or {}
        for made in [record, *record.get("processes", [])]:  # records of before the list have their command themselves
            if "command" in made:
                made["command"] = _command(made["command"], run)
        # evaluation.json holds the return of every episode.
        record["final"].get("evaluation", {}).pop("returns", None)
        write_json(record_path(target), record)
        configuration = run.path / "operative_config.gin"
        if configuration.exists():
            with reading(configuration):
                content = configuration.read_bytes()
            write_bytes(target / configuration.name, content)
        run.curve.thinned().write(target / "curve.csv")


def _command(command: str, run: Run) -> str:
    """The run's command as one would type it for this run alone, with folders relative to where runs are kept."""
    words = shlex.split(command)
    if words and words[0].endswith("launch.py"):
        words[:1] = ["python", "-m", "ngrl.launch"]
    elif [Path(word).name for word in words[:2]] in (["ngrl", "launch"], ["__main__.py", "launch"]):
        words[:2] = ["python", "-m", "ngrl.launch"]
    resolved = run.path.resolve()
    values = {
        "--root_dir": lambda _: f"--root_dir=runs/{resolved.parent.name}/{resolved.name}",
        "--seeds": lambda _: f"--seed={run.seed}",  # the directory is that of this one of them
        "--gin_file": lambda file: f"--gin_file={Path(file).name if Path(file).is_absolute() else file}",
    }
    typed, rest = [], iter(words)
    for word in rest:
        option, equals, value = word.partition("=")
        if option in values:
            word = values[option](value if equals else next(rest, ""))
        typed.append(word)
    return shlex.join(typed)
