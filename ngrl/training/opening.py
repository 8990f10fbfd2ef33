"""How an entry comes by its directory: found once, with an earlier run moved aside where that is asked for."""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from ngrl.configuration import operative
from ngrl.runs.directory import RunDirectory, RunDirectoryError, move_aside
from ngrl.runs.files import write_text
from ngrl.training.progress import Progress, Quiet


@contextlib.contextmanager
def opened(
    root_dir: str | Path,
    identity: Callable[[], Mapping[str, str]],
    noresume: bool,
    config_text: Callable[[], str],
    progress: Progress | None,
    on_start: Callable[[], None],
) -> Iterator[RunDirectory]:
    """Hold a run's directory while it is written.

    Args:
      root_dir: The directory, or a link to it.
      identity: Gives what identifies the experiment.
      noresume: As in `ngrl.training.run`, and so are the rest.
      config_text: Gives the operative configuration.
      progress: Where to report.
      on_start: Called once the directory is this run's.

    Yields:
      The directory.

    Raises:
      RunDirectoryError: The directory can't be used.
      WriteError: The configuration can't be written.
    """
    path, config, note = _found(root_dir), identity(), (progress or Quiet()).note
    moved = move_aside(path) if noresume else None
    with contextlib.closing(RunDirectory(path, config, operative.default)) as directory:
        on_start()
        if moved is not None:
            note(f"the earlier run is now {moved}")
        if changes := directory.changes():
            note(f"another program than the one that worked on this run before: {changes}")
        write_text(directory.path / "operative_config.gin", config_text())
        yield directory


def _found(root_dir: str | Path) -> Path:
    """The directory itself, whichever links lead there; relative where it lies in the working folder, for messages.

    Raises:
      RunDirectoryError: The links lead nowhere.
    """
    try:
        path = Path(root_dir).resolve()
    except (OSError, RuntimeError):  # the latter for a loop of links
        raise RunDirectoryError(f"{root_dir} is a link that leads nowhere: choose another --root_dir") from None
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
