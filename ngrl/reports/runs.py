"""Run directories as reports read them. No TensorFlow is imported here."""

import ast
import dataclasses
import functools
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import ngrl
from ngrl import renamed
from ngrl.reports.curve import Curve
from ngrl.runs import identity
from ngrl.runs.episodes import WINDOW
from ngrl.runs.events import read_scalars
from ngrl.runs.files import ReadError, reading
from ngrl.runs.record import Status, lock_path, processes, read_record, record_path, status_of

_NAME = re.compile(r"(?P<cell>.+)-seed(?P<seed>\d+)")
_ASIDE = re.compile(r"(?P<name>.+)\.\d+")
_OF_GAMES = re.compile(r"(minatar_\w+|atari_pong)")
# Settings that a grid gave are named at the end: cell-batch_size=32-activation=relu.
_GRID = re.compile(r"-[\w.]+=.*")
_FREE_IN_A_CELL = identity.FREE_TO_CHANGE - set(identity.LENGTH) | {"run.seed"}
_NEEDED = ("env_steps", "episodes", "best_100_episode_mean", "final_100_episode_mean", "wall_s")

#: Names of the methods of known experiments, in the order of the figures; others are called what their files are.
METHODS = {
    "ngdqn": "NGDQN, trust region",
    "paper-ngdqn": "NGDQN, the paper's settings",
    "paper-ngdqn_october": "NGDQN, settings of October 2018",
    "kfac": "NGDQN, K-FAC",
    "prong": "NGDQN, PRONG",
    "dqn": "DQN, target network",
    "paper-dqn": "DQN, no target network",
    "baselines-single_q": "DQN, target network, no double Q",
    "baselines-plain": "NGDQN, trust region, plain",
    "baselines-adam": "Adam, no target network",
    "baselines-adam_averaged": "Adam, layer normalisation, average",
    "baselines-adam_bounded": "Adam, trust region",
    "baselines-functional": "Adam, functional regularisation",
    "baselines-pqn": "PQN",
    "npg": "NPG",
    "trpo": "TRPO",
    "trpo_kfac": "TRPO, K-FAC",
    "acktr": "ACKTR",
    "ppo": "PPO",
    "reinforce": "REINFORCE",
    "nac": "NAC",
    "acer": "ACER",
}
_TASKS = re.compile(
    r"(^|_)(cartpole_v0|cartpole_v1|masked_cartpole|acrobot|lunar|pendulum|hopper|halfcheetah|walker2d|ant|swimmer"
    r"|minatar_(asterix|breakout|freeway|seaquest|space_invaders)|atari_pong)(?=_|$)"
)


@dataclasses.dataclass(frozen=True)
class Run:
    """A run that is over."""

    path: Path
    cell: str  # its name without the seed: the experiment with its settings
    seed: int
    env_id: str
    status: Status  # finished or diverged
    final: dict[str, Any]  # what it reached, as `run.json` holds it; of fewer than 100 episodes no 100-episode mean
    curve: Curve
    config: dict[str, str]  # its settings, name to value as text

    @property
    def experiment(self) -> str:
        """The cell's name without settings from a grid."""
        return _GRID.sub("", self.cell)

    @property
    def base_method(self) -> str:
        """What learns, without the environment and settings from a grid; a reader's name where there is one."""
        # NGDQN's experiments with pixels are called after the game.
        bare = "ngdqn" if _OF_GAMES.fullmatch(self.experiment) else _TASKS.sub("", self.experiment)
        return METHODS.get(bare, bare) or self.experiment

    @property
    def settings(self) -> str:
        """Its settings from a grid; empty if there are none."""
        return self.cell.removeprefix(self.experiment)[1:]

    @property
    def method(self) -> str:
        """What learns, with its settings from a grid."""
        return f"{self.base_method} ({self.settings})" if self.settings else self.base_method

    @property
    def greedy(self) -> float | None:
        """Mean return of the greedy policy; None if it was not evaluated."""
        return self.final.get("evaluation", {}).get("mean")

    @functools.cached_property
    def logged(self) -> dict[str, list[float]]:
        """What it logged in training, by TensorBoard's tag; nothing where its small files alone are left."""
        return read_scalars(self.path / "train")


class MixedRunsError(ValueError):
    """Runs of different settings are called the same but for the seed; the message is one line."""


