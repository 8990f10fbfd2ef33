"""Pictures of a report, each as the content of a PNG file."""

import itertools
import re
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ngrl import figures
from ngrl.messages import counted
from ngrl.reports.statistics import FEWEST, PROFILE_SCORES, Aggregate, Cell, Sensitivity, interquartile_means

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_PUBLISHED_LABEL = "published NGDQN, mean"
_POINTS = 200
# Those of methods: grey is for what was published.
_METHOD_COLOURS = tuple(colour for colour in figures.COLOURS if colour != figures.GREY)


def draw_all(
    cells: Sequence[Cell], aggregates: Sequence[Aggregate], sensitivities: Sequence[Sensitivity]
) -> dict[str, bytes]:
    """The report's pictures by name; one for which there are no data is left out."""
    scored = {cell.environment for cell in cells if not cell.has_grid and len(cell.scores())}
    drawn = {"scores": draw_scores([cell for cell in cells if cell.environment in scored])} if scored else {}
    curved = [cell for cell in cells if not cell.has_grid and any(len(run.curve) for run in cell.runs)]
    by_method: dict[str, list[Cell]] = defaultdict(list)
    for cell in curved:
        by_method[cell.method].append(cell)
    for method, members in by_method.items():
        drawn[_unused("curves_" + re.sub(r"\W+", "_", method.lower()).strip("_"), drawn)] = draw_curves(method, members)
    if compared := _compared(curved):
        drawn["methods"] = draw_methods(compared)
    timed = {cell.environment for cell in cells if not cell.has_grid and _minutes(cell)}
    if timed:
        drawn["time_to_published"] = draw_times([cell for cell in cells if cell.environment in timed])
    if aggregates:
        drawn["profiles"] = draw_profiles(aggregates)
    if sensitivities:
        drawn["sensitivity"] = draw_sensitivities(sensitivities)
    if configurations := _configurations(cells):
        drawn["settings"] = draw_settings(configurations)
    return drawn


def _unused(name: str, taken: Collection[str]) -> str:
    """The name, with a number where it is taken."""
    numbered = (name if number == 1 else f"{name}_{number}" for number in itertools.count(1))
    return next(free for free in numbered if free not in taken)


def _configurations(cells: Sequence[Cell]) -> list[list[Cell]]:
    """The cells of every grid with trials enough for an interval, the best one first."""
    grids: dict[tuple[str, str], list[Cell]] = defaultdict(list)
    for cell in cells:
        if cell.values("greedy").size >= FEWEST:
            grids[cell.env_id, cell.runs[0].experiment].append(cell)
    return [
        sorted(members, key=lambda cell: -cell.values("greedy").mean())
        for members in grids.values()
        if any(cell.has_grid for cell in members)
    ]


def _panels_of_methods(
    cells: Sequence[Cell], row: float, more_rows: int, caption: str
) -> "tuple[Figure, list[tuple[Axes, str, list[Cell]]], dict[str, str]]":
    """A panel for each environment, high enough for a row a method; with its name and cells, and methods' colours."""
    environments: dict[str, list[Cell]] = defaultdict(list)
    for cell in cells:
        if not cell.has_grid:
            environments[cell.environment].append(cell)
    tallest = max(map(len, environments.values()), default=1)
    figure, axes = figures.new_panels(len(environments), 2, 6.2, 1.0 + row * (tallest + more_rows), caption)
    panels = [(axis, *members) for axis, members in zip(axes, environments.items(), strict=True)]
    return figure, panels, _colours([cell.method for cell in cells])


def _title(environment: str, cells: Sequence[Cell]) -> str:
    """The paper's environment, and what the trials ran on where that is another version of it."""
    own = ", ".join(dict.fromkeys(cell.env_id for cell in cells))
    return environment if own == environment else f"{environment}, here {own}"


def _count(number: int, cell: Cell) -> str:
    """`10`, or `8 of 10` where a picture shows fewer trials than there are."""
    return f"{number}" if number == len(cell.runs) else f"{number} of {len(cell.runs)}"


def _colours(methods: Sequence[str]) -> dict[str, str]:
    return dict(zip(dict.fromkeys(methods), itertools.cycle(_METHOD_COLOURS), strict=False))


