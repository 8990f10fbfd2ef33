"""Curves of densities, beside what all figures share."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ngrl.examples.gaussian import Gaussian
from ngrl.figures import BLUE, GREEN, ORANGE, PURPLE, as_png, check_matplotlib, new_figure, tidy

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = [
    "BLUE",
    "GREEN",
    "ORANGE",
    "PURPLE",
    "as_png",
    "check_matplotlib",
    "draw_densities",
    "new_figure",
    "span",
    "tidy",
]


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
