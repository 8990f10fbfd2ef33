"""A study: a gin file that names experiments, grids of settings and seeds.

    Study.parts = (@natural/Part(), @baseline/Part())
    Part.seeds = 10
    natural/Part.experiments = ("gin/ngdqn_lunar.gin",)
    natural/Part.grid = {"NaturalGradient.damping": (0.1, 1.0, @LevenbergMarquardt())}
    baseline/Part.experiments = ("gin/dqn_lunar.gin",)

Each experiment is run with every combination of its part's grid and with every seed. The file is read, not run:
`@LevenbergMarquardt()` above stands for itself, for the experiments' own configuration.
"""

import contextlib
import dataclasses
import itertools
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ngrl import packaged
from ngrl.checks import check_count, check_number
from ngrl.configurable import configurable
from ngrl.configuration import annotations
from ngrl.configuration import binding as configuration
from ngrl.configuration.binding import Binding, ConfigurationError
from ngrl.studies.trials import Trial, experiment_name, seeds_of

_STUDY, _PART = "ngrl.Study", "ngrl.Part"


@configurable
@dataclasses.dataclass(frozen=True)
class Part:
    """Experiments that share a grid and seeds.

    Attributes:
      experiments: Gin files, relative to the current folder.
      seeds: Their number, or a list of them.
      grid: Settings with the values to try, such as `{"OffPolicyLoop.batch_size": (32, 128)}`.
      bindings: Settings that all trials of the part share, with a value each.
    """

    experiments: Sequence[str]
    seeds: int | Sequence[int] = 10
    grid: Mapping[str, Sequence[Any]] = dataclasses.field(default_factory=dict)
    bindings: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@configurable
@dataclasses.dataclass(frozen=True)
class Study:
    """What a study file describes.

    Attributes:
      parts: Its parts, the first of which is run first.
      cpus_per_trial: Cores, and threads, of each trial.
      gpus_per_trial: GPUs of each trial; a fraction lets several share one.
      max_failures: How often a trial whose process or worker died is started again, from its checkpoint.

    Raises:
      ValueError: A number is out of its range.
    """

    parts: Sequence[Part]
    cpus_per_trial: int = 1
    gpus_per_trial: float = 0.0
    max_failures: int = 3

    def __post_init__(self) -> None:
        check_count("cpus_per_trial", self.cpus_per_trial)
        check_number("gpus_per_trial", self.gpus_per_trial, "[0, inf)")
        check_count("max_failures", self.max_failures, 0)


@dataclasses.dataclass(frozen=True)
class PlannedTrial:
    """A trial with what is known of it before it runs."""

    trial: Trial
    settings: Mapping[str, Any]  # what distinguishes it: the experiment, the seed and the values from the grid, by name
    config: Mapping[str, str]  # its bindings, name to value as text


@dataclasses.dataclass(frozen=True)
class Plan:
    """A study's settings with all its trials, in the order in which they are run."""

    name: str
    study: Study
    trials: Sequence[PlannedTrial]


def read(path: str, allow_gin_import: Sequence[str] = (), seeds: Sequence[int] | None = None) -> Plan:
    """Read a study and check every experiment of it, with every combination of settings.

    Args:
      path: The study's gin file.
      allow_gin_import: Modules outside ngrl that gin files may import.
      seeds: Seeds to run in place of the file's.

    Raises:
      ConfigurationError: The study or one of its experiments is not as it must be; one line that says where.
    """
    bindings = _read([path], [], allow_gin_import)
    in_force = {binding.key: binding for binding in bindings}
    for binding in bindings:
        if binding.key[1] not in (_STUDY, _PART, configuration.MACRO):
            raise ConfigurationError(
                f"{binding.where}: {binding.name} is no part of a study: it belongs into Part.grid"
            )
    options, parts = _fields(in_force, _STUDY, [], path)
    trials: list[PlannedTrial] = []
    for reference in options.pop("parts"):
        if not isinstance(reference, annotations.Made) or reference.type is not Part:
            raise ConfigurationError(f"{parts['parts']}: Study.parts holds references such as @name/Part()")
        scopes = reference.text.removeprefix("@").split("/")[:-1]
        values, places = _fields(in_force, _PART, scopes, path)
        trials += _expand(values, places, allow_gin_import, seeds)
    twice = [name for name, count in Counter(planned.trial.name for planned in trials).items() if count > 1]
    if twice:
        raise ConfigurationError(f"{path}: {twice[0]} occurs twice")
    try:
        return Plan(Path(path).stem, Study(parts=(), **options), trials)
    except ValueError as error:
        raise ConfigurationError(f"{path}: Study.{error}") from None


