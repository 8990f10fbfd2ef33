"""What trials reached together: a cell's summary, and aggregates over environments with their uncertainty."""

import dataclasses
from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from ngrl import seeding
from ngrl.messages import counted
from ngrl.reports.published import Published, by_environment
from ngrl.reports.runs import METHODS, Run

_BOOTSTRAP_REPETITIONS = 2000
#: Trials that an interval takes.
FEWEST = 3
#: Normalised scores at which performance profiles are evaluated.
PROFILE_SCORES = np.linspace(-0.5, 3.0, 71)


@dataclasses.dataclass(frozen=True)
class Cell:
    """Trials that differ in the seed alone."""

    env_id: str
    name: str  # the experiment with its settings
    runs: Sequence[Run]  # by seed

    @property
    def method(self) -> str:
        """What learns."""
        return self.runs[0].method

    @property
    def has_grid(self) -> bool:
        """Whether it is one configuration of a grid."""
        return bool(self.runs[0].settings)

    @property
    def published(self) -> Published | None:
        """What was published of the environment."""
        return by_environment().get(self.env_id)

    @property
    def environment(self) -> str:
        """The environment's name in the paper, or its id; ids that the paper doesn't tell apart share one."""
        return self.published.environment if self.published else self.env_id

    @property
    def published_hours(self) -> float | None:
        """Hours that a published trial of the same method took, with or without a target network."""
        return self.published.hours.get(self.runs[0].base_method.partition(",")[0]) if self.published else None

    def scores(self) -> np.ndarray:
        """Best mean returns of 100 episodes, of the trials that have one: those of at least 100 episodes."""
        return self.values("best_100_episode_mean")

    def values(self, field: str) -> np.ndarray:
        """A number of `final`, of the trials that have it; `greedy` is the evaluation's mean. NaN is none."""
        found = [run.greedy if field == "greedy" else run.final.get(field) for run in self.runs]
        values = np.array([value for value in found if value is not None], float)
        return values[~np.isnan(values)]

    def interquartile(self, field: str) -> tuple[float, float, float] | None:
        """Interquartile mean of `values` with its 95 % interval; None for fewer than three trials."""
        values = self.values(field)
        if values.size < FEWEST:
            return None
        mean, low, high = interquartile_means(values)
        return float(mean), float(low), float(high)

    def times_to(self, score: float) -> list[tuple[int, float]]:
        """Environment steps and seconds until each trial first reached a score, of those that did."""
        times = [run.curve.first_at_least(score) for run in self.runs]
        return [time for time in times if time is not None]


