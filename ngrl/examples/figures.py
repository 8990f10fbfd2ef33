"""What the figures share: matplotlib, imported only where one is drawn, their look, and curves of densities."""

import io
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ngrl.examples.gaussian import Gaussian

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BLUE, ORANGE, GREEN, PURPLE = "#1b6ca8", "#d1603d", "#4c956c", "#7d5ba6"
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


def new_figure(width: float, height: float, caption: str) -> "Figure":
    """An empty figure of that size in inches, with a caption under whatever is drawn in it."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    lines = textwrap.wrap(caption, int(width * _CAPTION_CHARACTERS_PER_INCH))
    figure.supxlabel("\n".join(lines), x=0.01, ha="left", fontsize=8, color="0.3")
    return figure


def as_png(figure: "Figure") -> bytes:
    """A figure as the content of a PNG file."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=_DOTS_PER_INCH, facecolor="white")
    return buffer.getvalue()


def tidy(axis: "Axes", title: str, xlabel: str, ylabel: str) -> None:
    """Title, labels and the common look of an axis."""
    axis.set_title(title, fontsize=10)
    axis.set_xlabel(xlabel, fontsize=9)
    axis.set_ylabel(ylabel, fontsize=9)
    axis.tick_params(labelsize=8)
    axis.grid(alpha=0.25)
    axis.spines[["top", "right"]].set_visible(False)


def span(gaussians: Sequence[Gaussian]) -> tuple[float, float]:
    """A range of x that shows all but the far tails of each."""
    low = min(gaussian.mean - 3.5 * gaussian.std for gaussian in gaussians)
    high = max(gaussian.mean + 3.5 * gaussian.std for gaussian in gaussians)
    return low, high


def draw_densities(
    axis: "Axes", gaussians: Sequence[Gaussian], colours: Sequence[str], limits: tuple[float, float]
) -> None:
    """Draw densities between two values of x."""
    x = np.linspace(*limits, 801)
    for gaussian, colour in zip(gaussians, colours, strict=True):
        density = gaussian.density(x)
        axis.plot(x, density, color=colour, linewidth=1.5, label=str(gaussian))
        axis.fill_between(x, density, color=colour, alpha=0.2)
    axis.set_xlim(limits)
    axis.set_ylim(bottom=0)
