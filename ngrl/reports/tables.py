"""Tables of a report: Markdown for people, CSV for programs. What was not measured is an empty cell."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ngrl.reports import published
from ngrl.reports.runs import Run
from ngrl.reports.statistics import Aggregate, Cell, Sensitivity
from ngrl.runs.files import write_csv
from ngrl.runs.record import Status

_MEASURES = {"best": "best_100_episode_mean", "final": "final_100_episode_mean", "greedy": "greedy"}
_QUARTILES = ("min", "lower_quartile", "median", "upper_quartile", "max")


def write_runs(path: Path, cells: Sequence[Cell]) -> None:
    """Write a row for each trial."""
    _write(path, [_run_row(cell, run) for cell in cells for run in cell.runs])


def write_cells(path: Path, cells: Sequence[Cell]) -> None:
    """Write a row for each cell."""
    _write(path, [_cell_row(cell) for cell in cells])


def _write(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    write_csv(path, list(rows[0]), (list(row.values()) for row in rows))


def _run_row(cell: Cell, run: Run) -> dict[str, Any]:
    reached = run.curve.first_at_least(cell.published.score) if cell.published else None
    steps, seconds = reached or (None, None)
    return {
        "environment": cell.env_id,
        "cell": cell.name,
        "method": cell.method,
        "seed": run.seed,
        "status": run.status,
        "episodes": run.final["episodes"],
        "env_steps": run.final["env_steps"],
        "best_100_episode_mean": run.final["best_100_episode_mean"],
        "best_at_env_steps": run.final.get("best_at_env_steps"),
        "final_100_episode_mean": run.final["final_100_episode_mean"],
        "greedy_mean": run.greedy,
        "env_steps_to_published": steps,
        "wall_s_to_published": seconds,
        "wall_s": run.final["wall_s"],
        "skipped_updates": run.final.get("skipped_updates"),
    }


def _cell_row(cell: Cell) -> dict[str, Any]:
    scores, final, greedy = cell.scores(), cell.values("final_100_episode_mean"), cell.values("greedy")
    times = cell.times_to(cell.published.score) if cell.published else []
    steps, seconds = np.median(times, axis=0) if times else (None, None)
    quartiles = np.percentile(scores, (0, 25, 50, 75, 100)) if scores.size else [None] * 5
    return {
        "environment": cell.env_id,
        "cell": cell.name,
        "method": cell.method,
        "trials": len(cell.runs),
        "seeds": " ".join(str(run.seed) for run in cell.runs),
        "diverged": _diverged(cell),
        "trials_with_best": scores.size,
        "best_mean": _mean(scores),
        **{f"best_{name}": value for name, value in zip(_QUARTILES, quartiles, strict=True)},
        "trials_with_final": final.size,
        "final_mean": _mean(final),
        "trials_with_greedy": greedy.size,
        "greedy_mean": _mean(greedy),
        **_interval_columns(cell),
        "published_ngdqn_mean": cell.published.score if cell.published else None,
        "trials_at_published": len(times) if cell.published else None,
        "median_env_steps_to_published": steps,
        "median_wall_s_to_published": seconds,
        "median_wall_s": np.median(cell.values("wall_s")),
    }


def _interval_columns(cell: Cell) -> dict[str, float | None]:
    columns: dict[str, float | None] = {}
    for name, field in _MEASURES.items():
        found = cell.interquartile(field) or (None, None, None)
        columns |= {f"{name}_{part}": value for part, value in zip(("iqm", "iqm_low", "iqm_high"), found, strict=True)}
    return columns


def _mean(values: np.ndarray) -> float | None:
    return float(values.mean()) if values.size else None


def _diverged(cell: Cell) -> int:
    return sum(run.status == Status.DIVERGED for run in cell.runs)


def markdown(rows: Sequence[Mapping[str, str]]) -> str:
    """A Markdown table of rows, each column to text."""
    lines = [rows[0], ["---"] * len(rows[0]), *(row.values() for row in rows)]
    return "\n".join(f"| {' | '.join(cell.replace('|', '&#124;') for cell in line)} |" for line in lines)


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
    diverged = _diverged(cell)
    return f"{len(seeds)} ({listed})" + (f", {diverged} diverged" if diverged else "")


def scores_table(cells: Sequence[Cell]) -> str:
    """What every cell reached."""
    return markdown([_scores_row(cell) for cell in cells])


def _scores_row(cell: Cell) -> dict[str, str]:
    scores = cell.scores()
    quartiles = [_number(value) for value in np.percentile(scores, (25, 50, 75))] if scores.size else []
    return {
        "environment": cell.env_id,
        "method": cell.method,
        "trials (seeds)": _seeds(cell),
        "episodes a trial": _range(cell.values("episodes")),
        "env steps a trial": _range(cell.values("env_steps")),
        "best 100-episode mean": f"**{_number(_mean(scores))}**{_of(scores, cell)}" if scores.size else "",
        "quartiles": ", ".join(quartiles),
        "final 100-episode mean": _mean_of(cell.values("final_100_episode_mean"), cell),
        "greedy policy": _mean_of(cell.values("greedy"), cell),
        "minutes a trial": _number(float(np.median(cell.values("wall_s"))) / 60),
    }


def interquartile_table(cells: Sequence[Cell]) -> str:
    """What the middle half of a cell's trials reached, with an interval."""
    return markdown([_interquartile_row(cell) for cell in cells])