def interquartile_means(values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Interquartile means over the trials of [trials, ...], and both ends of their 95 % intervals.

    Percentile intervals of the bootstrap over trials (Agarwal et al. 2021, arXiv:2108.13264, section 4).
    """
    from scipy import stats

    found = stats.bootstrap(
        (values,),
        lambda sample, axis: stats.trim_mean(sample, 0.25, axis=axis),
        vectorized=True,
        n_resamples=_BOOTSTRAP_REPETITIONS,
        method="percentile",
        random_state=seeding.generator(0, seeding.Stream.BOOTSTRAP),
    ).confidence_interval
    return stats.trim_mean(values, 0.25), found.low, found.high


def cells(runs: Sequence[Run]) -> list[Cell]:
    """The runs by cell, in the figures' order: by the paper's environments, then by method."""
    grouped: dict[tuple[str, str], list[Run]] = defaultdict(list)
    for run in runs:
        grouped[run.env_id, run.cell].append(run)
    found = [Cell(env_id, name, members) for (env_id, name), members in grouped.items()]
    environments = [published.environment for published in by_environment().values()]
    methods = list(METHODS.values())

    def place(known: Sequence[str], name: str) -> int:
        return known.index(name) if name in known else len(known)

    return sorted(
        found,
        key=lambda cell: (
            place(environments, cell.environment),
            cell.environment,
            place(methods, cell.method),
            cell.method,
            cell.env_id,
        ),
    )


@dataclasses.dataclass(frozen=True)
class Aggregate:
    """A method over all published environments; scores as `Published.normalise` scales them."""

    method: str
    environments: int  # over how many
    seeds: int  # how many trials of each
    iqm: float  # interquartile mean of all trials' scores
    interval: tuple[float, float]  # its 95 % interval by stratified bootstrap: resampled within environments
    profile: np.ndarray  # fraction of trials above each of `PROFILE_SCORES`
    profile_interval: np.ndarray  # its 95 % intervals, [2, scores]


def aggregates(found: Sequence[Cell]) -> tuple[list[Aggregate], list[str]]:
    """What each method reached over all published environments, as far as it was run on all of them.

    A method's trials are cut to as many seeds as every environment has: the bootstrap takes a matrix.

    Returns:
      The methods, and a line for each cell or trial that doesn't count.

    Source: Agarwal et al. 2021 (arXiv:2108.13264), section 4, and their library rliable.
    """
    from rliable import library, metrics

    matrices, left_out = _matrices(found)
    if not matrices:
        return [], left_out
    with _seeded():
        points, intervals = library.get_interval_estimates(
            matrices, lambda scores: np.array([metrics.aggregate_iqm(scores)]), reps=_BOOTSTRAP_REPETITIONS
        )
        profiles, profile_intervals = library.create_performance_profile(
            matrices, PROFILE_SCORES, custom_profile_func=_share_above, reps=_BOOTSTRAP_REPETITIONS
        )
    return [
        Aggregate(
            method,
            matrix.shape[1],
            matrix.shape[0],
            float(points[method][0]),
            (float(intervals[method][0, 0]), float(intervals[method][1, 0])),
            profiles[method],
            profile_intervals[method],
        )
        for method, matrix in matrices.items()
    ], left_out


def _share_above(scores: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """Share of all trials above each threshold; all at once, where rliable's own takes one after the other."""
    return np.mean(scores[..., np.newaxis] > thresholds, axis=(0, 1))


def _matrices(found: Sequence[Cell]) -> tuple[dict[str, np.ndarray], list[str]]:
    """Scores, normalised, [seeds, environments] of each method with some on all environments; and what is left out."""
    known = {published.environment: published for published in by_environment().values()}
    by_method: dict[str, dict[str, Cell]] = defaultdict(dict)
    left_out = []
    for cell in found:
        if cell.published is None or cell.has_grid:
            continue
        lacking = len(cell.runs) - cell.scores().size
        if lacking:  # nothing can be put in the place of a missing score
            without = f"{lacking} of {counted(len(cell.runs), 'trial')} {'has' if lacking == 1 else 'have'} no score"
            left_out.append(f"{cell.name}: {without}; none of them counts")
        elif cell.environment in by_method[cell.method]:
            left_out.append(f"{cell.name} on {cell.env_id}: the method's second cell on {cell.environment}")
        else:
            by_method[cell.method][cell.environment] = cell
    matrices = {}
    for method, cells in by_method.items():
        if cells.keys() != known.keys():
            missing = ", ".join(sorted(known.keys() - cells.keys()))
            left_out.append(f"{method}: no complete cell on {missing}")
            continue
        seeds = min(len(cell.runs) for cell in cells.values())
        scores = [known[name].normalise(cells[name].scores()[:seeds]) for name in sorted(known)]
        matrices[method] = np.stack(scores, axis=1)
        for cell in cells.values():
            if len(cell.runs) > seeds:
                some = f"{seeds} of {len(cell.runs)} trials {'counts' if seeds == 1 else 'count'}"
                left_out.append(f"{cell.name}: {some}, as many as on each environment")
    return matrices, left_out


class _seeded:
    """While this context lasts NumPy's global generator, from which rliable draws, has a fixed seed."""

    def __enter__(self) -> None:
        self._state = np.random.get_state()  # noqa: NPY002
        np.random.seed(seeding.integer(0, seeding.Stream.BOOTSTRAP))  # noqa: NPY002

    def __exit__(self, *failure: object) -> None:
        np.random.set_state(self._state)  # noqa: NPY002


@dataclasses.dataclass(frozen=True)
class Sensitivity:
    """How an experiment bears other settings."""

    env_id: str
    method: str
    scores: np.ndarray  # each configuration's mean, sorted; −∞ where a trial ended before its 100th episode
    solved: float | None  # the score from which on the environment counts as solved; None where none is known

    @property
    def fraction_solved(self) -> float | None:
        """Share of the configurations that solve the environment."""
        return None if self.solved is None else float(np.mean(self.scores >= self.solved))


def sensitivities(found: Sequence[Cell]) -> list[Sensitivity]:
    """Of every experiment that was run with several configurations."""
    grids: dict[tuple[str, str], list[Cell]] = defaultdict(list)
    for cell in found:
        if cell.has_grid:
            grids[cell.env_id, cell.runs[0].experiment].append(cell)
    return [
        Sensitivity(
            env_id,
            members[0].runs[0].base_method,
            np.sort([cell.scores().mean() if cell.scores().size == len(cell.runs) else -np.inf for cell in members]),
            members[0].published.solved if members[0].published else None,
        )
        for (env_id, _), members in grids.items()
        if len(members) > 1
    ]