def _boxes(axis: "Axes", positions: Sequence[float], scores: Sequence[np.ndarray], colours: Sequence[str]) -> None:
    """Boxes from quartile to quartile, whiskers over all trials, a dot a trial, a diamond at the mean."""
    boxes = axis.boxplot(
        scores,
        positions=positions,
        orientation="horizontal",
        widths=0.6,
        whis=(0, 100),
        patch_artist=True,
        manage_ticks=False,
    )
    for box, median, colour in zip(boxes["boxes"], boxes["medians"], colours, strict=True):
        box.set(facecolor=colour, alpha=0.45, edgecolor="0.2", linewidth=0.8)
        median.set(color="0.1", linewidth=1.2)
    for part in (*boxes["whiskers"], *boxes["caps"]):
        part.set(color="0.2", linewidth=0.8)
    for position, values, colour in zip(positions, scores, colours, strict=True):
        if not len(values):
            continue
        offsets = np.linspace(-0.18, 0.18, len(values)) if len(values) > 1 else [0.0]
        axis.plot(values, position + np.asarray(offsets), ".", color=colour, markersize=4, markeredgecolor="0.3")
        axis.plot(np.mean(values), position, "D", color="white", markeredgecolor="0.1", markersize=4.5)


def draw_scores(cells: Sequence[Cell]) -> bytes:
    """Knight & Lerner's Fig. 1: best 100-episode means, the published beside those of the runs."""
    published = any(cell.published for cell in cells if not cell.has_grid)
    grey = "; grey: as published. Of DQN with a target network median and quartiles are known" if published else ""
    caption = (
        "After Knight & Lerner (2018), Fig. 1. Boxes from quartile to quartile, whiskers over all trials, a dot a "
        f"trial, diamonds at means{grey}. In brackets the number of trials, and of how many where some have no score."
    )
    if any(cell.has_grid for cell in cells):
        caption += " Grids are left out."
    figure, panels, colours = _panels_of_methods(cells, 0.33, 3 if published else 0, caption)
    for axis, environment, members in panels:
        rows: list[tuple[str, Any, str]] = [
            (f"{cell.method} ({_count(len(cell.scores()), cell)})", cell.scores(), colours[cell.method])
            for cell in members
        ]
        known = members[0].published
        if known is not None:
            rows += [
                ("published NGDQN (10)", np.asarray(known.ngdqn, float), figures.GREY),
                ("published DQN, no target network (10)", np.asarray(known.dqn, float), figures.GREY),
            ]
        positions = [-float(number) for number in range(len(rows))]
        _boxes(axis, positions, [row[1] for row in rows], [row[2] for row in rows])
        labels = [row[0] for row in rows]
        if known is not None:
            median, lower, upper = known.dqn_target_network
            positions.append(-float(len(rows)))
            labels.append("published DQN, target network")
            error = [[median - lower], [upper - median]]
            axis.errorbar(median, positions[-1], xerr=error, fmt="|", color="0.3", capsize=3, markersize=9)
        axis.set_yticks(positions, labels)
        if not all(len(row[1]) for row in rows):  # rows without a box have their room too
            axis.set_ylim(positions[-1] - 0.5, 0.5)
        figures.tidy(axis, _title(environment, members), "best mean return of 100 episodes", "")
    return figures.as_png(figure)


def draw_curves(method: str, cells: Sequence[Cell]) -> bytes:
    """Knight & Lerner's Figs. 2 and 3: the curves of all trials of a method with their mean."""
    colour = figures.BLUE
    figure, axes = figures.new_panels(
        len(cells),
        2,
        4.6,
        3.0,
        "Thin: trials. Bold: their mean, as far as all of them go. Returns are means of 100 episodes.",
    )
    for axis, cell in zip(axes, cells, strict=True):
        curves = [run.curve.thinned() for run in cell.runs if len(run.curve)]
        figures.draw_trials(
            axis, [curve.env_steps / 1e3 for curve in curves], [curve.means for curve in curves], colour, method
        )
        if cell.published is not None:
            axis.axhline(cell.published.score, color="0.35", linestyle="--", linewidth=0.9, label=_PUBLISHED_LABEL)
        trials = ("" if len(curves) == len(cell.runs) else f"{len(curves)} of ") + counted(len(cell.runs), "trial")
        figures.tidy(axis, f"{cell.env_id}, {trials}", "environment steps (thousands)", "mean return, 100 episodes")
        if axis.get_legend_handles_labels()[0]:  # too short a run has no curve to name
            axis.legend(fontsize=7.5, loc="best", framealpha=0.9)
    return figures.as_png(figure)