class _LeftOutError(Exception):
    """Why a directory is left out."""


def collect(folders: Sequence[Path], any_version: bool = False) -> tuple[list[Run], list[str]]:
    """Read the runs that are over, of folders that hold run directories or are some.

    Args:
      folders: Where to look.
      any_version: Take runs of other versions of ngrl too.

    Returns:
      The runs by environment, cell and seed, and a line for each directory that is left out.

    Raises:
      ReadError: A folder can't be read.
      MixedRunsError: Two runs of a cell are of two experiments. Neither a mean over them nor a comparison of a grid's
        settings with one of them would say anything.
    """
    runs: dict[tuple[str, str, int], Run] = {}
    cells: dict[tuple[str, str], Run] = {}
    left_out = []
    for path in _directories(folders):
        try:
            run = _read(path, any_version)
            key = (run.env_id, run.cell, run.seed)
            if found := _other_settings(cells.setdefault(key[:2], run), run):
                raise MixedRunsError(
                    f"{path} is called like {cells[key[:2]].path} and is another experiment: {found[0]}; report them "
                    "apart"
                )
            if key in runs:
                raise _LeftOutError(f"{runs[key].path} is the same trial")
            runs[key] = run
        except (_LeftOutError, ReadError) as error:
            left_out.append(f"{path}: {str(error).replace(f'{path}/', '')}; left out")
    return [runs[key] for key in sorted(runs)], left_out


def _other_settings(one: Run, other: Run) -> list[str]:
    """The settings in which two runs differ, of those that both know: other versions of ngrl have others."""
    names = one.config.keys() & other.config.keys()
    there, here = ({name: run.config[name] for name in names} for run in (one, other))
    found = identity.differences(there, here, free=_FREE_IN_A_CELL)
    return sorted(found, key=lambda line: not line.startswith(identity.LENGTH))  # what says most first


def _directories(folders: Iterable[Path]) -> Iterable[Path]:
    for folder in folders:
        if folder.name in ("", ".."):  # a run is called what its folder is, and "." says nothing of that
            folder = folder.resolve()
        if record_path(folder).exists() or lock_path(folder).exists():
            yield folder
            continue
        with reading(folder):
            found = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
        yield from found


def _read(path: Path, any_version: bool) -> Run:
    """A run that is over.

    Raises:
      _LeftOutError: It is not over, not ngrl's, or of another version.
      ReadError: Its `run.json` or its episodes are missing or damaged.
    """
    record = read_record(path)
    if record is None:
        raise _LeftOutError("no run.json, so no run directory")
    name = _NAME.fullmatch(path.name)
    if name is None and (aside := _ASIDE.fullmatch(path.name)) and path.with_name(aside["name"]).is_dir():
        raise _LeftOutError("an earlier run that was moved aside")
    try:
        versions = {process["versions"]["ngrl"] for process in processes(record)}
        config, status = record["config"], record["status"]
        seed = record.get("seed")
    except (KeyError, TypeError):
        versions = set()
    if not versions or not isinstance(config, dict):
        raise _LeftOutError("its run.json is not ngrl's")
    if versions != {ngrl.__version__} and not any_version:
        made_by = " and ".join(sorted(versions))
        raise _LeftOutError(f"made by ngrl {made_by}, this is {ngrl.__version__} (--any_version takes it)")
    known = status_of(record)
    if known is None or not known.is_over:
        raise _LeftOutError(f"not over (its status is {status!r})")
    final = record.get("final")
    if not isinstance(final, dict) or not all(field in final for field in _NEEDED) or not isinstance(seed, int):
        raise _LeftOutError("no training run")
    try:
        settings = renamed.current(config)
        env_id = ast.literal_eval(settings["Environment.env_id"])
    except (KeyError, SyntaxError, ValueError):
        raise _LeftOutError("its run.json names no environment") from None
    cell = path.name if name is None else name["cell"]
    curve = Curve.read(path)
    last = int(curve.episodes[-1]) if len(curve) else 0
    if last != final["episodes"] and (last or final["episodes"] >= WINDOW):
        raise ReadError(f"its curve ends at episode {last:,} of {final['episodes']:,}")
    if final["episodes"] < WINDOW:  # the mean of the episodes that there are
        final = {**final, "final_100_episode_mean": None}
    return Run(path, cell, seed, env_id, known, final, curve, settings)