def _interquartile_row(cell: Cell) -> dict[str, str]:
    row = {"environment": cell.env_id, "method": cell.method, "trials (seeds)": _seeds(cell)}
    names = ("best 100-episode mean", "final 100-episode mean", "greedy policy")
    for name, field in zip(names, _MEASURES.values(), strict=True):
        middle, low, high = map(_number, cell.interquartile(field) or (None, None, None))
        row[name] = f"{middle} ({low}, {high}){_of(cell.values(field), cell)}" if middle else ""
    return row


def logged_table(cells: Sequence[Cell], tags: Sequence[str]) -> str:
    """The mean over a run of what it logged under each tag: its mean over the trials, the lowest and the highest."""
    return markdown([_logged_row(cell, tags) for cell in cells])


def _logged_row(cell: Cell, tags: Sequence[str]) -> dict[str, str]:
    row = {"environment": cell.env_id, "method": cell.method, "trials (seeds)": _seeds(cell)}
    for tag in tags:
        values = np.array([np.mean(run.logged[tag]) for run in cell.runs if tag in run.logged])
        spread = f" ({_number(values.min(), '.3g')}, {_number(values.max(), '.3g')})" if values.size > 1 else ""
        row[tag] = f"{_number(_mean(values), '.3g')}{spread}{_of(values, cell)}" if values.size else ""
    return row


def published_table(cells: Sequence[Cell]) -> str:
    """The published scores of the cells' environments."""
    rows = []
    for known in dict.fromkeys(cell.published for cell in cells if cell.published):
        median, lower, upper = map(_number, known.dqn_target_network)
        rows.append(
            {
                "environment": known.environment,
                "episodes a trial": known.episodes,
                "NGDQN, mean of 10 trials": _number(known.score),
                "hours a trial": f"{known.hours['NGDQN']}",
                "DQN without target network, mean of 10": _number(float(np.mean(known.dqn))),
                "DQN with target network, median (quartiles)": f"{median} ({lower}, {upper})",
                "hours a trial of DQN": f"{known.hours['DQN']}",
            }
        )
    return markdown(rows)


def times_table(cells: Sequence[Cell]) -> str:
    """How long the trials took to the published mean of NGDQN."""
    return markdown([_times_row(cell, cell.published) for cell in cells if cell.published])


def _times_row(cell: Cell, known: published.Published) -> dict[str, str]:
    times = cell.times_to(known.score)
    steps, seconds = np.median(times, axis=0) if times else (None, None)
    whole, hours = float(np.median(cell.values("wall_s"))), cell.published_hours
    return {
        "environment": cell.env_id,
        "method": cell.method,
        "published score": _number(known.score, ".2f"),
        "trials that reached it": f"{len(times)} of {len(cell.runs)}",
        "env steps to it, median of those": _number(steps, ",.0f"),
        "minutes to it, median of those": _number(None if seconds is None else seconds / 60),
        "minutes of a whole trial, median": _number(whole / 60),
        "published hours of a whole trial of the method": "" if hours is None else f"{hours}",
        "how many times as long that is": _number(None if hours is None else hours * 3600 / whole, ",.0f"),
    }


def aggregates_table(aggregates: Sequence[Aggregate]) -> str:
    """Interquartile means over all environments."""
    rows = [
        {
            "method": aggregate.method,
            "trials × environments": f"{aggregate.seeds} × {aggregate.environments}",
            "IQM": _number(aggregate.iqm, ".3f"),
            "95 % interval": ", ".join(_number(end, ".3f") for end in aggregate.interval),
        }
        for aggregate in aggregates
    ]
    return markdown(rows)


def sensitivity_table(sensitivities: Sequence[Sensitivity]) -> str:
    """Shares of configurations that solve their environment."""
    rows = []
    for one in sensitivities:
        best, median = ("−∞" if np.isneginf(x) else _number(x) for x in (one.scores[-1], np.median(one.scores)))
        rows.append(
            {
                "environment": one.env_id,
                "method": one.method,
                "configurations": str(len(one.scores)),
                "solved from": _number(one.solved),
                "share that solves it": _number(one.fraction_solved, ".0%"),
                "best": best,
                "median": median,
            }
        )
    return markdown(rows)
