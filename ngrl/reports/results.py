"""The small files of runs: what is worth keeping in a repository, and enough to make the report from."""

import shlex
from collections.abc import Sequence
from pathlib import Path

from ngrl.reports.runs import Run
from ngrl.runs.files import write_bytes, write_json
from ngrl.runs.record import read_record, record_path


def keep(runs: Sequence[Run], folder: Path) -> None:
    """Copy `run.json`, `operative_config.gin` and the thinned learning curve of every run to a folder of its name.

    What is copied names no folder of this machine, and no checkpoints, events or policies are copied. A run that is
    already in the folder is replaced.
    """
    for run in runs:
        target = folder / run.path.parent.resolve().name / run.path.name
        if target.resolve() == run.path.resolve():
            continue
        target.mkdir(parents=True, exist_ok=True)
        record = read_record(run.path) or {}
        for made in [record, *record.get("processes", [])]:  # records of before the list have their command themselves
            if "command" in made:
                made["command"] = _command(made["command"], run.path)
        # evaluation.json holds the return of every episode.
        record["final"].get("evaluation", {}).pop("returns", None)
        write_json(record_path(target), record)
        configuration = run.path / "operative_config.gin"
        if configuration.exists():
            write_bytes(target / configuration.name, configuration.read_bytes())
        run.curve.thinned().write(target / "curve.csv")


def _command(command: str, path: Path) -> str:
    """The run's command as one would type it, with folders relative to where runs are kept."""
    words = shlex.split(command)
    if words and words[0].endswith("launch.py"):
        words[:1] = ["python", "-m", "ngrl.launch"]
    resolved = path.resolve()
    root_dir = f"--root_dir=runs/{resolved.parent.name}/{resolved.name}"
    return shlex.join(root_dir if word.startswith("--root_dir=") else word for word in words)