def _compared(cells: Sequence[Cell]) -> dict[str, list[Cell]]:
    """The cells by environment, of the environments on which there are two or more to compare."""
    environments: dict[str, list[Cell]] = defaultdict(list)
    for cell in cells:
        environments[cell.env_id].append(cell)
    return {env_id: members for env_id, members in environments.items() if len(members) > 1}


def draw_methods(environments: Mapping[str, Sequence[Cell]]) -> bytes:
    """The curves of all methods on an environment, a panel an environment."""
    styles = _styles([cell.method for members in environments.values() for cell in members])
    figure, axes = figures.new_panels(
        len(environments),
        2,
        6.2,
        3.8,
        "Interquartile means over the trials of mean returns of 100 episodes, as far as all trials go; bands: 95 % "
        f"intervals by bootstrap, of {FEWEST} trials or more. In brackets the number of trials.",
    )
    for axis, (env_id, members) in zip(axes, environments.items(), strict=True):
        for cell in members:
            curves = [run.curve for run in cell.runs if len(run.curve)]
            steps, returns = figures.align([c.env_steps / 1e3 for c in curves], [c.means for c in curves], _POINTS)
            colour, line = styles[cell.method]
            label = f"{cell.method} ({_count(len(curves), cell)})"
            if len(curves) < FEWEST or not steps.size:
                axis.plot(steps, returns.mean(axis=0), line, color=colour, label=label)
                continue
            middle, low, high = interquartile_means(returns)
            axis.plot(steps, middle, line, color=colour, label=label)
            axis.fill_between(steps, low, high, color=colour, alpha=0.15, linewidth=0)
        figures.tidy(axis, env_id, "environment steps (thousands)", "mean return, 100 episodes")
        axis.legend(fontsize=7.5, loc="best", framealpha=0.9)
    return figures.as_png(figure)


def _styles(methods: Sequence[str]) -> dict[str, tuple[str, str]]:
    """A colour and a kind of line for each method, the next kind where the colours have been used up."""
    every = itertools.cycle(itertools.product(("-", "--", ":", "-."), _METHOD_COLOURS))
    return {method: (colour, line) for method, (line, colour) in zip(dict.fromkeys(methods), every, strict=False)}


def _minutes(cell: Cell) -> list[float]:
    """Minutes of training until each trial first reached the published score, of those that did."""
    return [seconds / 60 for _, seconds in cell.times_to(cell.published.score)] if cell.published else []


def draw_times(cells: Sequence[Cell]) -> bytes:
    """Minutes of training until the published score, on a logarithmic scale, beside the published hours."""
    caption = (
        "Minutes of training until the mean of 100 episodes first was at least the published mean of NGDQN; a dot a "
        "trial, in brackets how many trials got there."
    )
    if any(cell.published_hours is not None for cell in cells if not cell.has_grid):
        caption += " Upright strokes: what a published trial of the method took as a whole."
    figure, panels, colours = _panels_of_methods(cells, 0.3, 1, caption)
    for axis, environment, members in panels:
        known = members[0].published
        assert known is not None
        labels = []
        for number, cell in enumerate(members):
            minutes = _minutes(cell)
            labels.append(f"{cell.method} ({len(minutes)} of {len(cell.runs)})")
            axis.plot(minutes, [-number] * len(minutes), "o", color=colours[cell.method], alpha=0.7, markersize=5)
            if cell.published_hours is not None:
                axis.plot(60 * cell.published_hours, -number, "|", color="0.35", markersize=18, markeredgewidth=1.5)
        axis.set_xscale("log")
        axis.margins(x=0.08)
        axis.set_ylim(-len(members) + 0.4, 0.6)
        axis.set_yticks([-number for number in range(len(members))], labels)
        figures.tidy(axis, f"{_title(environment, members)}: {known.score:.1f}", "minutes", "")
    return figures.as_png(figure)


