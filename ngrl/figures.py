"""What pictures share: matplotlib, imported only where one is drawn, and their look."""

import io
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BLUE, ORANGE, GREEN, PURPLE, GREY, GOLD = COLOURS = ("#1b6ca8", "#d1603d", "#4c956c", "#7d5ba6", "#8d99ae", "#c9a227")
_DOTS_PER_INCH = 120
_CAPTION_CHARACTERS_PER_INCH = 17


def check_matplotlib() -> None:
    """See that figures can be drawn, before anything is computed for them.

    Raises:
      ImportError: Matplotlib is not installed.
    """
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError as error:
        raise ImportError("figures need matplotlib: pip install 'ngrl[report]'") from error


def new_figure(width: float, height: float, caption: str = "") -> "Figure":
    """An empty figure of that size in inches, with a caption under whatever is drawn in it."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    if caption:
        lines = textwrap.wrap(caption, int(width * _CAPTION_CHARACTERS_PER_INCH))
        figure.supxlabel("\n".join(lines), x=0.01, ha="left", fontsize=8, color="0.3")
    return figure


def new_panels(count: int, columns: int, width: float, height: float, caption: str = "") -> "tuple[Figure, list[Axes]]":
    """A figure of `count` panels of that size in inches each, at most `columns` side by side."""
    columns = max(1, min(columns, count))
    rows = max(1, -(-count // columns))
    figure = new_figure(width * columns, height * rows + (0.5 if caption else 0.0), caption)
    axes = list(np.atleast_1d(figure.subplots(rows, columns)).flat)
    for spare in axes[count:]:
        spare.remove()
    return figure, axes[:count]


def as_png(figure: "Figure") -> bytes:
    """A figure as the content of a PNG file."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=_DOTS_PER_INCH, facecolor="white")
    return buffer.getvalue()


def save(figure: "Figure", out: Path) -> None:
    """Write a PNG, and say where."""
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_bytes(as_png(figure))
    print(out)


def tidy(axis: "Axes", title: str, xlabel: str, ylabel: str) -> None:
    """Title, labels and the common look of an axis."""
    axis.set_title(title, fontsize=10)
    axis.set_xlabel(xlabel, fontsize=9)
    axis.set_ylabel(ylabel, fontsize=9)
    axis.tick_params(labelsize=8)
    axis.grid(alpha=0.25)
    axis.spines[["top", "right"]].set_visible(False)


def align(x: Sequence[np.ndarray], y: Sequence[np.ndarray], points: int) -> tuple[np.ndarray, np.ndarray]:
    """Curves of trials at the same abscissae, as far as all of them go.

    Args:
      x: Abscissae of each trial, increasing, [T_i].
      y: Ordinates of each trial, [T_i].
      points: How many abscissae there are to be.

    Returns:
      Abscissae [points], and each trial's ordinates [trials, points]; none where two trials have none in common.
    """
    start = max(float(abscissae[0]) for abscissae in x)
    end = min(float(abscissae[-1]) for abscissae in x)
    grid = np.linspace(start, end, points if start < end else 0)
    return grid, np.stack([np.interp(grid, *trial) for trial in zip(x, y, strict=True)])


def draw_trials(
    axis: "Axes", x: Sequence[np.ndarray], y: Sequence[np.ndarray], colour: str, label: str, points: int = 400
) -> None:
    """Draw curves of trials thinly and their mean boldly, as far as all of them go.

    Args:
      axis: Where to draw.
      x: Abscissae of each trial, increasing, [T_i].
      y: Ordinates of each trial, [T_i].
      colour: The colour of all.
      label: The mean's name in the legend.
      points: How many points the mean has.
    """
    for abscissae, ordinates in zip(x, y, strict=True):
        axis.plot(abscissae, ordinates, color=colour, alpha=0.3, linewidth=0.8)
    grid, aligned = align(x, y, points)
    if grid.size:
        mean = aligned.mean(axis=0)
        axis.plot(grid, mean, color=colour, linewidth=2.0, label=label)
