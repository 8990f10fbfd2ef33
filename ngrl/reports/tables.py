"""Tables of a report: Markdown for people, CSV for programs. What was not measured is an empty cell."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ngrl.reports import published
from ngrl.reports.runs import Run
from ngrl.reports.statistics import Aggregate, Cell, Sensitivity
from ngrl.runs.files import write_csv
from ngrl.runs.record import Status

_RUN_COLUMNS = (
    "environment",
    "cell",
    "method",
    "seed",
    "status",
    "episodes",
    "env_steps",
    "best_100_episode_mean",
    "best_at_env_steps",
    "final_100_episode_mean",
    "greedy_mean",
    "env_steps_to_published",
    "wall_s_to_published",
    "wall_s",
    "skipped_updates",
)
_CELL_COLUMNS = (
    "environment",
    "cell",
    "method",
    "trials",
    "seeds",
    "diverged",
    "trials_with_best",
    "best_mean",
    "best_min",
    "best_lower_quartile",
    "best_median",
    "best_upper_quartile",
    "best_max",
    "trials_with_final",
    "final_mean",
    "trials_with_greedy",
    "greedy_mean",
    "published_ngdqn_mean",
    "trials_at_published",
    "median_env_steps_to_published",
    "median_wall_s_to_published",
    "median_wall_s",
)


def write_runs(path: Path, cells: Sequence[Cell]) -> None:
    """Write a row for each trial."""
    write_csv(path, _RUN_COLUMNS, (_run_row(cell, run) for cell in cells for run in cell.runs))


def _run_row(cell: Cell, run: Run) -> list[Any]:
    reached = run.curve.first_at_least(cell.published.score) if cell.published else None
    fields = ("best_100_episode_mean", "best_at_env_steps", "final_100_episode_mean")
    return [
        cell.env_id,
        cell.name,
        cell.method,
        run.seed,
        run.status,
        run.final["episodes"],
        run.final["env_steps"],
        *(run.final.get(field) for field in fields),
        run.greedy,
        *(reached or (None, None)),
        run.final["wall_s"],
        run.final.get("skipped_updates"),
    ]


def write_cells(path: Path, cells: Sequence[Cell]) -> None:
    """Write a row for each cell."""
    write_csv(path, _CELL_COLUMNS, map(_cell_row, cells))


def _cell_row(cell: Cell) -> list[Any]:
    scores = cell.scores()
    times = cell.times_to(cell.published.score) if cell.published else []
    steps, seconds = np.median(times, axis=0) if times else (None, None)
    return [
        cell.env_id,
        cell.name,
        cell.method,
        len(cell.runs),
        " ".join(str(run.seed) for run in cell.runs),
        sum(run.status == Status.DIVERGED for run in cell.runs),
        scores.size,
        _mean(scores),
        *(np.percentile(scores, (0, 25, 50, 75, 100)) if scores.size else [None] * 5),
        *_count_and_mean(cell.values("final_100_episode_mean")),
        *_count_and_mean(cell.values("greedy")),
        cell.published.score if cell.published else None,
        len(times) if cell.published else None,
        steps,
        seconds,
        np.median(cell.values("wall_s")),
    ]


def _mean(values: np.ndarray) -> float | None:
    return float(values.mean()) if values.size else None


def _count_and_mean(values: np.ndarray) -> tuple[int, float | None]:
    return values.size, _mean(values)


def markdown(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _number(value: float | None, form: str = ".1f") -> str:
    return "" if value is None or value != value else f"{value:{form}}".replace("-", "−")


def _range(values: Iterable[float], form: str = ",.0f") -> str:
    """`700`, or `700–1,270`."""
    low, high = min(values := list(values)), max(values)
    return _number(low, form) if low == high else f"{_number(low, form)}–{_number(high, form)}"


def _of(values: np.ndarray, cell: Cell) -> str:
    """` (2 of 3)` behind a statistic of fewer trials than the cell has, so that none is left out silently."""
    return "" if values.size == len(cell.runs) else f" ({values.size} of {len(cell.runs)})"


def _mean_of(values: np.ndarray, cell: Cell) -> str:
    return f"{_number(_mean(values))}{_of(values, cell)}" if values.size else ""


def _seeds(cell: Cell) -> str:
    """`10 (0–9)`, or `3 (0, 1, 4)`."""
    seeds = [run.seed for run in cell.runs]
    listed = ", ".join(map(str, seeds))
    if len(seeds) > 1 and seeds == list(range(seeds[0], seeds[-1] + 1)):
        listed = f"{seeds[0]}–{seeds[-1]}"
    diverged = sum(run.status == Status.DIVERGED for run in cell.runs)
    return f"{len(seeds)} ({listed})" + (f", {diverged} diverged" if diverged else "")


def scores_table(cells: Sequence[Cell]) -> str:
    """What every cell reached."""
    header = (
        "environment",
        "method",
        "trials (seeds)",
        "episodes a trial",
        "env steps a trial",
        "best 100-episode mean",
        "quartiles",
        "final 100-episode mean",
        "greedy policy",
        "minutes a trial",
    )
    return markdown(header, map(_scores_row, cells))


def _scores_row(cell: Cell) -> list[str]:
    scores = cell.scores()
    quartiles = [_number(value) for value in np.percentile(scores, (25, 50, 75))] if scores.size else []
    mean = f"**{_number(_mean(scores))}**{_of(scores, cell)}" if scores.size else ""
    return [
        cell.env_id,
        cell.method,
        _seeds(cell),
        _range(cell.values("episodes")),
        _range(cell.values("env_steps")),
        mean,
        ", ".join(quartiles),
        _mean_of(cell.values("final_100_episode_mean"), cell),
        _mean_of(cell.values("greedy"), cell),
        _number(float(np.median(cell.values("wall_s"))) / 60),
    ]


def published_table() -> str:
    """The published scores."""
    header = (
        "environment",
        "episodes a trial",
        "NGDQN, mean of 10 trials",
        "hours a trial",
        "DQN without target network, mean of 10",
        "DQN with target network, median (quartiles)",
        "hours a trial of DQN",
    )
    rows = []
    for known in dict.fromkeys(published.by_environment().values()):
        median, lower, upper = map(_number, known.dqn_target_network)
        dqn = _number(float(np.mean(known.dqn)))
        target = f"{median} ({lower}, {upper})"
        hours = [f"{known.hours[method]}" for method in ("NGDQN", "DQN")]
        rows.append([known.environment, known.episodes, _number(known.score), hours[0], dqn, target, hours[1]])
    return markdown(header, rows)


def times_table(cells: Sequence[Cell]) -> str:
    """How long the trials took to the published mean of NGDQN."""
    header = (
        "environment",
        "method",
        "published score",
        "trials that reached it",
        "env steps to it, median of those",
        "minutes to it, median of those",
        "minutes of a whole trial, median",
        "published hours of a whole trial of the method",
        "how many times as long that is",
    )
    rows = []
    for cell in cells:
        if cell.published is None:
            continue
        known, times = cell.published, cell.times_to(cell.published.score)
        steps, seconds = np.median(times, axis=0) if times else (None, None)
        whole, hours = float(np.median(cell.values("wall_s"))), cell.published_hours
        rows.append(
            [
                cell.env_id,
                cell.method,
                _number(known.score, ".2f"),
                f"{len(times)} of {len(cell.runs)}",
                _number(steps, ",.0f"),
                _number(None if seconds is None else seconds / 60),
                _number(whole / 60),
                "" if hours is None else f"{hours}",
                _number(None if hours is None else hours * 3600 / whole, ",.0f"),
            ]
        )
    return markdown(header, rows)


def aggregates_table(aggregates: Sequence[Aggregate]) -> str:
    """Interquartile means over all environments."""
    rows = [
        [
            aggregate.method,
            f"{aggregate.seeds} × {aggregate.environments}",
            _number(aggregate.iqm, ".3f"),
            ", ".join(_number(end, ".3f") for end in aggregate.interval),
        ]
        for aggregate in aggregates
    ]
    return markdown(("method", "trials × environments", "IQM", "95 % interval"), rows)


def sensitivity_table(sensitivities: Sequence[Sensitivity]) -> str:
    """Shares of configurations that solve their environment."""
    rows = [
        [
            one.environment,
            one.method,
            str(len(one.scores)),
            _number(one.solved),
            _number(one.fraction_solved, ".0%"),
            *("−∞" if np.isneginf(value) else _number(value) for value in (one.scores[-1], np.median(one.scores))),
        ]
        for one in sensitivities
    ]
    header = ("environment", "method", "configurations", "solved from", "share that solves it", "best", "median")
    return markdown(header, rows)