def draw_profiles(aggregates: Sequence[Aggregate]) -> bytes:
    """Interquartile means and performance profiles with their 95 % intervals."""
    figure = figures.new_figure(
        10,
        3.6,
        "Scores on a scale on which the published mean of DQN without target network is 0 and that of NGDQN is 1. Bars "
        "and bands: 95 % intervals by stratified bootstrap (Agarwal et al. 2021).",
    )
    means, profiles = figure.subplots(1, 2)
    colours = _colours([aggregate.method for aggregate in aggregates])
    for number, aggregate in enumerate(aggregates):
        colour = colours[aggregate.method]
        low, high = aggregate.interval
        means.plot([low, high], [-number] * 2, color=colour, linewidth=7, alpha=0.45, solid_capstyle="butt")
        means.plot(aggregate.iqm, -number, "|", color="0.1", markersize=12)
        profiles.plot(PROFILE_SCORES, aggregate.profile, color=colour, label=aggregate.method)
        profiles.fill_between(PROFILE_SCORES, *aggregate.profile_interval, color=colour, alpha=0.2)
    labels = [f"{one.method} ({one.seeds} × {one.environments})" for one in aggregates]
    means.set_yticks([-number for number in range(len(aggregates))], labels)
    means.set_ylim(-len(aggregates) + 0.4, 0.6)
    figures.tidy(means, "interquartile mean", "normalised score", "")
    figures.tidy(profiles, "performance profile", "normalised score τ", "share of trials above τ")
    profiles.legend(fontsize=7.5, loc="upper right", framealpha=0.9)
    return figures.as_png(figure)


def draw_sensitivities(sensitivities: Sequence[Sensitivity]) -> bytes:
    """How many of the configurations of a grid reach a score."""
    environments: dict[str, list[Sensitivity]] = defaultdict(list)
    for one in sensitivities:
        environments[one.env_id].append(one)
    colours = _colours([one.method for one in sensitivities])
    figure, axes = figures.new_panels(
        len(environments), 2, 4.6, 3.0, "Share of the configurations whose mean best score is at least the abscissa."
    )
    for axis, (environment, members) in zip(axes, environments.items(), strict=True):
        for one in members:
            finite = one.scores[np.isfinite(one.scores)]
            shares = np.arange(len(finite), 0, -1) / len(one.scores)
            label = f"{one.method} ({len(one.scores)})"
            axis.step(finite, shares, where="pre", color=colours[one.method], label=label)
        if members[0].solved is not None:
            axis.axvline(members[0].solved, color="0.35", linestyle="--", linewidth=0.9, label="solved")
        axis.set_ylim(0, 1.02)
        figures.tidy(axis, environment, "best mean return of 100 episodes", "share of configurations")
        axis.legend(fontsize=7.5, loc="lower left", framealpha=0.9)
    return figures.as_png(figure)


def draw_settings(configurations: Sequence[Sequence[Cell]]) -> bytes:
    """What the greedy policies of every configuration reach, a panel a grid."""
    figure, axes = figures.new_panels(
        len(configurations),
        2,
        6.2,
        1.0 + 0.33 * max(map(len, configurations)),
        "Greedy policy after training: a dot a trial, diamonds at means, strokes and bars at interquartile means and "
        "their 95 % intervals by bootstrap. In brackets the number of trials; orange: nothing changed.",
    )
    for axis, members in zip(axes, configurations, strict=True):
        labels = []
        for number, cell in enumerate(members):
            values, interval = cell.values("greedy"), cell.interquartile("greedy")
            assert interval is not None
            middle, *ends = interval
            colour = figures.BLUE if cell.has_grid else figures.ORANGE
            axis.plot(ends, [-number] * 2, color=colour, linewidth=8, alpha=0.35, solid_capstyle="butt")
            axis.plot(middle, -number, "|", color="0.1", markersize=12)
            axis.plot(values, [-number] * len(values), ".", color=colour, markersize=5, markeredgecolor="0.3")
            axis.plot(values.mean(), -number, "D", color="white", markeredgecolor="0.1", markersize=4.5)
            labels.append(f"{cell.runs[0].settings or 'as it is'} ({_count(len(values), cell)})")
        axis.set_yticks([-number for number in range(len(members))], labels)
        axis.set_ylim(-len(members) + 0.4, 0.6)
        figures.tidy(axis, f"{members[0].env_id}, {members[0].runs[0].base_method}", "mean return", "")
    return figures.as_png(figure)
