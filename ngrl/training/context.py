"""What an entry is handed by whoever runs it, and how it comes by its directory."""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ngrl.configuration import operative
from ngrl.environments import Environment
from ngrl.runs.directory import RunDirectory, RunDirectoryError, check_usable, move_aside
from ngrl.runs.files import write_text
from ngrl.training.progress import Progress


class DryRunOver(Exception):
    """Everything could be built, and nothing was to be written.

    Attributes:
      environment: What would be learned; None where the entry trains no agent.
    """

    def __init__(self, environment: Environment | None):
        super().__init__("everything could be built")
        self.environment = environment


@dataclasses.dataclass(frozen=True)
class RunContext:
    """What an entry is handed beside its settings, which are a gin file's or a caller's in Python.

    Args:
      root_dir: The run's directory, or a link to it; `RunDirectory` says when it is refused.
      noresume: Start anew; an earlier run in the directory is moved aside, not deleted.
      config: Gives what identifies the experiment, name to value, once everything has been built; a directory with
        another one is refused. By default the entry's own settings.
      config_text: Gives the operative configuration once everything has been built.
      progress: Where to report.
      on_start: Called once everything has been built and the directory is this run's.
      dry_run: Build everything and write nothing; `DryRunOver` is raised where the directory would be opened.
    """

    root_dir: str | Path
    noresume: bool = False
    config: Callable[[], Mapping[str, str]] | None = None
    config_text: Callable[[], str] = lambda: ""
    progress: Progress = dataclasses.field(default_factory=Progress)
    on_start: Callable[[], object] = lambda: None
    dry_run: bool = False

    def __post_init__(self) -> None:
        # An environment may leave the working folder before the directory is made.
        object.__setattr__(self, "root_dir", Path(self.root_dir).absolute())

    @contextlib.contextmanager
    def open(
        self, settings: Callable[[], Mapping[str, Any]], environment: Environment | None = None
    ) -> Iterator[RunDirectory]:
        """Hold the run's directory while it is written; an earlier run is moved aside where that is asked for.

        Args:
          settings: Gives what identifies the experiment, name to value, where there is no `config`.
          environment: What is learned, for `DryRunOver`.

        Yields:
          The directory.

        Raises:
          RunDirectoryError: The directory can't be used.
          WriteError: The configuration can't be written.
          DryRunOver: It was a dry run.
        """
        path = _found(self.root_dir)
        config = self.config() if self.config else {name: repr(_plain(value)) for name, value in settings().items()}
        if self.dry_run:
            if not self.noresume:
                check_usable(path, config, operative.default)
            raise DryRunOver(environment)
        moved = move_aside(path) if self.noresume else None
        with contextlib.closing(RunDirectory(path, config, operative.default)) as directory:
            self.on_start()
            if moved is not None:
                self.progress.note(f"the earlier run is now {moved}")
            if changes := directory.changes():
                self.progress.note(f"another program than the one that worked on this run before: {changes}")
            write_text(directory.path / "operative_config.gin", self.config_text())
            yield directory


def _plain(value: Any) -> Any:
    """NumPy's numbers as Python's, which are written alike by every version of NumPy."""
    if isinstance(value, dict):
        return {name: _plain(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_plain(part) for part in value) if type(value) in (list, tuple) else value
    return value.item() if isinstance(value, np.generic) else value


def _found(root_dir: str | Path) -> Path:
    """The directory itself, whichever links lead there.

    Raises:
      RunDirectoryError: The links lead nowhere.
    """
    try:
        return Path(root_dir).resolve()
    except (OSError, RuntimeError):  # the latter for a loop of links
        raise RunDirectoryError(f"{root_dir} is a link that leads nowhere: choose another --root_dir") from None
