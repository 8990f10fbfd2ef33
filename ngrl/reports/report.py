"""A report: tables and pictures of what runs reached, in a folder and in TensorBoard. No TensorFlow is imported."""

import dataclasses
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

from ngrl.messages import counted
from ngrl.reports import pictures, published, statistics, tables
from ngrl.reports.runs import Run
from ngrl.runs.events import EventFile
from ngrl.runs.files import write_bytes, write_text

_TITLES = {
    "scores": "Best 100-episode means",
    "time_to_published": "Time to the published score",
    "profiles": "All environments together",
    "sensitivity": "Sensitivity to settings",
    "settings": "What single settings do",
    "methods": "Methods beside each other",
}


@dataclasses.dataclass(frozen=True)
class Report:
    """What was written."""

    cells: int  # their number
    files: Sequence[Path]


def write(
    runs: Sequence[Run],
    left_out: Sequence[str],
    out: Path,
    sources: Sequence[Path],
    tags: Sequence[str] = (),
    any_version: bool = False,
) -> Report:
    """Write `report.md`, `runs.csv`, `cells.csv`, the pictures, and TensorBoard's images of them.

    Args:
      runs: The runs, at least one.
      left_out: A line for each directory that was left out.
      out: The folder; made if it isn't there.
      sources: Where the runs were read from.
      tags: Of what the runs logged in TensorBoard under these, the report tells the means.
      any_version: Whether runs of other versions of ngrl were asked for.
    """
    out.mkdir(parents=True, exist_ok=True)
    cells = statistics.cells(runs)
    aggregates, not_aggregated = statistics.aggregates(cells)
    sensitivities = statistics.sensitivities(cells)
    drawn = pictures.draw_all(cells, aggregates, sensitivities)
    files = []
    for name, png in drawn.items():
        files.append(out / f"{name}.png")
        write_bytes(files[-1], png)
    with EventFile(out / "tensorboard", replace=True) as events:
        for name, png in drawn.items():
            events.picture(f"report/{name}", png)
    tables.write_runs(out / "runs.csv", cells)
    tables.write_cells(out / "cells.csv", cells)
    text = _document(cells, aggregates, not_aggregated, sensitivities, drawn, left_out, sources, tags, any_version)
    write_text(out / "report.md", text)
    return Report(len(cells), [out / "report.md", out / "runs.csv", out / "cells.csv", *files])


def _shown(path: Path) -> str:
    """A folder as a document names it that others read too: below the current one, or by its last two names."""
    resolved = path.resolve()
    if resolved.is_relative_to(Path.cwd()):
        return str(resolved.relative_to(Path.cwd()))
    return str(Path(*resolved.parts[-2:]))


def _picture(name: str) -> str:
    return f"![{_TITLES.get(name, name)}]({name}.png)"


def _pictures(drawn: Mapping[str, bytes], name: str) -> list[str]:
    """The picture, if it was drawn."""
    return [_picture(name)] if name in drawn else []


def _published(cells: Sequence[statistics.Cell]) -> list[str]:
    """What was published of the cells' environments, if anything."""
    sections = []
    names = {cell.published.environment for cell in cells if cell.published}
    if names:
        sections += [f"As published ({published.source()}):", tables.published_table(cells)]
    if "LunarLander-v2" in names:
        sections.append(
            "On LunarLander the published figures are no end of learning: NGDQN was stopped at 48 hours, after about "
            "460 episodes. They are of LunarLander-v2, which gymnasium has replaced by LunarLander-v3."
        )
    return sections


def _interquartile(cells: Sequence[statistics.Cell]) -> list[str]:
    """The section of interquartile means, if there are any."""
    if not cells:
        return []
    text = (
        f"Means of a cell's trials, {statistics.FEWEST} or more, without the lowest and the highest quarter, and in "
        "brackets their 95 % intervals by bootstrap over the trials."
    )
    return ["## Interquartile means", text, tables.interquartile_table(cells)]


def _document(
    cells: Sequence[statistics.Cell],
    aggregates: Sequence[statistics.Aggregate],
    not_aggregated: Sequence[str],
    sensitivities: Sequence[statistics.Sensitivity],
    drawn: Mapping[str, bytes],
    left_out: Sequence[str],
    sources: Sequence[Path],
    tags: Sequence[str],
    any_version: bool,
) -> str:
    shown = {str(source): _shown(source) for source in sources}
    wanted = (f" --tags {shlex.join(tags)}" if tags else "") + (" --any_version" if any_version else "")
    command = f"python -m ngrl.report --runs {shlex.join(shown.values())} --out …{wanted}"
    trials = counted(sum(len(cell.runs) for cell in cells), "trial")
    sections = [
        "# Report",
        f"{trials} in {counted(len(cells), 'cell')}, by `{command}`. A cell that is empty was not measured.",
        "## Best 100-episode means",
        "Means over trials; the best mean return of 100 consecutive training episodes is the paper's measure. Greedy: "
        "mean return of the greedy policy over fresh episodes at the end of training. A trial that ended before its "
        "100th episode has no such means; “(2 of 3)” says of how many trials a figure is.",
        tables.scores_table(cells),
        *_pictures(drawn, "scores"),
        *_published(cells),
        *_interquartile([cell for cell in cells if len(cell.runs) >= statistics.FEWEST]),
    ]
    if any(cell.published and not cell.has_grid for cell in cells):
        sections += [
            "## Time to the published score",
            "When the mean of 100 episodes first was at least the published mean of NGDQN. The published hours "
            "are those of the same method, on other hardware; whether DQN's are with a target network isn't known. "
            "Configurations of a grid are left out.",
            tables.times_table([cell for cell in cells if not cell.has_grid]),
            *_pictures(drawn, "time_to_published"),
        ]
    if aggregates:
        sections += [
            "## All environments together",
            "Interquartile mean of normalised scores: 0 is the published mean of DQN without target network, 1 that of "
            "NGDQN. Only methods that were run on all four environments, with as many trials as each of them has.",
            tables.aggregates_table(aggregates),
            *(["Left out of it:", "\n".join(f"- {line}" for line in not_aggregated)] if not_aggregated else []),
            _picture("profiles"),
        ]
    if tags:
        text = "Means of what each trial logged: over the trials, and in brackets the lowest and the highest."
        sections += ["## Logged in training", text, tables.logged_table(cells, tags)]
    if sensitivities:
        sections += [
            "## Sensitivity to settings",
            "Of each configuration's mean score; one with a trial that has no score counts as unsolved, as −∞.",
            tables.sensitivity_table(sensitivities),
            _picture("sensitivity"),
        ]
    sections += _pictures(drawn, "settings")
    curves = [name for name in drawn if name.startswith("curves_")]
    if curves:
        sections += ["## Learning curves", *_pictures(drawn, "methods"), *map(_picture, curves)]
    if left_out:
        lines = list(left_out)
        for written, name in shown.items():
            lines = [line.replace(written, name) for line in lines]
        sections += ["## Left out", "\n".join(f"- {line}" for line in lines)]
    return "\n\n".join(sections) + "\n"