@contextlib.contextmanager
def same_folder() -> Iterator[None]:
    """In the same working folder afterwards, whatever modules and environments do."""
    folder = os.getcwd()
    try:
        yield
    finally:
        os.chdir(folder)


@same_folder()
def _read(*arguments: Any) -> list[Binding]:
    """As `configuration.read`."""
    return configuration.read(*arguments)


def _fields(
    in_force: Mapping[configuration.Key, Binding], selector: str, scopes: Sequence[str], path: str
) -> tuple[dict[str, Any], dict[str, str]]:
    """What is bound to a configurable in a scope, by parameter, and where."""
    values, places = {}, {}
    for count in range(len(scopes) + 1):  # inner scopes win, as gin has it
        for (scope, owner, parameter), binding in in_force.items():
            if owner == selector and scope == "/".join(scopes[:count]):
                values[parameter] = configuration.resolve(binding.value, dict(in_force))
                places[parameter] = binding.where
    required = "parts" if selector == _STUDY else "experiments"
    if not values.get(required):
        name = "/".join([*scopes, selector.rpartition(".")[2]])
        raise ConfigurationError(f"{places.get(required, path)}: {name}.{required} is missing or empty")
    return values, places


def _expand(
    values: Mapping[str, Any],
    places: Mapping[str, str],
    allow_gin_import: Sequence[str],
    seeds: Sequence[int] | None,
) -> Iterator[PlannedTrial]:
    """All trials of a part."""
    where = places.get("grid", places.get("bindings", places["experiments"]))
    try:
        chosen = seeds_of(values.get("seeds", Part.seeds) if seeds is None else seeds)
    except ValueError as error:
        # The seeds of a part that names none are right.
        raise ConfigurationError(f"{places['seeds'] if seeds is None else '--seeds'}: {error}") from None
    # The repr of a resolved value is what a gin file holds.
    shared = {name: repr(value) for name, value in values.get("bindings", {}).items()}
    grid = {name: tuple(map(repr, choices)) for name, choices in values.get("grid", {}).items()}
    empty = [name for name, choices in grid.items() if not choices]
    if empty:
        raise ConfigurationError(f"{where}: {empty[0]} has no values to try")
    for gin_file in values["experiments"]:
        if not packaged.is_there(gin_file):
            raise ConfigurationError(f'{places["experiments"]}: no such experiment: "{gin_file}"')
        for combination in itertools.product(*grid.values()):
            point = dict(zip(grid, combination, strict=True))
            bindings = tuple(f"{name} = {text}" for name, text in {**shared, **point}.items())
            cell = "-".join([experiment_name(gin_file), *_labels(point)])
            read_bindings = _read([gin_file], bindings, allow_gin_import, {"seed": "0"}, where)
            config = configuration.identity_of(read_bindings)
            seed_name = read_bindings[-1].name
            for seed in chosen:
                yield PlannedTrial(
                    Trial(cell, gin_file, seed, bindings, tuple(allow_gin_import)),
                    {"experiment": experiment_name(gin_file), "seed": seed, **point},
                    {**config, seed_name: str(seed)},
                )


def _labels(point: Mapping[str, str]) -> list[str]:
    """How a cell's name tells its settings: `batch_size=32`; with the configurable's name where that is ambiguous."""
    last = Counter(name.rpartition(".")[2] for name in point)
    return [
        f"{short if last[short] == 1 else name.replace('/', '.')}={_plain(text)}"
        for name, text in point.items()
        for short in [name.rpartition(".")[2]]
    ]


def _plain(text: str) -> str:
    """A value's text in letters that suit a file name."""
    return re.sub(r"[^\w.+-]+", "_", text).strip("_")
